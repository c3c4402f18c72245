"""Pools of threads that work alone: in them, torch starts no threads of its own.

How many torch starts is a number of the whole process, which each thread takes up when it first asks. While a
pool is made that number is another, so whoever asks, or makes another pool, waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier, Lock

_number_of_torch = Lock()


def given() -> int:
    """How many threads torch was given, by OMP_NUM_THREADS or in words."""
    import torch

    with _number_of_torch:
        return torch.get_num_threads()


def pool(name: str, n: int, prepare: Callable[[], object] | None = None) -> ThreadPoolExecutor:
    """``n`` threads called ``name``, the same ones whenever they are asked for.

    They last: what a thread has prepared for a network is lost with it. ``prepare`` : what each does first.
    """
    with _number_of_torch:
        return _pool(name, n, prepare)


@cache
def _pool(name: str, n: int, prepare: Callable[[], object] | None) -> ThreadPoolExecutor:
    import torch

    def work_alone() -> None:
        torch.set_num_threads(1)
        if prepare is not None:
            prepare()

    before, all_there = torch.get_num_threads(), Barrier(n)
    made = ThreadPoolExecutor(n, name, initializer=work_alone)
    for started in [made.submit(all_there.wait) for _ in range(n)]:
        started.result()
    torch.set_num_threads(before)  # what threads to come will start with
    return made


def _in_child() -> None:
    """A forked process has the pools but not their threads, and perhaps a lock that nobody will give back."""
    global _number_of_torch  # noqa: PLW0603 - the one there is
    _number_of_torch = Lock()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
