"""Batches by matrix products: candidates within the error they admit to, on any CPU."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from retrieval_detect.errors import SearchError
from retrieval_detect.search import bank as bank_module
from retrieval_detect.search import blocks, exact, scan, threads
from retrieval_detect.search.bank import Bank, BankFiles, BankState, ShardVectors
from retrieval_detect.search.blocks import BlockScan, block_scans
from retrieval_detect.search.projection import Identity, query_codes
from retrieval_detect.search.scan import CpuScan
from retrieval_detect.vectors import unit

D = 40
PROJECTION = Identity("proj", D)
precisions = pytest.mark.parametrize("coarse", [False, True], ids=["float32", "bfloat16"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that some hundred rows are many blocks, groups and batches."""
    monkeypatch.setattr(bank_module, "_COARSE_ROWS", 0)
    monkeypatch.setattr(blocks, "_BLOCK_ROWS", 64)
    monkeypatch.setattr(blocks, "_GROUP", 8)
    monkeypatch.setattr(blocks, "_QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(blocks, "_PRODUCTS_AT_ONCE", 7 * 128)


def shards_of(vectors, n_shards=3):
    codes = unit(np.asarray(vectors, np.float32)).astype(np.float16)
    ids = np.arange(len(codes), dtype=np.int64)
    return [ShardVectors(f"s{i}", ids[i::n_shards], codes[i::n_shards]) for i in range(n_shards)]


def bank_of(shards, scans, *, dead=None):
    bank = Bank("fake", BankFiles(None, PROJECTION), scans)
    bank.extend(shards, dead=dead)
    return bank


def spread_out(n=900, seed=0):
    return np.random.default_rng(seed).normal(size=(n, D))


def close_together(n=900, seed=0):
    """Nearer to one another than bfloat16 can tell apart."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=D) + 0.02 * rng.normal(size=(n, D))


def worst_for_bfloat16(n=900, seed=0):
    """Every component half a step of bfloat16 from the nearest one, all errors in one direction."""
    exponents = np.random.default_rng(seed).integers(-4, -2, size=(n, D))
    return (1 + 2.0**-8) * 2.0**exponents


DATA = {"spread out": spread_out, "close": close_together, "worst": worst_for_bfloat16}
data = pytest.mark.parametrize("vectors", [make() for make in DATA.values()], ids=DATA)


def queries_near(vectors, n=17):
    return (vectors[:n] + 0.1 * np.random.default_rng(5).normal(size=(n, D)) * np.abs(vectors[:n])).astype(
        np.float32
    )


@precisions
@data
@pytest.mark.parametrize("c", [1, 30, 899])
def test_candidates_keep_their_promise(coarse, vectors, c):
    shards = shards_of(vectors)
    dead = np.arange(5, 900, 9)
    parts = bank_of(shards, [BlockScan(coarse=coarse)], dead=dead)._state.parts
    codes = query_codes(queries_near(vectors), PROJECTION).astype(np.float32)
    found = BlockScan(coarse=coarse).search(parts, codes, c)
    rows = np.concatenate([part.shard.codes for part in parts]).astype(np.float64)
    alive = np.concatenate([part.alive for part in parts])
    true, norms = codes.astype(np.float64) @ rows.T, np.linalg.norm(codes.astype(np.float64), axis=1)
    assert found.slots.shape[1] >= min(c, alive.sum())
    for i, slots in enumerate(found.slots):
        assert len(set(slots)) == len(slots)
        assert alive[slots].all()
        error = np.abs(found.products[i] - true[i, slots])
        assert (error <= np.abs(found.products[i]) * found.share + found.slack[i] * norms[i]).all()
        others = np.setdiff1d(np.flatnonzero(alive), slots)
        if others.size:
            reach = found.cut[i] + abs(found.cut[i]) * found.share + found.slack[i] * norms[i]
            assert true[i, others].max() <= reach
        else:
            assert found.cut[i] == -np.inf


@precisions
@data
@pytest.mark.parametrize("k", [1, 10, 200])
def test_a_bank_of_blocks_equals_the_oracle(coarse, vectors, k):
    shards, queries = shards_of(vectors), queries_near(vectors)
    dead = np.arange(0, 900, 4)
    found = bank_of(shards, [BlockScan(coarse=coarse), BlockScan(coarse=False)], dead=dead).search(queries, k)
    expected = exact.search(queries, shards, k=k, projection=PROJECTION, dead=dead)
    np.testing.assert_array_equal(found.row_ids, expected.row_ids)
    np.testing.assert_array_equal(found.similarities, expected.similarities)


@pytest.fixture
def attempts(monkeypatch):
    made = []
    attempt = BankState.attempt

    def recording(self, scan, codes, block, **options):
        stands = attempt(self, scan, codes, block, **options)
        made.append((scan.coarse, len(block), int(stands.sum())))
        return stands

    monkeypatch.setattr(BankState, "attempt", recording)
    return made


def test_what_bfloat16_cannot_settle_is_redone_in_float32(attempts):
    vectors = close_together()
    bank = bank_of(shards_of(vectors), [BlockScan(coarse=True), BlockScan(coarse=False), CpuScan()])
    bank.search(queries_near(vectors), 10)
    (coarse, asked, settled), *later = attempts
    assert (coarse, asked) == (True, 17)
    assert settled < 17
    assert all(not coarse for coarse, *_ in later)
    assert sum(settled for *_, settled in attempts) == 17


def test_what_bfloat16_can_settle_is_not(attempts):
    vectors = spread_out()
    bank_of(shards_of(vectors), [BlockScan(coarse=True), CpuScan()]).search(queries_near(vectors), 3)
    assert attempts == [(True, 17, 17)]


def test_a_small_bank_is_not_searched_roughly(attempts, monkeypatch):
    monkeypatch.setattr(bank_module, "_COARSE_ROWS", 901)
    vectors = spread_out()
    bank_of(shards_of(vectors), [BlockScan(coarse=True), BlockScan(coarse=False)]).search(
        queries_near(vectors), 3
    )
    assert attempts == [(False, 17, 17)]


def test_few_queries_are_scanned(attempts, monkeypatch):
    monkeypatch.setattr(BlockScan, "search", lambda *_: pytest.fail("blocks for one query"))
    vectors = spread_out()
    bank_of(shards_of(vectors), [BlockScan(coarse=False), CpuScan()]).search(queries_near(vectors, 1), 3)
    assert len(attempts) == 1


def test_a_cpu_that_multiplies_worse_than_bfloat16_is_found_out(monkeypatch, caplog):
    def worse(self, parts, codes, c):
        found = search(self, parts, codes, c)
        if self.coarse:
            found.products[:] *= 1.05
        return found

    search = BlockScan.search
    monkeypatch.setattr(BlockScan, "search", worse)
    shards, queries = shards_of(spread_out()), queries_near(spread_out())
    bank = bank_of(shards, [BlockScan(coarse=True), BlockScan(coarse=False), CpuScan()])
    found = bank.search(queries, 10)
    expected = exact.search(queries, shards, k=10, projection=PROJECTION)
    np.testing.assert_array_equal(found.row_ids, expected.row_ids)
    assert "computes less exactly" in caplog.text
    assert [scan.coarse for scan in bank._scans] == [False, False]


@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_bfloat16_only_where_the_cpu_has_it(monkeypatch, has_bfloat16):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: has_bfloat16, raising=False)
    assert [scan.coarse for scan in block_scans()] == [True, False][not has_bfloat16 :]


def test_a_torch_without_these_probes_has_no_bfloat16(monkeypatch):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    assert [scan.coarse for scan in block_scans()] == [False]


def test_codes_are_lent_to_torch_not_copied():
    codes = bank_of(shards_of(spread_out(), 1), [])._state.parts[0].shard.codes
    assert not codes.flags.writeable
    lent = blocks._tensor(codes[3:9])
    assert lent.data_ptr() == codes.__array_interface__["data"][0] + 3 * 2 * D
    np.testing.assert_array_equal(lent.numpy(), codes[3:9])


# ---------------------------------------------------------------- the scan for a query or two


def test_a_large_shard_is_shared_out_to_threads(monkeypatch):
    monkeypatch.setattr(scan, "_SLICE_ROWS", 50)
    monkeypatch.setattr(threads, "count", lambda: 4)
    shards, queries = shards_of(spread_out(), 1), queries_near(spread_out(), 2)
    for dead in (None, np.arange(100, 500), np.arange(0, 900, 2)):
        bank = bank_of(shards, [CpuScan()], dead=dead)
        jobs = scan._slices(bank._state.parts[0], 4)
        assert len(jobs) == (3 if dead is not None and dead[1] == 101 else 4)
        found = bank.search(queries, 20)
        expected = exact.search(queries, shards, k=20, projection=PROJECTION, dead=dead)
        np.testing.assert_array_equal(found.row_ids, expected.row_ids)
        np.testing.assert_array_equal(found.similarities, expected.similarities)


def test_small_shards_are_not_cut():
    part = bank_of(shards_of(spread_out(), 1), [])._state.parts[0]
    assert scan._slices(part, 16) == [slice(0, 900)]


def test_threads_are_those_torch_was_given():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert threads.count() == 1
    finally:
        torch.set_num_threads(before)


def test_a_scan_that_cannot_take_more_rows_is_left_out(caplog):
    class Full(BlockScan):
        def extend(self, parts):
            raise SearchError("full")

    bank = bank_of(shards_of(spread_out()), [Full(coarse=False), CpuScan()])
    assert [type(scan) for scan in bank._scans] == [CpuScan]
    assert "full; slower from now on" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_can_search_too():
    bank = bank_of(shards_of(spread_out()), [BlockScan(coarse=False), CpuScan()])
    queries = queries_near(spread_out())
    expected = bank.search(queries, 3).row_ids
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(0 if np.array_equal(bank.search(queries, 3).row_ids, expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_searching_leaves_torch_its_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "count", lambda: 5)  # a pool that no test had before
    bank_of(shards_of(spread_out()), [BlockScan(coarse=False)]).search(queries_near(spread_out()), 3)
    later = ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
    assert (torch.get_num_threads(), later) == (before, before)
