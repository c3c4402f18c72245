"""Tuning: what is promised is measured, exact stays the default, a tuned index grows, shrinks, goes back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from retrieval_detect.ask.banks import Banks
from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.methods import Methods
from retrieval_detect.errors import FaissUnavailable, UsageError
from retrieval_detect.review.whole import verify
from retrieval_detect.search._faiss import faiss
from retrieval_detect.search.approximate import recall
from retrieval_detect.search.bank import Bank
from retrieval_detect.store.layout import BANKS
from retrieval_detect.store.manifest import Manifest, manifest_path
from retrieval_detect.store.store import Store
from retrieval_detect.teach import tune
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.types import LABELS
from retrieval_detect.verdicts import Question
from tests.factories import D, add, embedded, new_store

N = 5600
CENTRES = np.random.default_rng(1).normal(size=(30, D)).astype(np.float32)


def clustered(prefix, n, seed):
    rng = np.random.default_rng(seed)
    vectors = CENTRES[rng.integers(0, 30, n)] + 0.6 * rng.normal(size=(n, D)).astype(np.float32)
    return [embedded(f"{prefix}-{i}", vector=vector) for i, vector in enumerate(vectors)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = new_store(tmp_path_factory.mktemp("tuned") / "index")
    add(store, clustered("real", N, 2), "real", "camera")
    add(store, clustered("fake", N, 3), "fake", "flux")
    for label in LABELS:
        Banks(store.snapshot()).bank(label)
    return store.folder


@pytest.fixture
def store(made, tmp_path, monkeypatch):
    """Approximate search counts as faster here: times are no tests."""
    monkeypatch.setattr(tune, "WORTH", 1e9)
    shutil.copytree(made, tmp_path / "index")
    return Store(tmp_path / "index")


def tuned(store, **options):
    found = tune.try_kinds(store.snapshot(), **{"kinds": ["ivf-sq8"], "target": 0.9} | options)
    return tune.commit_tuning(store, found)


def bank_files(store):
    return sorted(p.name for p in (store.folder / BANKS).glob("*.faiss") if p.name[:4] in LABELS)


def queries(n=150, seed=11):
    return np.stack([image.vectors["proj"] for image in clustered("query", n, seed)])


def measured(store, label, k=200):
    """Recall by queries that no tuning has seen."""
    snapshot = store.snapshot()
    found = Banks(snapshot).bank(label).search(queries(), k)
    return recall(found, Banks(snapshot, exact=True).bank(label).search(queries(), k)).mean()


def test_exact_is_the_default(store):
    assert type(Banks(store.snapshot()).bank("real")) is Bank
    assert tune.describe(store.snapshot()) is None and not bank_files(store)


def test_the_recall_promised_is_the_recall_there_is(store):
    manifest = tuned(store, kinds=["ivf-sq8", "ivf-rabitq", "hnsw"])
    assert manifest.operation.kind == "tune" and len(bank_files(store)) == 2
    for label in LABELS:
        bank = manifest.tuned.banks[label]
        assert bank.split == "calib" and bank.n_queries == 512
        assert min(bank.recall.values()) >= 0.9
        assert measured(store, label) == pytest.approx(bank.recall["200"], abs=0.03)
        assert measured(store, label, 10) == pytest.approx(bank.recall["10"], abs=0.03)


def test_no_less_effort_would_do(store):
    found = tune.try_kinds(store.snapshot(), target=0.97, kinds=["ivf-sq8"])
    for label, bank in found.tuned.banks.items():
        assert bank.recall["200"] >= 0.97
        less = found.banks[label].at(bank.effort // 2).search(queries(), 200)
        exact = Banks(store.snapshot(), exact=True).bank(label).search(queries(), 200)
        assert bank.effort == 4 or recall(less, exact).mean() < 0.985


def test_what_was_tried_is_told_and_nothing_written(store, contents_of):
    before = contents_of(store.folder)
    found = tune.try_kinds(store.snapshot(), target=0.9)
    assert contents_of(store.folder) == before
    names = [(m.label, m.kind) for m in found.tried]
    kinds = ("exact", "ivf-sq8", "ivf-rabitq", "hnsw")
    assert set(names) >= {(label, kind) for label in LABELS for kind in kinds}
    for m in found.tried:
        assert (m.alone_s is not None) == m.meets and set(m.recall) == {"10", "200"}


def test_what_cannot_be_met_leaves_banks_exact(store):
    found = tune.try_kinds(store.snapshot(), target=1.0, kinds=["ivf-rabitq"])
    assert found.tuned is None and "finds enough" in found.reason
    before = store.snapshot().manifest.generation
    assert tune.commit_tuning(store, found).generation == before


def test_what_saves_no_time_leaves_banks_exact(store, monkeypatch):
    monkeypatch.setattr(tune, "WORTH", 0.0)
    found = tune.try_kinds(store.snapshot(), target=0.9, kinds=["ivf-sq8"])
    assert found.tuned is None and "as fast" in found.reason


def test_small_banks_stay_exact(tmp_path):
    small = new_store(tmp_path / "small")
    add(small, clustered("r", 60, 1), "real")
    add(small, clustered("f", 60, 2), "fake")
    found = tune.try_kinds(small.snapshot())
    assert found.tuned is None and found.tried == () and "real and the fake bank is so small" in found.reason


@pytest.mark.parametrize("target", [0, -1, 1.5])
def test_shares_that_are_none(store, target):
    with pytest.raises(UsageError, match=f"a recall of {target}"):
        tune.try_kinds(store.snapshot(), target=target)


def test_a_kind_that_is_not_to_be_had(store, monkeypatch):
    monkeypatch.delattr(faiss(), "IndexHNSWSQ")
    with pytest.raises(FaissUnavailable, match="IndexHNSWSQ"):
        tune.try_kinds(store.snapshot(), kinds=["hnsw"])


# ---------------------------------------------------------------- afterwards


def test_verdicts_say_so_and_going_back_is_exact(store):
    image = clustered("asked", 1, 5)[0]
    plain = Detector.load(store.folder).judge(image)
    tuned(store)
    approximate = Detector.load(store.folder).judge(image)
    said = [w for w in approximate.warnings if w.startswith("approximate search (ivf-sq8)")]
    assert len(said) == 1 and "in the real bank" in said[0] and "in the fake bank" in said[0]
    assert approximate.score == pytest.approx(plain.score, abs=0.1)
    tune.commit_tuning(store, None)
    again = Detector.load(store.folder).judge(image)
    assert (again.score, again.evidence, again.warnings) == (plain.score, plain.evidence, plain.warnings)
    assert type(Banks(store.snapshot()).bank("fake")) is Bank


def test_what_is_added_is_found_and_too_much_is_said(store):
    tuned(store)
    new = clustered("new", 300, 7)
    add(store, new, "fake", "flux")
    files, snapshot = bank_files(store), store.snapshot()
    rows = snapshot.find([image.content_id for image in new])
    in_bank = {row_id: i for i, row_id, _, _ in rows} | {}
    known = set(np.concatenate([s.row_ids for s in snapshot.shards("fake", "bank")]).tolist())
    bank = Banks(snapshot).bank("fake")
    for row_id in [row_id for row_id in in_bank if row_id in known][:20]:
        asked = new[in_bank[row_id]].vectors["proj"]
        assert bank.search(asked[None, :], 5).row_ids[0, 0] == row_id
    assert bank_files(store) == files
    facts = tune.describe(snapshot)
    assert 0.03 < facts["banks"]["fake"]["compared"] < 0.1 and not facts["stale"]
    add(store, clustered("more", 1500, 8), "fake", "flux")
    assert tune.describe(store.snapshot())["stale"]


def test_what_is_removed_is_not_found(store):
    tuned(store)
    row_ids = Banks(store.snapshot()).bank("fake").search(queries(1), 20).row_ids[0]
    with store.writer() as writer:
        writer.remove(row_ids.tolist(), reason="asked", detail={})
    left = Banks(store.snapshot()).bank("fake").search(queries(1), 20).row_ids[0]
    assert not np.isin(left, row_ids).any() and len(left) == 20


def test_a_purge_leaves_no_codes_of_what_was_erased(store):
    tuned(store)
    before = bank_files(store)
    row_ids = Banks(store.snapshot()).bank("fake").search(queries(1), 20).row_ids[0]
    with store.writer() as writer:
        writer.remove(row_ids.tolist(), reason="asked", detail={})
        writer.compact(purge=True)
    assert [name for name in bank_files(store) if name.startswith("fake")] == []
    assert [name for name in bank_files(store) if name.startswith("real")] == before[1:]
    found = Banks(store.snapshot()).bank("fake").search(queries(), 10)
    exact = Banks(store.snapshot(), exact=True).bank("fake").search(queries(), 10)
    np.testing.assert_array_equal(found.row_ids, exact.row_ids)


def test_files_go_once_no_generation_needs_them(store):
    tuned(store)
    tune.commit_tuning(store, None)
    assert len(bank_files(store)) == 2
    with store.writer() as writer:
        writer.rollback(writer.snapshot.manifest.parent)
    assert Banks(store.snapshot()).tuned is not None
    tune.commit_tuning(store, None)
    (store.folder / BANKS / f"real-{'0' * 16}.{'0' * 12}.faiss").write_bytes(b"foreign")
    for i in range(10):
        add(store, clustered(f"one{i}", 1, i), "real")
    assert bank_files(store) == []


def test_a_damaged_file_costs_time_alone(store):
    tuned(store)
    for name in bank_files(store):
        path = store.folder / BANKS / name
        path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    assert measured(store, "fake") == pytest.approx(
        store.snapshot().manifest.tuned.banks["fake"].recall["200"], abs=0.03
    )


def test_calibrations_follow(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "WORTH", 1e9)
    monkeypatch.setattr(tune, "SMALL_ROWS", 500)
    store = new_store(tmp_path / "index")
    add(store, clustered("real", 700, 2), "real", "camera")
    add(store, clustered("fake", 700, 3), "fake", "flux")
    commit_calibration(store, fit_calibration(store.snapshot(), Question("nearest")))
    scorers = set()
    for change in (lambda: tuned(store), lambda: tune.commit_tuning(store, None)):
        change()
        methods = Methods(store.snapshot())
        question = methods.checked(Question("nearest"))
        found = methods.calibration(question)
        assert found is not None and found.scorer == methods.scorer(question)
        scorers.add(found.scorer)
    assert len(scorers) == 2


def test_it_holds_for_one_projection_alone(store):
    manifest = tuned(store)
    data = json.loads(json.dumps(manifest.to_json()))
    data["tuned"]["projection"] = "0" * 12
    other = Manifest.from_json(data)
    snapshot = type(store.snapshot())(store.folder, other)
    assert Banks(snapshot).tuned is None and type(Banks(snapshot).bank("real")) is Bank
    assert not tune.describe(snapshot)["in_use"]


def test_verify_compares_exact_search_and_says_so(store):
    tuned(store)
    found = verify(store.snapshot())
    assert found.problems == ()
    assert len(found.left_out) == 1 and "only exact search was compared" in found.left_out[0]


def test_manifests(store):
    path = manifest_path(store.folder, store.snapshot().manifest.generation)
    data = json.loads(path.read_text())
    del data["tuned"]
    assert Manifest.from_json(data).tuned is None
    manifest = tuned(store)
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    for wrong in ({"projection": "../x"}, {"banks": {}}, {"kind": "hnsw", "banks": {"real": {}, "fake": {}}}):
        data = json.loads(json.dumps(manifest.to_json()))
        data["tuned"] |= wrong
        with pytest.raises((ValueError, KeyError, TypeError)):
            Manifest.from_json(data)


@pytest.fixture
def contents_of():
    def read(folder):
        return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}

    return read
