"""Banks: refusals, devices that fail, threads."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from retrieval_detect.errors import EmptyBank, FaissUnavailable, SearchError, UsageError, VectorError
from retrieval_detect.search import bank as bank_module
from retrieval_detect.search import exact, scan, threads
from retrieval_detect.search._faiss import distribution_status, faiss
from retrieval_detect.search.bank import Bank, BankFiles, BankState, ShardVectors
from retrieval_detect.search.blocks import BlockScan
from retrieval_detect.search.projection import Identity, query_codes
from retrieval_detect.search.scan import CpuScan, FlatScan
from retrieval_detect.vectors import unit

TASKS = Path("/proc/self/task")
D = 32
PROJECTION = Identity("proj", D)


def make_shard(name, row_ids, seed=0):
    row_ids = np.asarray(row_ids, np.int64)
    rows = np.random.default_rng([seed, *name.encode()]).normal(size=(len(row_ids), D))
    return ShardVectors(name, row_ids, unit(rows.astype(np.float32)).astype(np.float16))


SHARDS = [make_shard("a", range(0, 900, 3)), make_shard("b", range(1, 900, 3)), make_shard("c", [5000])]
QUERIES = np.random.default_rng(9).normal(size=(7, D)).astype(np.float32)


def open_bank(shards=SHARDS, **options):
    return Bank.open(shards, label="fake", files=BankFiles(None, PROJECTION), **options)


def flat_bank(flat=None, *, roundings=8.0):
    device = FlatScan(flat or faiss().IndexFlatIP(D), roundings=roundings)
    return Bank("fake", BankFiles(None, PROJECTION), [device, CpuScan()]), device


def assert_exact(bank, shards=SHARDS, *, k=10, dead=None, queries=QUERIES):
    found = bank.search(queries, k)
    expected = exact.search(queries, shards, k=k, projection=PROJECTION, dead=dead)
    np.testing.assert_array_equal(found.row_ids, expected.row_ids)
    np.testing.assert_array_equal(found.similarities, expected.similarities)
    assert (found.row_ids.dtype, found.similarities.dtype) == (np.int64, np.float32)


# ---------------------------------------------------------------- queries


@pytest.mark.parametrize(
    "queries",
    [np.zeros((2, D + 1), np.float32), np.zeros(D, np.float32), np.ones((2, D), np.int64), [["a"] * D]],
    ids=["wrong dimension", "one vector", "integers", "text"],
)
def test_queries_of_the_wrong_kind(queries):
    with pytest.raises(VectorError, match=r"not floating point \(n, 32\)"):
        open_bank().search(queries, 1)


@pytest.mark.parametrize(("value", "says"), [(np.nan, "finite"), (np.inf, "finite"), (0, "zero")])
def test_queries_without_a_direction_are_named(value, says):
    queries = QUERIES.copy()
    queries[3] = value
    with pytest.raises(VectorError, match=f"vector 3 of 7 is .*{says}"):
        open_bank().search(queries, 1)


def test_float16_and_float64_queries_will_do():
    for dtype in (np.float16, np.float64):
        assert_exact(open_bank(), queries=QUERIES.astype(dtype))


def test_no_queries_no_answers():
    found = open_bank().search(QUERIES[:0], 5)
    assert found.row_ids.shape == found.similarities.shape == (0, 5)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one(k):
    with pytest.raises(UsageError, match=f"k is {k}"):
        open_bank().search(QUERIES, k)


def test_k_beyond_the_bank_is_the_bank():
    assert open_bank().search(QUERIES, 10_000).row_ids.shape == (7, 601)
    assert_exact(open_bank(), k=10_000)


@pytest.mark.parametrize("shards", [[], [make_shard("a", [])]], ids=["no shard", "no rows"])
def test_an_empty_bank_says_which(shards):
    bank = open_bank(shards)
    assert bank.n == 0
    with pytest.raises(EmptyBank, match="the fake bank is empty") as caught:
        bank.search(QUERIES, 1)
    assert "--label fake" in caught.value.hint
    with pytest.raises(EmptyBank):
        exact.search(QUERIES, shards, k=1, projection=PROJECTION)


def test_a_bank_whose_rows_are_all_dead_is_empty():
    bank = open_bank(SHARDS[2:], dead=np.array([5000]))
    with pytest.raises(EmptyBank):
        bank.search(QUERIES, 1)
    bank.extend(SHARDS[:1])
    assert_exact(bank, SHARDS[:1])


# ---------------------------------------------------------------- adding and removing


def test_a_row_id_is_held_once():
    with pytest.raises(VectorError, match="row 900 of shard again is in the fake bank already"):
        open_bank([make_shard("first", [900]), make_shard("again", [899, 900, 901])])


def test_a_refused_addition_adds_nothing():
    bank = open_bank()
    with pytest.raises(VectorError, match="row 5000 of shard again"):
        bank.extend([make_shard("new", [7000]), make_shard("again", [4999, 5000])])
    assert bank.n == 601
    assert_exact(bank)


def test_a_removed_row_id_never_comes_back():
    bank = open_bank()
    bank.remove(np.array([5000]))
    with pytest.raises(VectorError, match="row 5000"):
        bank.extend([SHARDS[2]])


def test_removing_what_is_not_there_changes_nothing():
    bank = open_bank()
    bank.remove(np.array([2, 5, 100_000, -3]))
    bank.remove(np.empty(0, np.int64))
    assert_exact(bank)


def test_equal_rows_are_ordered_by_id_even_across_the_cut():
    one = unit(QUERIES[:1]).astype(np.float16)
    copies = ShardVectors("copies", np.arange(6000, 6400), np.repeat(one, 400, axis=0))
    more = ShardVectors("more", np.arange(2, 326, 3), np.repeat(one, 108, axis=0))
    bank = open_bank([*SHARDS, copies, more])
    assert bank.search(QUERIES[:1], 3).row_ids.tolist() == [[2, 5, 8]]
    assert_exact(bank, [*SHARDS, copies, more], k=120)


# ---------------------------------------------------------------- what lies behind


@pytest.mark.parametrize("queries", [QUERIES[:1], QUERIES], ids=["one query", "a batch"])
def test_normally_hardly_any_row_is_compared(monkeypatch, queries):
    compared = []
    measure = BankState._measure

    def counting(self, queries, slots):
        compared.append(slots.size)
        return measure(self, queries, slots)

    bank = open_bank()
    monkeypatch.setattr(BankState, "_measure", counting)
    monkeypatch.setattr(BankState, "compare_all", lambda *_, **__: pytest.fail("all rows were compared"))
    bank.search(queries, 10)
    assert sum(compared) <= len(queries) * 80


@pytest.mark.skipif(not TASKS.exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("queries", [QUERIES[:1], np.tile(QUERIES, (20, 1))], ids=["one query", "a batch"])
def test_many_shards_start_few_threads(queries):
    """Threads of the system, which FAISS's own would be too."""
    shards = [make_shard(f"s{i}", range(i * 10, i * 10 + 10)) for i in range(200)]
    bank = open_bank(shards)
    before = len(list(TASKS.iterdir()))
    assert_exact(bank, shards, queries=queries)
    assert len(list(TASKS.iterdir())) - before <= threads.count()


def test_however_queries_are_shared_out_the_answer_is_the_same(monkeypatch):
    bank = open_bank()
    for n in (1, 2, 3, 20):
        monkeypatch.setattr(threads, "count", lambda n=n: n)
        assert_exact(bank, k=5)


def test_searching_while_others_add_and_remove():
    bank = open_bank(SHARDS[:2])
    stop = threading.Event()

    def churn():
        for i in range(30):
            new = make_shard(f"n{i}", range(10_000 + 10 * i, 10_010 + 10 * i))
            bank.extend([new])
            bank.remove(new.row_ids)
        stop.set()

    def ask():
        while not stop.is_set():
            found = bank.search(QUERIES, 3)
            assert (np.diff(found.similarities, axis=1) <= 0).all()
            assert (found.similarities > -1).all()

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(work) for work in (ask, ask, ask, churn)]
        for job in jobs:
            job.result(timeout=60)
    assert_exact(bank, SHARDS[:2])


# ---------------------------------------------------------------- devices


def test_the_device_copy_grows_in_place_and_is_made_anew_when_too_much_is_gone():
    bank, device = flat_bank()
    bank.extend(SHARDS[:1])
    flat = device._flat
    bank.extend(SHARDS[1:], dead=np.array([1]))
    assert device._flat is flat
    assert flat.ntotal == 600
    gone = SHARDS[0].row_ids[:100]
    bank.remove(gone)
    assert flat.ntotal == 600, "a few removed rows stay, filtered"
    assert_exact(bank, dead=np.append(gone, 1))
    gone = SHARDS[0].row_ids[:200]
    bank.remove(gone)
    assert flat.ntotal == 400, "many are not carried along"
    assert_exact(bank, dead=np.append(gone, 1))
    bank.extend([make_shard("d", [9000, 9001])])
    assert_exact(bank, [*SHARDS, make_shard("d", [9000, 9001])], dead=np.append(gone, 1))


def test_removed_rows_at_the_very_top_are_made_up_for():
    bank, _ = flat_bank()
    bank.extend(SHARDS)
    nearest = bank.search(QUERIES[:1], 100).row_ids[0]
    bank.remove(nearest)
    assert_exact(bank, dead=np.sort(nearest), queries=QUERIES[:1], k=30)


class LimitedFlat:
    """Like a GPU index: refuses k above its limit, errs, breaks."""

    def __init__(self, *, error=0.0, breaks=()):
        self._index = faiss().IndexFlatIP(D)
        self._rng = np.random.default_rng(0)
        self.error, self.breaks = error, breaks
        self.searched = 0

    def add(self, rows):
        if "add" in self.breaks:
            raise RuntimeError("Error in alloc\ncudaMalloc error out of memory [2]")
        self._index.add(rows)

    def reset(self):
        self._index.reset()

    def search(self, codes, k):
        assert 0 < k <= scan._GPU_LARGEST_K
        if "search" in self.breaks:
            raise RuntimeError("CUDA error 700")
        self.searched += 1
        everything, order = self._index.search(codes, self._index.ntotal)
        noisy = (everything + self._rng.uniform(-self.error, self.error, everything.shape)).astype(np.float32)
        best = np.argsort(-noisy, axis=1)[:, :k]
        return np.take_along_axis(noisy, best, 1), np.take_along_axis(order, best, 1)


def test_a_device_may_round_as_badly_as_it_says():
    flat = LimitedFlat(error=0.9 * 200 * D * 2.0**-24)
    bank, device = flat_bank(flat, roundings=200.0)
    bank.extend(SHARDS)
    for k in (1, 10, 200):
        assert_exact(bank, k=k)
    assert device in bank._scans
    assert flat.searched


def test_a_device_that_rounds_worse_is_found_out(caplog):
    flat = LimitedFlat(error=1e-3)
    bank, device = flat_bank(flat)
    bank.extend(SHARDS)
    assert_exact(bank)
    assert device not in bank._scans
    assert "computes less exactly" in caplog.text
    caplog.clear()
    assert_exact(bank)
    assert not caplog.records, "said once"


@pytest.mark.parametrize("breaks", ["add", "search"])
def test_a_device_that_fails_makes_answers_slower_not_wrong(caplog, breaks):
    bank, device = flat_bank(LimitedFlat(breaks=(breaks,)))
    bank.extend(SHARDS)
    assert_exact(bank)
    assert device not in bank._scans
    assert "slower from now on" in caplog.text
    bank.extend([make_shard("d", [9000])])
    bank.remove(np.array([0]))
    assert_exact(bank, [*SHARDS, make_shard("d", [9000])], dead=np.array([0]))


def test_without_any_scan_all_rows_are_compared(monkeypatch, caplog):
    def broken(*_):
        raise SearchError("broken")

    bank = open_bank()
    for kind in (CpuScan, BlockScan):
        monkeypatch.setattr(kind, "search", broken)
    assert_exact(bank)
    assert "broken" in caplog.text


def test_more_neighbours_than_the_device_can_give_come_from_the_cpu(monkeypatch):
    flat = LimitedFlat()
    bank, device = flat_bank(flat)
    device.largest_c = 100
    bank.extend(SHARDS)
    assert_exact(bank, k=300)
    assert not flat.searched
    assert_exact(bank, k=20)
    assert flat.searched


def test_a_device_that_is_not_there_is_refused_at_once():
    if distribution_status().n_gpus:
        pytest.skip("there is a GPU")
    with pytest.raises(FaissUnavailable):
        open_bank(device="cuda")
    assert_exact(open_bank(device="auto"))


@pytest.mark.gpu
@pytest.mark.parametrize("d", [32, 768])
def test_the_gpu_agrees_bit_for_bit(d, caplog):
    if not distribution_status().n_gpus:
        pytest.skip("FAISS sees no GPU here")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, d))
    rows = unit(
        (centres[rng.integers(0, 50, 20_000)] + 0.5 * rng.normal(size=(20_000, d))).astype(np.float32)
    )
    rows[500:900] = rows[500]
    shards = [ShardVectors(f"s{i}", np.arange(i, 20_000, 3), rows[i::3].astype(np.float16)) for i in range(3)]
    projection = Identity("proj", d)
    bank = Bank.open(shards[:2], label="real", files=BankFiles(None, projection), device="cuda")
    bank.extend(shards[2:])
    queries = np.concatenate([rows[495:505], (centres + 0.5 * rng.normal(size=centres.shape))]).astype(
        np.float32
    )
    for dead in (np.arange(0, 20_000, 50), np.arange(0, 20_000, 2)):
        bank.remove(dead)
        for k in (1, 10, 200, 3000):
            found = bank.search(queries, k)
            expected = exact.search(queries, shards, k=k, projection=projection, dead=dead)
            np.testing.assert_array_equal(found.row_ids, expected.row_ids)
            np.testing.assert_array_equal(found.similarities, expected.similarities)
    assert len(bank._scans) == 2, caplog.text


def test_queries_are_rounded_like_references():
    codes = query_codes(QUERIES * 3, PROJECTION)
    np.testing.assert_array_equal(codes, unit(QUERIES).astype(np.float16))
    stored = ShardVectors("q", np.arange(7), codes)
    found = open_bank([stored]).search(QUERIES, 1)
    assert found.row_ids[:, 0].tolist() == list(range(7))
    np.testing.assert_allclose(found.similarities, 1, atol=1e-6)
    assert (found.similarities <= 1).all()


def test_the_first_candidates_are_chosen_generously(monkeypatch, caplog):
    """The bound on other rows, not the number of candidates, is what makes answers exact."""
    monkeypatch.setattr(bank_module, "_SPARE", 0)
    with caplog.at_level(logging.WARNING):
        assert_exact(open_bank(), k=3)
    assert not caplog.records


def test_identity_is_named_by_kind_and_layer():
    assert Identity("proj", D).id == Identity("proj", D + 1).id != Identity("pre", D).id
    assert (PROJECTION.widths, PROJECTION.d_out, len(PROJECTION.id)) == ((D,), D, 12)
