"""``Index``: plans, additions and what interrupts them, removals, and the arrays that methods train on."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

from retrieval_detect import Detector, Index
from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import (
    EncoderMismatch,
    IndexLocked,
    IndexNotFound,
    LabelConflict,
    UsageError,
    VectorError,
)
from retrieval_detect.images.sources import from_bytes, scan
from retrieval_detect.store.failures import read_failures
from retrieval_detect.teach import build
from retrieval_detect.types import ImageItem
from retrieval_detect.vectors import normalise, unit
from tests.factories import picture, png, write_pictures


class Counting(TinyEncoder):
    """Counts the images it is given after its creation; may be told to break off."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.given, self.stop_after = 0, stop_after

    def encode(self, batch, layers):
        self.given += len(batch)
        if self.stop_after is not None and self.given > self.stop_after:
            raise KeyboardInterrupt
        return super().encode(batch, layers)


def new_index(folder, layers=("proj",)):
    return Index.create(folder / "idx", encoder=TinyEncoder(), layers=layers)


def items(seeds, *, fake=False):
    return [from_bytes(png(seed, fake=fake), f"{'fake' if fake else 'real'}-{seed}.png") for seed in seeds]


def add(index, seeds, label, *, encoder=None, **facts):
    planned = index.plan_add(items(seeds, fake=label == "fake"), label=label, **facts)
    return index.apply(planned, encoder=encoder or TinyEncoder(), batch_size=4, workers=1)


# ---------------------------------------------------------------- plans


def test_a_plan_says_what_would_be_done_and_does_nothing(tmp_path):
    index = new_index(tmp_path)
    add(index, range(3), "real", source="camera")
    before = {path: path.stat().st_mtime_ns for path in index.folder.rglob("*")}
    broken = ImageItem("gone.png", (tmp_path / "gone.png").read_bytes)
    planned = index.plan_add([*items(range(1, 6)), *items([4]), broken], label="real", source="camera")
    assert [p.item.uri for p in planned.new] == ["real-3.png", "real-4.png", "real-5.png"]
    assert (planned.known, planned.repeated, len(planned.failures), planned.n_read) == (2, 1, 1, 7)
    assert planned.count("real") == 3 and planned.count("fake") == 0
    assert planned.summary() == "7 images, 3 new, 2 already known, 1 given twice, 1 unreadable"
    assert planned.failures[0].uri == "gone.png" and "No such file" in planned.failures[0].message
    assert {path: path.stat().st_mtime_ns for path in index.folder.rglob("*")} == before


def test_labels_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="no label 'maybe'"):
        new_index(tmp_path).plan_add(items([1]), label="maybe")


def test_conflicts_are_refused_before_anything_is_embedded(tmp_path):
    index = new_index(tmp_path)
    add(index, [1, 2], "real")
    with pytest.raises(LabelConflict, match="2 images have both labels") as caught:
        index.plan_add(items([1, 2, 3]), label="fake")
    assert "real-1.png (fake) and a stored reference (real)" in caught.value.message


def test_a_plan_that_another_writer_has_overtaken(tmp_path):
    index = new_index(tmp_path)
    planned = index.plan_add(items(range(4)), label="real", source="camera")
    add(index, range(2), "real", source="phone")
    encoder = Counting()
    report = index.apply(planned, encoder=encoder)
    assert (report.added, encoder.given) == (2, 2)
    assert report.manifest.counts("real") == {"camera": 2, "phone": 2}


def purge(index, row_ids):
    index.remove(row_ids)
    with index.store.writer() as writer:
        writer.compact(purge=True)


def test_a_plan_made_before_a_purge_does_not_bring_back_what_was_erased(tmp_path):
    index = new_index(tmp_path)
    overtaken = index.plan_add(items(range(3)), label="real", source="camera")
    add(index, [0, 1], "real", source="camera")
    purge(index, [0])
    report = index.apply(overtaken, encoder=TinyEncoder())
    assert (report.added, report.purged) == (1, 1)
    uris = index.snapshot().scan(["uri"])["uri"].to_pylist()
    assert sorted(uris) == ["real-1.png", "real-2.png"]
    assert index.plan_add(items([0]), label="real").purged == 1


def test_a_plan_to_add_views_does_not_bring_back_what_was_removed(tmp_path):
    index = new_index(tmp_path)
    add(index, range(3), "real", source="camera")
    overtaken = index.plan_add(items(range(3)), label="real", views=("jpeg",))
    index.remove([1])
    report = index.apply(overtaken, encoder=TinyEncoder())
    assert (report.added, report.views) == (0, 2)
    uris = index.snapshot().scan(["uri"])["uri"].to_pylist()
    assert sorted(set(uris)) == ["real-0.png", "real-2.png"]


def test_work_kept_by_an_interruption_is_erased_by_a_purge(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "STAGE_ROWS", 2)
    index = new_index(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        add(index, range(8), "real", encoder=Counting(stop_after=5), source="camera")
    assert (index.folder / "staging").exists()
    add(index, [0], "real", source="camera")
    purge(index, [0])
    assert not (index.folder / "staging").exists()
    report = add(index, range(8), "real", source="camera")
    assert (report.added, report.embedded, report.purged) == (7, 7, 1)


def test_a_plan_that_has_come_to_contradict_the_store(tmp_path):
    index = new_index(tmp_path)
    planned = index.plan_add(items([1]), label="fake")
    add(index, [1], "real")
    with pytest.raises(LabelConflict, match="1 image has both labels"):
        index.apply(planned, encoder=TinyEncoder())
    assert index.snapshot().manifest.live_rows("fake") == 0


# ---------------------------------------------------------------- additions


def test_an_addition(tmp_path):
    index = new_index(tmp_path, layers=("proj", "block01"))
    report = add(index, range(3), "fake", generator="sdxl", licence="CC0")
    assert (report.added, report.embedded, report.failures) == (3, 3, ())
    rows = index.snapshot().scan(["uri", "generator", "licence", "split", "width"]).to_pylist()
    assert rows[1] == {
        "uri": "fake-1.png",
        "generator": "sdxl",
        "licence": "CC0",
        "split": "bank",
        "width": 64,
    }
    assert report.manifest.layers == ("proj", "block01")


def test_progress_counts_every_image_once(tmp_path):
    index = new_index(tmp_path)
    seen = []
    index.apply(
        index.plan_add(items(range(9)), label="real"),
        encoder=TinyEncoder(),
        progress=seen.append,
        batch_size=4,
    )
    assert sum(seen) == 9


def test_what_was_embedded_before_an_interruption_is_not_embedded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "STAGE_ROWS", 2)
    index = new_index(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        add(index, range(20), "real", encoder=Counting(stop_after=12))
    assert index.snapshot().manifest.generation == 0
    encoder = Counting()
    assert add(index, range(20), "real", encoder=encoder).added == 20
    assert encoder.given == 8
    assert not (index.folder / "staging").exists()


def test_facts_are_those_of_the_second_attempt(tmp_path):
    """Staging keeps vectors, not what was said about the images."""
    index = new_index(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        add(index, range(6), "fake", generator="misspelt", encoder=Counting(stop_after=4))
    encoder = Counting()
    assert add(index, range(6), "fake", generator="sdxl", encoder=encoder).manifest.counts("fake") == {
        "sdxl": 6
    }
    assert encoder.given == 2


def test_bad_images_are_failures_and_are_listed(tmp_path):
    index = new_index(tmp_path)
    given = [*items([1]), from_bytes(b"no picture", "text.png"), from_bytes(png(2)[:90], "torn.png")]
    report = index.apply(index.plan_add(given, label="real"), encoder=TinyEncoder())
    assert report.added == 1 and [f.uri for f in report.failures] == ["text.png", "torn.png"]
    assert [f.reason for f in read_failures(index.folder)] == ["not-an-image", "truncated"]
    assert report.manifest.operation.failed == 2


def test_a_file_that_changes_while_it_is_read(tmp_path):
    index = new_index(tmp_path)
    versions = iter([png(1), png(2)])
    report = index.apply(
        index.plan_add([ImageItem("live.png", lambda: next(versions))], label="real"), encoder=TinyEncoder()
    )
    assert report.added == 0 and report.failures[0].reason == "changed"


def test_vectors_of_any_length_are_stored_at_norm_one(tmp_path):
    class Loud(TinyEncoder):
        def encode(self, batch, layers):
            scales = np.array([1e-30, 1e-20, 1.0, 1e20, 1e30], np.float32)
            scale = scales[np.arange(len(batch)) % 5][:, None]
            return {layer: rows * scale for layer, rows in super().encode(batch, layers).items()}

    index = new_index(tmp_path)
    index.apply(index.plan_add(items(range(5)), label="real"), encoder=Loud())
    arrays = index.arrays()
    assert np.abs(np.linalg.norm(arrays.X, axis=1) - 1).max() < 1e-6
    quiet = {
        image.item.uri: image.vectors["proj"]
        for image in embed(items(range(5)), TinyEncoder(), layers=["proj"])
    }
    cosines = [arrays.X[i] @ unit(quiet[f"real-{i}.png"][None])[0] for i in range(5)]
    assert np.array(cosines) == pytest.approx(1, abs=1e-3)


def test_references_and_queries_are_rounded_alike():
    vectors = np.random.default_rng(0).normal(size=(5000, 96)).astype(np.float32) * 7
    stored, norms = normalise(vectors)
    assert np.array_equal(stored, unit(vectors).astype(np.float16))
    assert norms == pytest.approx(np.linalg.norm(vectors, axis=1), rel=1e-6)
    with pytest.raises(VectorError):
        unit(np.zeros((1, 3), np.float32))


def test_one_writer(tmp_path):
    index = new_index(tmp_path)
    planned = index.plan_add(items([1]), label="real")
    with index.store.writer():
        with pytest.raises(IndexLocked):
            index.apply(planned, encoder=TinyEncoder())
        assert Index.open(index.folder).snapshot().manifest.generation == 0
    assert index.apply(planned, encoder=TinyEncoder()).added == 1


def test_another_encoder(tmp_path):
    class Other(TinyEncoder):
        @property
        def spec(self):
            return replace(super().spec, weights_sha256="0" * 64)

    index = new_index(tmp_path)
    with pytest.raises(EncoderMismatch):
        add(index, [1], "real", encoder=Other())
    with pytest.raises(UsageError, match="tiny has no layer block12"):
        Index.create(tmp_path / "second", encoder=TinyEncoder(), layers=("block12",))
    assert not (tmp_path / "second").exists()


def test_opening_what_is_not_there(tmp_path):
    with pytest.raises(IndexNotFound):
        Index.open(tmp_path / "nowhere")
    with pytest.raises(IndexNotFound):
        Index.open(__file__)


# ---------------------------------------------------------------- removing, and what is left


def test_removing(tmp_path):
    index = new_index(tmp_path)
    add(index, range(4), "real")
    manifest = index.remove([1, 2], reason="wrong")
    assert manifest.live_rows("real") == 2 and index.arrays().row_ids.tolist() == [0, 3]
    with pytest.raises(UsageError, match="nothing to remove"):
        index.remove([])
    with pytest.raises(UsageError, match="there is no row 9"):
        index.remove([9])


def test_compacting_what_is_compact_makes_no_generation(tmp_path):
    index = new_index(tmp_path)
    add(index, range(4), "real")
    with index.store.writer() as writer:
        assert writer.compact().generation == 1
    index.remove([0])
    with index.store.writer() as writer:
        assert (writer.compact().generation, writer.compact().generation) == (3, 3)


def test_arrays_give_back_what_the_network_gave(tmp_path):
    index = new_index(tmp_path, layers=("proj", "pre"))
    add(index, range(4), "real", source="camera")
    add(index, range(10, 13), "fake", generator="sdxl")
    arrays = index.arrays(layer="pre")
    assert arrays.X.dtype == np.float32 and arrays.X.shape == (7, 48)
    given = {
        image.item.uri: image.vectors["pre"]
        for image in embed(
            [*items(range(4)), *items(range(10, 13), fake=True)], TinyEncoder(), layers=["pre"]
        )
    }
    uris = [row["uri"] for row in index.snapshot().take(arrays.row_ids.tolist(), ["uri"])]
    for uri, x, norm, y, name in zip(uris, arrays.X, arrays.norms, arrays.y, arrays.names, strict=True):
        assert x * norm == pytest.approx(given[uri], abs=float(2e-3 * norm))
        assert y == uri.startswith("fake") and name == ("sdxl" if y else "camera")
    assert len(set(arrays.groups.tolist())) == 7
    with pytest.raises(UsageError, match="does not store layer 'block01'"):
        index.arrays(layer="block01")


def test_arrays_of_an_empty_index(tmp_path):
    arrays = new_index(tmp_path).arrays()
    assert arrays.X.shape == (0, 32) and len(arrays.names) == 0
    assert repr(arrays) == "<0 × 32: 0 real, 0 fake, 0 names, 0 groups>"


def test_splits_are_apart_and_groups_whole(tmp_path):
    index = new_index(tmp_path)
    add(index, range(60), "real", source="camera")
    copies = tmp_path / "copies"
    copies.mkdir()
    for seed in range(60):
        picture(seed).save(copies / f"{seed}.jpg", quality=90)
    index.apply(index.plan_add(scan([copies]), label="real", source="elsewhere"), encoder=TinyEncoder())
    bank, calib = index.arrays(), index.arrays(split="calib")
    assert len(bank.y) + len(calib.y) == 120 and len(calib.y) > 0
    whole = index.arrays(split=None)
    assert repr(whole).startswith("<120 × 32: 120 real, 0 fake, 2 names, ")
    for here, there in GroupKFold(5).split(whole.X, whole.y, whole.groups):
        assert not set(whole.groups[here]) & set(whole.groups[there])
    assert set(whole.names[whole.y == 0]) == {"camera", "elsewhere"}
    assert not set(bank.groups.tolist()) & set(calib.groups.tolist())
    rows = index.snapshot().scan(["uri", "group"]).to_pylist()
    group_of = {row["uri"].rpartition("/")[2].removeprefix("real-").split(".")[0]: set() for row in rows}
    for row in rows:
        group_of[row["uri"].rpartition("/")[2].removeprefix("real-").split(".")[0]].add(row["group"])
    assert {len(groups) for groups in group_of.values()} == {1}


def test_adding_is_work_for_what_is_added(tmp_path):
    """Old shards and their derived files are not touched, but for merging small ones."""
    index = new_index(tmp_path)
    add(index, range(64), "real")
    old = {path.name for path in (index.folder / "shards").iterdir()}
    times = {path: path.stat().st_mtime_ns for path in (index.folder / "shards").iterdir()}
    add(index, range(100, 104), "real")
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    fresh = {path.name.split(".")[0] for path in (index.folder / "shards").iterdir() if path.name not in old}
    rows = {shard.id: shard.rows for shard in index.snapshot().manifest.shards}
    assert sum(rows[name] for name in fresh) == 4


def test_a_folder_named_like_the_index_is_not_taken_over(tmp_path):
    write_pictures(tmp_path / "idx", range(2))
    with pytest.raises(UsageError, match="exists and is not an index"):
        new_index(tmp_path)
    assert len(list((tmp_path / "idx").iterdir())) == 2
    shutil.rmtree(tmp_path / "idx")
    (tmp_path / "idx").mkdir()
    assert new_index(tmp_path).snapshot().manifest.generation == 0


# ---------------------------------------------------------------- in one call


@pytest.fixture
def two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "photos" / "camera", range(60))
    write_pictures(tmp_path / "photos" / "phone", range(100, 160))
    write_pictures(tmp_path / "generated" / "sdxl", range(200, 320), fake=True)
    (tmp_path / "photos" / "phone" / "broken.png").write_bytes(b"no image")
    return tmp_path


def test_an_index_is_built_from_two_folders(two_folders, caplog):
    with caplog.at_level(logging.WARNING):
        index = Index.build("mine", real="photos", fake=Path("generated"), encoder="tiny")
    assert "1 of 241 images could not be used: " in caplog.text and "broken.png" in caplog.text
    assert index.snapshot().manifest.counts("real") == {"camera": 60, "phone": 60}
    assert "120 real, 120 fake (sdxl), encoder tiny" in repr(index)
    verdict = Detector.load("mine").query(two_folders / "photos" / "camera" / "0001.png")
    assert verdict.calibration is not None and verdict.same_image
    assert all(Path(e.uri).is_absolute() for e in verdict.evidence)
    with pytest.raises(UsageError):
        Index.build("mine", real="photos", fake="generated", encoder="tiny")


def test_what_is_added_is_followed_as_on_the_command_line(two_folders):
    index = Index.build("mine", real="photos", fake="generated", encoder="tiny")
    write_pictures(two_folders / "new" / "flux", range(400, 430), fake=True)
    listed = sorted(str(path.relative_to(two_folders)) for path in (two_folders / "new" / "flux").iterdir())
    report = index.add(listed[:5], label="fake", generator="flux")
    assert repr(report) == "<generation 3: 5 added>" and {f.kind for f in report.fitted} >= {"calibration"}
    assert index.snapshot().stale() == []
    assert repr(index.add("new", label="fake")) == "<generation 4: 25 added>"
    assert index.snapshot().manifest.counts("fake") == {"flux": 30, "sdxl": 120}
    pixels = np.asarray(picture(900))
    assert index.add([pixels, None], label="real", source="array").added == 1
    with pytest.raises(UsageError, match="there is no label 'generated'"):
        index.add("new", label="generated")
    with pytest.raises(UsageError, match="a photograph has no generator"):
        index.add("new", label="real", generator="sdxl")
    with pytest.raises(EncoderMismatch):
        index.add([png(901)], label="real", encoder=Other())


class Other(TinyEncoder):
    def __init__(self):
        super().__init__()
        self._spec = replace(self._spec, weights_sha256="0" * 64)
