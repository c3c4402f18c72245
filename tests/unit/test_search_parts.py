"""What searches are made of: jobs shared out to threads, blocks of rows, the order of neighbours."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch

from retrieval_detect.search import bank, blocks, threads


def test_every_job_is_done_once_and_no_thread_is_started_for_nothing(monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: 4)
    done = threads.drained(list, range(1000))
    assert Counter(job for part in done for job in part) == Counter(range(1000))
    assert len(done) == 4
    assert [sorted(part) for part in threads.drained(list, "a")] == [["a"]]
    assert threads.drained(list, []) == []


def test_a_job_that_fails_is_not_lost(monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: 2)

    def work(jobs):
        return [1 // job for job in jobs]

    with pytest.raises(ZeroDivisionError):
        threads.drained(work, [1, 0, 1])


def test_what_runs_together_may_wait_for_one_another():
    met = threading.Barrier(3)

    def meet(i):
        met.wait(timeout=20)
        return i

    assert threads.together([lambda i=i: meet(i) for i in range(3)]) == [0, 1, 2]


def test_the_first_failure_of_several_is_raised():
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        threads.together([lambda: 1, fail])


@pytest.mark.parametrize("n_threads", [1, 2, 7])
@pytest.mark.parametrize(("end", "q"), [(1, 1), (2048, 5), (100_000, 32), (1_000_003, 1024)])
def test_slabs_cover_all_rows_and_end_small(monkeypatch, n_threads, end, q):
    monkeypatch.setattr(threads, "count", lambda: n_threads)
    slabs = list(blocks._slabs(end, q))
    assert [slab.start for slab in slabs] == [0, *(slab.stop for slab in slabs[:-1])]
    assert slabs[-1].stop == end
    sizes = [slab.stop - slab.start for slab in slabs]
    assert max(sizes) <= max(blocks._BLOCK_ROWS, blocks._PRODUCTS_AT_ONCE // q)
    fair = max(blocks._BLOCK_ROWS, end // (4 * n_threads))
    assert all(size <= fair for size in sizes[-n_threads:]), "a thread would wait for the last"


def test_the_best_of_blocks_are_those_of_all():
    rng = np.random.default_rng(0)
    products = rng.normal(size=(960, 6)).astype(np.float32)
    products[rng.integers(0, 960, 200)] = -np.inf
    best = blocks._Best(6, 40)
    for start in range(0, 960, 96):
        best.take(torch.from_numpy(products[start : start + 96].copy()), start)
    values, slots = best.values.numpy(), best.slots.numpy()
    np.testing.assert_array_equal(np.sort(values, axis=1), np.sort(products.T, axis=1)[:, -40:])
    np.testing.assert_array_equal(np.take_along_axis(products.T, slots, 1), values)


def test_neighbours_are_ordered_by_similarity_and_then_by_row_id():
    rng = np.random.default_rng(0)
    similarities = rng.normal(size=(5, 60)).astype(np.float32)
    similarities[1] = np.round(similarities[1])
    similarities[2] = 0.5
    similarities[3, :30] = -np.inf
    row_ids = rng.permuted(np.tile(np.arange(60), (5, 1)), axis=1)
    found = bank.nearest(row_ids, similarities, 60)
    for i in range(5):
        live = np.count_nonzero(similarities[i] > -np.inf)
        expected = np.lexsort((row_ids[i], -similarities[i]))
        assert found.row_ids[i, :live].tolist() == row_ids[i, expected[:live]].tolist()
        assert found.similarities[i].tolist() == similarities[i, expected].tolist()
        assert sorted(found.row_ids[i]) == list(range(60))
