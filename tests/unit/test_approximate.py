"""Approximate banks: whatever is proposed, answers are true, full, and say what was missed."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.errors import FaissUnavailable, SearchError, UsageError
from retrieval_detect.search import exact
from retrieval_detect.search._faiss import faiss
from retrieval_detect.search.approximate import ApproximateBank, caveat, index_path, open_bank, recall
from retrieval_detect.search.bank import BankFiles, ShardVectors
from retrieval_detect.search.kinds import KINDS, kind_of, kinds_at_hand
from retrieval_detect.search.projection import Identity
from retrieval_detect.store.manifest import Tuned, TunedBank
from retrieval_detect.vectors import unit

D, K = 64, 50
PROJECTION = Identity("proj", D)
CPU_KINDS = ("ivf-sq8", "ivf-rabitq", "hnsw")
NOBODY = np.empty(0, np.int64)


def clustered(n, seed, *, start=0, name=""):
    """Rows about 40 centres, in an order that says nothing of them."""
    centres = np.random.default_rng(1).normal(size=(40, D))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 40, n)] + 0.7 * rng.normal(size=(n, D))
    vectors = unit(rows.astype(np.float32)).astype(np.float16)
    return ShardVectors(name or f"{seed:016x}", np.arange(start, start + n), vectors)


COVERED = [clustered(3000, 2), clustered(2500, 3, start=3000)]
TAIL = clustered(600, 4, start=5500)
QUERIES = clustered(40, 5).vectors.astype(np.float32)


def tuned(kind, *, effort, shards=COVERED):
    bank = TunedBank(tuple(s.shard_id for s in shards), 5500, effort, {"10": 0.99, "200": 0.98}, 512, "calib")
    return Tuned(PROJECTION.id, kind, 0.98, {"real": bank, "fake": bank})


def opened(kind="ivf-sq8", *, effort=32, shards=(*COVERED, TAIL), folder=None, dead=NOBODY):
    files = BankFiles(folder, PROJECTION)
    how = tuned(kind, effort=effort)
    return open_bank(shards, files, label="fake", dead=dead, device="cpu", tuned=how)


def truth(queries=QUERIES, k=K, *, dead=None, shards=(*COVERED, TAIL)):
    return exact.search(queries, shards, k=k, projection=PROJECTION, dead=dead)


def assert_true(found, queries=QUERIES, *, shards=(*COVERED, TAIL)):
    """Ordered by (-similarity, row id), nobody twice, and every similarity that of the oracle."""
    everybody = truth(queries, 10**6, shards=shards)
    for i, (ids, similarities) in enumerate(zip(found.row_ids, found.similarities, strict=True)):
        known = dict(zip(everybody.row_ids[i].tolist(), everybody.similarities[i].tolist(), strict=True))
        assert [known[row_id] for row_id in ids.tolist()] == similarities.tolist()
        assert len(set(ids.tolist())) == len(ids)
        order = np.lexsort((ids, -similarities))
        assert order.tolist() == list(range(len(ids)))


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_similarities_are_true_and_more_effort_finds_more(kind):
    bank = opened(kind)
    assert isinstance(bank, ApproximateBank)
    shares = []
    for effort in (1, 8, 10_000):
        found = bank.at(effort).search(QUERIES, K)
        assert_true(found)
        shares.append(recall(found, truth()).mean())
    assert shares == sorted(shares) and shares[-1] > 0.97
    assert shares[0] < shares[-1] or KINDS[kind].graph  # a graph is never walked for less than was asked


def test_least_effort_misses_some():
    assert recall(opened(effort=1).search(QUERIES, K), truth()).mean() < 0.95


def test_a_bank_is_exact_until_it_relies_on_an_index():
    files = BankFiles(None, PROJECTION)
    bank = ApproximateBank.open([*COVERED, TAIL], label="fake", files=files)
    np.testing.assert_array_equal(bank.search(QUERIES, K).row_ids, truth().row_ids)
    bank.build(KINDS["ivf-sq8"], [s.shard_id for s in COVERED])
    assert recall(bank.at(1).search(QUERIES, K), truth()).mean() < 0.95


def test_recall_is_the_share_of_ids():
    found = truth()
    found.row_ids[0, :25] = -1
    np.testing.assert_allclose(recall(found, truth()), [0.5] + [1.0] * 39)


def test_what_came_since_is_compared_row_by_row():
    bank = opened(effort=1, shards=COVERED)
    bank.extend([TAIL])
    found = bank.search(TAIL.vectors[:30].astype(np.float32), K)
    assert found.row_ids[:, 0].tolist() == TAIL.row_ids[:30].tolist()
    right = truth(TAIL.vectors[:30].astype(np.float32))
    for some, all_ in zip(found.row_ids, right.row_ids, strict=True):
        since = all_[all_ >= TAIL.row_ids[0]]
        assert np.isin(since, some).all()


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_removed_rows_are_made_up_for(kind):
    bank, nearest = opened(kind, effort=64), truth(k=K)
    gone = np.unique([*nearest.row_ids[:, :20].ravel(), *TAIL.row_ids[::2]])
    bank.remove(gone)
    found = bank.search(QUERIES, K)
    assert not np.isin(found.row_ids, gone).any()
    assert_true(found)
    assert recall(found, truth(dead=gone)).mean() > 0.95
    again = opened(kind, effort=64, dead=gone).search(QUERIES, K)
    assert not np.isin(again.row_ids, gone).any()


def test_where_too_few_are_proposed_all_are_compared():
    """Of a cluster that is gone but for a few rows, the lists probed hold too few."""
    bank = opened(effort=1)
    gone = np.setdiff1d(np.arange(5500), np.arange(0, 5500, 20))
    bank.remove(gone)
    found = bank.search(QUERIES, K)
    assert found.row_ids.shape == (len(QUERIES), K) and np.isfinite(found.similarities).all()
    assert not np.isin(found.row_ids, gone).any()
    assert_true(found)


@pytest.mark.parametrize("k", [4000, 6100, 10_000])
def test_large_k_is_answered_exactly(k):
    found, right = opened(effort=1).search(QUERIES[:3], k), truth(QUERIES[:3], k)
    np.testing.assert_array_equal(found.row_ids, right.row_ids)
    np.testing.assert_array_equal(found.similarities, right.similarities)


def test_no_queries_and_steps(monkeypatch):
    bank = opened()
    assert bank.search(QUERIES[:0], 5).row_ids.shape == (0, 5)
    whole = bank.search(QUERIES, K)
    monkeypatch.setattr("retrieval_detect.search.approximate._CANDIDATES_AT_ONCE", 300)
    np.testing.assert_array_equal(bank.search(QUERIES, K).row_ids, whole.row_ids)


def test_without_its_shards_a_bank_is_exact():
    """Compaction has rewritten them all: nothing is covered."""
    found = opened(effort=1, shards=[TAIL]).search(QUERIES, K)
    np.testing.assert_array_equal(found.row_ids, truth(shards=[TAIL]).row_ids)


def test_an_index_of_other_rows_is_refused():
    bank = opened(effort=1)
    with pytest.raises(SearchError, match="5,500 rows cannot stand for 600"):
        bank.rely_on(KINDS["ivf-sq8"], bank._index, [TAIL.shard_id])


# ---------------------------------------------------------------- files


def the_file(folder, shards=COVERED):
    present = {s.shard_id for s in (*shards, TAIL)}
    return index_path(folder, tuned("hnsw", effort=256), "fake", present)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm", [flipped, lambda path: path.write_bytes(path.read_bytes()[:999]), lambda path: path.unlink()]
)
def test_a_missing_or_damaged_file_is_built_anew(tmp_path, caplog, harm):
    before = opened("hnsw", folder=tmp_path).search(QUERIES, K)
    caplog.clear()
    path = the_file(tmp_path)
    harm(path)
    after = opened("hnsw", folder=tmp_path).search(QUERIES, K)
    assert "building it" in caplog.text
    assert min(recall(found, truth()).mean() for found in (before, after)) > 0.97
    caplog.clear()
    opened("hnsw", folder=tmp_path)
    assert not caplog.records


def test_a_file_of_another_kind_is_not_read(tmp_path, caplog):
    opened("hnsw", folder=tmp_path)
    path = the_file(tmp_path)
    other = opened("ivf-sq8", folder=tmp_path)
    other._kind = KINDS["hnsw"]
    other.save(path)
    caplog.clear()
    opened("hnsw", folder=tmp_path)
    assert "it is a FAISS index of another kind" in caplog.text


def test_names_follow_the_rows_and_not_the_effort():
    present = {s.shard_id for s in COVERED}
    assert tuned("hnsw", effort=1).stem("fake", present) == tuned("hnsw", effort=9).stem("fake", present)
    others = [tuned("ivf-sq8", effort=1), tuned("hnsw", effort=1, shards=COVERED[:1])]
    stems = {t.stem(label, present) for t in (*others, tuned("hnsw", effort=1)) for label in ("real", "fake")}
    assert len(stems) == 6
    assert tuned("hnsw", effort=1).stem("fake", {COVERED[0].shard_id}) in stems


# ---------------------------------------------------------------- kinds


def test_a_kind_that_this_faiss_lacks_is_named(monkeypatch):
    monkeypatch.delattr(faiss(), "IndexIVFRaBitQ")
    assert "ivf-rabitq" not in kinds_at_hand() and "ivf-sq8" in kinds_at_hand()
    with pytest.raises(FaissUnavailable, match="has no IndexIVFRaBitQ, which ivf-rabitq is made of"):
        opened("ivf-rabitq")


@pytest.mark.skipif(hasattr(faiss(), "GpuIndexCagra"), reason="this FAISS has CAGRA")
def test_cagra_needs_another_build():
    with pytest.raises(FaissUnavailable, match="GpuIndexCagra") as caught:
        kind_of("cagra").require()
    assert "gpu-cuvs" in caught.value.hint and "cagra" not in kinds_at_hand()


def test_unknown_kinds():
    with pytest.raises(UsageError, match="no kind of index 'lsh'"):
        kind_of("lsh")


def test_the_caveat_says_both_banks():
    assert caveat(tuned("hnsw", effort=1)) == (
        "approximate search (hnsw): of the 200 nearest references it finds 98.0% in the real bank and "
        "98.0% in the fake bank"
    )
