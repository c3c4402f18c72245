"""Pools of threads that work alone, and what they leave to everybody else."""

from __future__ import annotations

import threading

import pytest
import torch

from retrieval_detect import pools


@pytest.fixture
def three():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def in_a_new_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(20)
    return found[0]


def test_threads_of_a_pool_work_alone_and_are_the_same_ones_again():
    pool = pools.pool("test-alone", 2)
    meet = threading.Barrier(2)
    seen = [pool.submit(lambda: (meet.wait(20), torch.get_num_threads())[1]) for _ in range(2)]
    assert [one.result() for one in seen] == [1, 1]
    assert pools.pool("test-alone", 2) is pool


def test_what_each_thread_prepares():
    prepared = []
    pools.pool("test-prepared", 3, lambda: prepared.append(threading.get_ident()))
    assert len(set(prepared)) == 3


@pytest.mark.parametrize("round_", range(15))
def test_pools_made_at_the_same_time_leave_torch_its_threads(round_, three):
    """A thread that looked meanwhile would take the number of the pool for everybody's, and keep it."""
    begin, asked = threading.Barrier(8), []

    def make(i):
        begin.wait(20)
        if i % 2:
            pools.pool(f"test-{round_}-{i}", 2)
        else:
            asked.append(pools.given())

    threads = [threading.Thread(target=make, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert asked == [3] * 4
    assert in_a_new_thread(torch.get_num_threads) == 3
