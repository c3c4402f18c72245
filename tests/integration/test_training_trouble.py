"""What no head can be trained on or called: clear errors, and nothing half-written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval_detect.errors import EncoderMismatch, UsageError, VectorError
from retrieval_detect.heads.layers import LayersHead
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.heads.prototype import PrototypeHead
from retrieval_detect.heads.quality import QualityHead
from retrieval_detect.heads.svm import SvmHead
from retrieval_detect.store.manifest import read_current
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.store import Store
from retrieval_detect.teach.heads import (
    commit_head,
    import_for,
    require_same_weights,
    scored_rows,
    training_set,
)
from retrieval_detect.teach.projections import fitted_projection
from tests.layered import WIDTHS, add, empty, image, images, layered

HEADS = [
    LinearHead(),
    LinearHead(optimizer="adamw"),
    SvmHead(),
    PrototypeHead(),
    LayersHead(epochs=2, width=8),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder.parent / "cache"))
        layered(folder, each=30)
    return folder


@pytest.fixture
def store(built, tmp_path):
    return Store(shutil.copytree(built, tmp_path / "index"))


@pytest.fixture(params=HEADS, ids=lambda head: f"{head.kind}-{head.cheap}")
def head(request):
    return replace(request.param)


def train(store, name, head):
    return commit_head(store, name, head.fit(training_set(store.snapshot(), head)))


# ---------------------------------------------------------------- quality


def table(tmp_path, text):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    return path


def test_scores_find_their_references_by_path_or_digest(store, tmp_path):
    rows = store.snapshot().scan(["row_id", "uri", "content_id"], split="bank").to_pylist()[:4]
    lines = [f"{rows[0]['uri']},1", f"{rows[1]['content_id'].hex()},2.5", "nowhere.png,9"]
    found, scores = scored_rows(
        store.snapshot(), QualityHead(), table(tmp_path, "\n".join(["image,score", *lines]))
    )
    assert found.row_ids.tolist() == [rows[0]["row_id"], rows[1]["row_id"]]
    assert scores.tolist() == [1.0, 2.5] and scores.dtype == np.float32


def test_scores_as_a_spreadsheet_saves_them(store, tmp_path):
    """With a byte order mark, which must not become part of the first column's name."""
    uri = store.snapshot().scan(["uri"], split="bank").to_pylist()[0]["uri"]
    path = table(tmp_path, "")
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(f"image,score\r\n{uri},2.5\r\n".encode(encoding))
        assert scored_rows(store.snapshot(), QualityHead(), path)[1].tolist() == [2.5]


def test_scores_of_rows_set_aside_are_not_used(store, tmp_path):
    rows = store.snapshot().scan(["uri"], split="calib").to_pylist()
    lines = "\n".join(["image,score", *(f"{row['uri']},1" for row in rows)])
    with pytest.raises(UsageError, match="may be trained on"):
        scored_rows(store.snapshot(), QualityHead(), table(tmp_path, lines))


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "image,score\n", "image,score\nx,good\n", "image,score\nx\n", "image,score\nx,nan\n"],
)
def test_what_is_no_table_of_scores(store, tmp_path, text):
    with pytest.raises(UsageError):
        scored_rows(store.snapshot(), QualityHead(), table(tmp_path, text))


# ---------------------------------------------------------------- what cannot be


def test_imported_weights_that_do_not_fit(store):
    head = LinearHead(optimizer="adamw")
    head.restore({"weight": np.ones(768, np.float32), "bias": np.zeros(1, np.float32)})
    with pytest.raises(UsageError, match="take 768 dimensions, layer proj of made-up has 24"):
        list(import_for(store.snapshot(), head))
    head = LinearHead(layer="block07", optimizer="adamw")
    head.restore({"weight": np.ones(768, np.float32), "bias": np.zeros(1, np.float32)})
    with pytest.raises(UsageError, match="does not store layer 'block07'"):
        list(import_for(store.snapshot(), head))


def test_imported_weights_for_another_encoder_are_warned_of(store):
    head = LinearHead(optimizer="adamw")
    head.restore({"weight": np.ones(WIDTHS["proj"], np.float32), "bias": np.zeros(1, np.float32)})
    (said,) = import_for(store.snapshot(), head)
    assert "mean nothing" in said


def test_a_text_tower_of_other_weights(store):
    with pytest.raises(EncoderMismatch, match="other weights"):
        require_same_weights(SimpleNamespace(weights_sha256="11"), store.snapshot())
    require_same_weights(SimpleNamespace(weights_sha256="00"), store.snapshot())


@pytest.mark.parametrize("name", ["density", "Upper", "a--b", "", "x" * 31, "../up"])
def test_a_name_that_cannot_be(store, name):
    before = store.snapshot().manifest
    head = LinearHead().fit(training_set(store.snapshot(), LinearHead()))
    with pytest.raises(UsageError, match="cannot name"):
        commit_head(store, name, head)
    assert store.snapshot().manifest == before


@pytest.mark.parametrize("only", ["real", "fake"])
def test_one_label_only(tmp_path, head, only):
    store = empty(tmp_path / "one")
    add(store, images("one", 14, fake=only == "fake"), only, "one")
    with pytest.raises(UsageError, match="to train on"):
        head.fit(training_set(store.snapshot(), head))


def test_all_vectors_equal(tmp_path, head):
    store = empty(tmp_path / "equal")
    same = image("same").vectors
    for label, kind in (("real", "camera"), ("fake", "sdxl")):
        add(store, [image(f"{kind}-{i}", vectors=same) for i in range(14)], label, kind)
    with pytest.raises(UsageError, match="equal"):
        head.fit(training_set(store.snapshot(), head))


def test_a_generator_of_one_image(store, head):
    add(store, images("lonely", 1, fake=True), "fake", "lonely")
    head.fit(training_set(store.snapshot(), head))
    rows = training_set(store.snapshot(), head)
    scores = head.decision_function({layer: rows.as_encoded(layer) for layer in head.layers})
    assert np.isfinite(scores).all()


def test_a_stored_nan(store, head):
    shard = store.snapshot().shards("fake", "bank")[0]
    for layer in WIDTHS:
        path = shard.path(f"{layer}.npy")
        vectors = np.load(path)
        vectors[0, 0] = np.nan
        np.save(path, vectors)
    snapshot = Snapshot(store.folder, read_current(store.folder))
    with pytest.raises(VectorError, match="not finite"):
        head.fit(training_set(snapshot, head))
    with pytest.raises(VectorError, match="not finite"):
        fitted_projection(snapshot, "lda", ("proj",))


def test_a_layer_that_is_not_stored(store):
    with pytest.raises(UsageError, match="does not store layer 'block07'"):
        training_set(store.snapshot(), LinearHead(layer="block07"))


def test_a_death_before_the_commit_leaves_the_old_generation(store, monkeypatch):
    before = store.snapshot().manifest
    with monkeypatch.context() as patch:
        patch.setattr("retrieval_detect.store.writer.commit", _dies)
        with pytest.raises(KeyboardInterrupt):
            train(store, "lr", LinearHead())
    assert store.snapshot().manifest == before
    train(store, "svm", SvmHead())
    assert {path.name.split("-")[0] for path in (store.folder / "heads").iterdir()} == {"svm"}


def _dies(*_):
    raise KeyboardInterrupt
