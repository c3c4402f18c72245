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
from threading import Barrier
from typing import TypeVar

from retrieval_detect.search._faiss import faiss

_Job = TypeVar("_Job")
_Done = TypeVar("_Done")


def count() -> int:
    """How many there are: what torch was given, by OMP_NUM_THREADS or in words, holds here too."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(torch.get_num_threads(), cores)


def shared_out(work: Callable[[_Job], _Done], jobs: Iterable[_Job]) -> list[_Done]:
    """``work`` done on each of ``jobs``, in their order."""
    return list(_pool(count()).map(work, jobs))


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


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    import torch

    given, all_there = torch.get_num_threads(), Barrier(threads)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="rd-search", initializer=_work_alone)
    for started in [pool.submit(all_there.wait) for _ in range(threads)]:
        started.result()
    # The number holds for the thread that sets it, and for threads yet to come: those are not ours.
    torch.set_num_threads(given)
    return pool


def _work_alone() -> None:
    import torch

    faiss().omp_set_num_threads(1)
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    # A forked process has the pools but not their threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)
    os.register_at_fork(after_in_child=_askers.cache_clear)
