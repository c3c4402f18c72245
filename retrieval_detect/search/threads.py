"""The threads that search: as many as torch was given, each working alone.

FAISS and torch start threads of their own for every small step and wait for the slowest at its end. Where
another process holds a core, each such wait costs a time slice, and a batch of milliseconds takes
seconds. Here a search is cut once, and waits once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from retrieval_detect import pools
from retrieval_detect.search._faiss import faiss

_Job = TypeVar("_Job")
_Done = TypeVar("_Done")


def count() -> int:
    """How many there are: what torch was given, by OMP_NUM_THREADS or in words, holds here too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(pools.given(), cores)


def shared_out(work: Callable[[_Job], _Done], jobs: Iterable[_Job]) -> list[_Done]:
    """``work`` done on each of ``jobs``, in their order."""
    return list(pools.pool("rd-search", count(), _one_thread_of_faiss).map(work, jobs))


def drained(work: Callable[[Iterator[_Job]], _Done], jobs: Iterable[_Job]) -> list[_Done]:
    """``work`` done once by each thread, on the jobs it comes by: what it needs is made once a thread."""
    waiting = deque(jobs)
    return shared_out(lambda _: work(_taken(waiting)), range(min(count(), len(waiting))))


def together(works: Sequence[Callable[[], _Done]]) -> list[_Done]:
    """All of ``works`` at once, what they gave in their order: where one waits, the others' jobs are done."""
    others = [_askers().submit(work) for work in works[1:]]
    return [works[0](), *(other.result() for other in others)]


def _taken(waiting: deque[_Job]) -> Iterator[_Job]:
    while waiting:
        try:
            job = waiting.popleft()
        except IndexError:  # another thread was faster
            return
        yield job


@cache
def _askers() -> ThreadPoolExecutor:
    # Threads of their own: those that search must not wait for one another.
    return ThreadPoolExecutor(thread_name_prefix="rd-ask")


def _one_thread_of_faiss() -> None:
    faiss().omp_set_num_threads(1)  # it holds for the thread that sets it


if hasattr(os, "register_at_fork"):
    # A forked process has the pool but not its threads.
    os.register_at_fork(after_in_child=_askers.cache_clear)
