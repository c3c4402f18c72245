"""A bank answers like comparing everything with everything, whatever its shards, history and device."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.search import bank as bank_module
from retrieval_detect.search import exact
from retrieval_detect.search._faiss import faiss
from retrieval_detect.search.bank import Bank, BankFiles
from retrieval_detect.search.blocks import BlockScan
from retrieval_detect.search.projection import query_codes
from retrieval_detect.search.scan import CpuScan, FlatScan
from tests.strategies import QUICK, search_cases


@pytest.fixture(autouse=True, scope="module")
def eager_faiss():
    """Start with hardly more than k candidates, so that small cases reach every scan and retry."""
    with mock.patch.multiple(bank_module, _SPARE=0, _COARSE_ROWS=0):
        yield


def stand_in(d):
    """The GPU's logic on a CPU: one flat FAISS index, and few candidates at most."""
    scan = FlatScan(faiss().IndexFlatIP(d), roundings=8.0)
    scan.largest_c = 20
    return scan


def eager_blocks():
    """Both precisions, whatever this CPU has, for a single query too."""
    scans = [BlockScan(coarse=True), BlockScan(coarse=False)]
    for scan in scans:
        scan.fewest = 1
    return scans


def make_bank(case, *, device, shards=(), dead=None):
    scans = {"flat": [stand_in(case.projection.d_out)], "blocks": eager_blocks()}.get(device, [])
    bank = Bank("fake", BankFiles(None, case.projection), [*scans, CpuScan()])
    bank.extend(shards, dead=dead)
    return bank


def oracle(case, *, k=None):
    return exact.search(
        case.queries, case.shards(), k=k or case.k, projection=case.projection, dead=case.dead
    )


def assert_same(found, expected):
    np.testing.assert_array_equal(found.row_ids, expected.row_ids)
    np.testing.assert_array_equal(found.similarities.view(np.uint32), expected.similarities.view(np.uint32))


devices = pytest.mark.parametrize("device", ["cpu", "flat", "blocks"])


@devices
@QUICK
@given(case=search_cases())
def test_a_bank_equals_the_oracle_bit_for_bit(device, case):
    bank = make_bank(case, device=device, shards=case.shards(), dead=case.dead)
    assert_same(bank.search(case.queries, case.k), oracle(case))
    assert bank.n == len(case.row_ids) - len(case.dead)
    assert len(bank._scans) == {"cpu": 1, "flat": 2, "blocks": 3}[device], "a scan was found to be inexact"


@QUICK
@given(case=search_cases(), data=st.data())
def test_similarities_are_the_same_bits_in_any_order_of_summation(case, data):
    query = query_codes(case.queries[:1], case.projection)[0].astype(np.float32)
    order = data.draw(st.permutations(range(case.vectors.shape[1])))
    one = exact.similarity(query, case.vectors)
    other = exact.similarity(query[order], case.vectors[:, order])
    assert one.tolist() == other.tolist()


@QUICK
@given(case=search_cases())
def test_the_oracle_is_the_cosine_of_the_rounded_vectors(case):
    found = oracle(case, k=len(case.row_ids))
    queries = query_codes(case.queries, case.projection).astype(np.float64)
    rows = case.vectors.astype(np.float64)
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    expected = queries @ rows.T / norms
    alive = ~np.isin(case.row_ids, case.dead)
    for ids, similarities, row in zip(found.row_ids, found.similarities, expected, strict=True):
        assert sorted(ids) == sorted(case.row_ids[alive])
        np.testing.assert_allclose(similarities, row[np.searchsorted(case.row_ids, ids)], atol=1e-6)
        assert sorted(zip(-similarities, ids, strict=True)) == list(zip(-similarities, ids, strict=True))


@QUICK
@given(case=search_cases())
def test_similarity_does_not_depend_on_the_rows_beside(case):
    query = query_codes(case.queries[:1], case.projection)[0].astype(np.float32)
    together = exact.similarity(query, case.vectors)
    alone = np.concatenate([exact.similarity(query, case.vectors[i : i + 1]) for i in range(len(together))])
    shifted = exact.similarity(query, case.vectors[1:]) if len(together) > 1 else together[1:]
    transposed = exact.similarity(query, np.asfortranarray(case.vectors))
    assert together.tolist() == alone.tolist() == transposed.tolist()
    assert together[1:].tolist() == shifted.tolist()


@devices
@QUICK
@given(case=search_cases(), data=st.data())
def test_any_order_of_adding_and_any_shards_give_the_same(device, case, data):
    n = len(case.row_ids)
    other = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    shards = data.draw(st.permutations(case.shards(other)))
    cut = data.draw(st.integers(0, len(shards)))
    bank = make_bank(case, device=device, shards=shards[:cut], dead=case.dead)
    for shard in shards[cut:]:
        bank.extend([shard], dead=case.dead)
    assert_same(bank.search(case.queries, case.k), oracle(case))


@devices
@QUICK
@given(case=search_cases())
def test_adding_and_removing_is_no_change(device, case):
    bank = make_bank(case, device=device, shards=case.shards())
    before = bank.search(case.queries, case.k)
    new = exact.ShardVectors("new", case.row_ids + 10_000, case.vectors[::-1].copy())
    bank.extend([new])
    assert bank.n == 2 * len(case.row_ids)
    bank.remove(new.row_ids[::-1])
    assert_same(bank.search(case.queries, case.k), before)


@devices
@QUICK
@given(case=search_cases())
def test_removing_equals_never_having_had(device, case):
    bank = make_bank(case, device=device, shards=case.shards())
    for row_id in case.dead:
        bank.remove(np.array([row_id, -1]))
    assert_same(bank.search(case.queries, case.k), oracle(case))


@QUICK
@given(case=search_cases(), data=st.data())
def test_a_batch_is_its_queries_one_by_one_in_any_order(case, data):
    bank = make_bank(case, device="cpu", shards=case.shards(), dead=case.dead)
    together = bank.search(case.queries, case.k)
    order = data.draw(st.permutations(range(len(case.queries))))
    permuted = bank.search(case.queries[order], case.k)
    assert permuted.row_ids.tolist() == together.row_ids[order].tolist()
    for i, query in enumerate(case.queries):
        alone = bank.search(query[None], case.k)
        assert alone.row_ids[0].tolist() == together.row_ids[i].tolist()
        assert alone.similarities[0].tolist() == together.similarities[i].tolist()


@QUICK
@given(case=search_cases(), scale=st.sampled_from([1e-30, 0.5, 1e30]))
def test_the_length_of_a_query_does_not_count(case, scale):
    bank = make_bank(case, device="cpu", shards=case.shards(), dead=case.dead)
    scaled = bank.search((case.queries.astype(np.float64) * scale).astype(np.float32), case.k)
    np.testing.assert_allclose(scaled.similarities, oracle(case).similarities, atol=2e-3)
