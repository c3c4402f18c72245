"""What is open stays readable, whatever writers sweep and wherever the process goes."""

from __future__ import annotations

import gc
import shutil
import weakref
from dataclasses import replace

import pytest

from retrieval_detect import Detector, Index
from retrieval_detect.ask.rescore import Rescoring
from retrieval_detect.errors import IndexStateError
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.review.whole import require_fitted, verify
from retrieval_detect.store.exchange import write_embeddings
from retrieval_detect.store.sharing import export_index, import_index
from retrieval_detect.store.store import Store
from retrieval_detect.store.sweep import KEPT_GENERATIONS
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.heads import commit_head, training_set
from retrieval_detect.teach.projections import commit_projection, fitted_projection, use_projection
from retrieval_detect.types import Failure
from retrieval_detect.verdicts import Question
from tests.factories import add, embedded, new_store
from tests.kinds import kind

QUESTIONS = [{}, {"projection": "identity"}, {"method": "lr"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two labels, with a projection in force, a head, and calibrations of it and of the default vote."""
    store = new_store(tmp_path_factory.mktemp("held") / "idx")
    for label, axes in (("real", (1, 2)), ("fake", (3, 4))):
        for axis in axes:
            add(store, kind(f"{label}-{axis}", 120, axis=axis), label, f"name-{axis}")
    commit_projection(store, "white", fitted_projection(store.snapshot(), "whiten", ("proj",)))
    commit_head(store, "lr", LinearHead().fit(training_set(store.snapshot(), LinearHead())))
    for asked in ({}, {"method": "lr"}):
        commit_calibration(store, fit_calibration(store.snapshot(), Question(**asked)))
    return store.folder


@pytest.fixture
def store(made, tmp_path):
    return Store(shutil.copytree(made, tmp_path / "idx"))


def more_generations(store):
    """So many that nothing of those before is left: neither what was fitted, nor files of removed rows."""
    use_projection(store, "identity")
    with store.writer() as writer:
        writer.remove([0, 1, 2], reason="", detail={})
        writer.compact()
        for record in writer.snapshot.manifest.fitted:
            writer.forget(record.kind, record.name)
        for _ in range(KEPT_GENERATIONS):
            writer.fit([])


def answers(detector):
    asked = [detector.judge(embedded("new"), **question) for question in QUESTIONS]
    return [replace(verdict, elapsed_s=0) for verdict in asked]


def test_a_loaded_detector_outlives_its_generation(store):
    before = answers(Detector.load(store.folder))
    detector = Detector.load(store.folder)
    more_generations(store)
    assert answers(detector) == before
    assert before[0].calibration and before[2].calibration


def test_an_index_that_was_deleted_is_answered_from_all_the_same(store):
    before, detector = answers(Detector.load(store.folder)), Detector.load(store.folder)
    shutil.rmtree(store.folder)
    assert answers(detector) == before
    assert not store.folder.exists()


def test_paths_that_were_given_from_another_folder(store, tmp_path, monkeypatch):
    before = answers(Detector.load(store.folder))
    shutil.rmtree(store.folder / "banks")
    monkeypatch.chdir(tmp_path)
    detector, index = Detector.load("idx"), Index.open("idx")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert answers(detector) == before
    assert index.remove([0]).generation == index.snapshot().manifest.generation
    index.note([Failure("a.jpg", "unreadable", "it is gone")])
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (store.folder / "failures.jsonl").exists()
    assert list((store.folder / "banks").glob("*.faiss"))


def test_what_was_erased_does_not_come_back_as_a_derived_file(store):
    """Of rows that a purge erased, a detector that was loaded before keeps nothing on disk."""
    detector = Detector.load(store.folder)
    with store.writer() as writer:
        writer.remove([0, 1, 2], reason="", detail={})
        writer.compact(purge=True)
    answers(detector)
    kept = {shard.record.id for shard in store.snapshot().shards()}
    assert {path.name.split(".")[0] for path in (store.folder / "banks").iterdir()} <= kept


def test_a_generation_that_nobody_asks_any_more_lets_go_of_its_files_at_once(store):
    """A server takes up one after another: its open files and memory must not wait for the collector."""
    gc.disable()
    try:
        detector = Detector.load(store.folder)
        answers(detector)
        seen = [weakref.ref(shard) for shard in detector.snapshot.shards()]
        del detector
        assert [shard() for shard in seen] == [None] * len(seen)
    finally:
        gc.enable()


def test_an_export_of_a_generation_that_is_swept_meanwhile(store, tmp_path):
    snapshot = store.snapshot()
    more_generations(store)
    export_index(snapshot, tmp_path / "file.tar")
    manifest = import_index(tmp_path / "file.tar", tmp_path / "again", check=require_fitted)
    assert len(manifest.fitted) == len(snapshot.manifest.fitted) > 2


def test_stored_embeddings_compared_with_a_generation_that_is_swept_meanwhile(store, tmp_path):
    rows = [embedded(f"q{i}") for i in range(5)]
    spec = store.snapshot().manifest.encoder
    write_embeddings(tmp_path / "rows.parquet", rows, spec=spec, layers=["proj"])
    then = store.snapshot().manifest.generation
    with store.writer() as writer:
        writer.fit([])

    def rescored(meanwhile):
        detector = Detector.load(store.folder)
        rescoring = Rescoring(detector, Question(), tmp_path / "rows.parquet", since=then)
        meanwhile()
        return [table.to_pylist() for piece in rescoring.pieces() for table, _ in rescoring.tables(piece)]

    assert rescored(lambda: None) == rescored(lambda: more_generations(store))


def test_a_generation_that_is_swept_while_it_is_verified_is_not_called_damaged(store):
    snapshot = store.snapshot()
    assert verify(snapshot).problems == ()
    more_generations(store)
    with pytest.raises(IndexStateError, match="has gone while it was verified"):
        verify(snapshot)
