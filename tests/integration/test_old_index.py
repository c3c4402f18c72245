"""Indexes of each format, written once and kept: every later rd must read them and give the same answers."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.store.originals import stored_thumbnail
from retrieval_detect.store.schema import rows_schema
from retrieval_detect.store.sharing import export_index, import_index
from retrieval_detect.store.store import Store
from retrieval_detect.store.verify import findings
from tests.factories import add, names, new_store, png
from tests.formats import as_format_1

DATA = Path(__file__).parents[1] / "data"


def copied(version, tmp_path):
    """A copy: derived files are written beside the store, and the original must stay as it is."""
    return Path(shutil.copytree(DATA / f"index-v{version}", tmp_path / f"index-v{version}"))


@pytest.fixture(params=[1, 2])
def version(request):
    return request.param


@pytest.fixture
def old_index(version, tmp_path):
    return copied(version, tmp_path)


def test_it_is_whole(old_index, version):
    snapshot = Store(old_index).snapshot()
    assert snapshot.manifest.version == version
    assert list(findings(snapshot)) == []
    assert (snapshot.manifest.generation, snapshot.manifest.live_rows("fake")) == (3, 33)


def test_it_answers_as_it_did(old_index, version):
    verdict = Detector.load(old_index, encoder=TinyEncoder()).query(png(999, fake=True))
    answer = verdict.to_dict()
    expected = json.loads((DATA / f"index-v{version}.verdict.json").read_text())
    assert answer["provenance"]["claims"] == []  # it was not looked for then
    for told in (answer, expected):
        told.pop("provenance")
        told.pop("elapsed_s")
        told.pop("engine")
    assert answer["score"] == pytest.approx(expected.pop("score"), abs=1e-5)
    answer.pop("score")
    for side, similarity in answer.pop("nearest").items():
        assert similarity == pytest.approx(expected["nearest"][side], abs=1e-5)
    expected.pop("nearest")
    assert [e["row_id"] for e in answer.pop("evidence")] == [e["row_id"] for e in expected.pop("evidence")]
    assert [a["generator"] for a in answer.pop("attribution")] == [
        a["generator"] for a in expected.pop("attribution")
    ]
    # It has no calibration: what was then the name of the nearer bank is no verdict any more.
    assert (answer.pop("verdict"), answer.pop("reason")) == ("unknown", "uncalibrated")
    assert expected.pop("verdict") == "real-like"
    assert (answer.pop("schema"), expected.pop("schema"), answer.pop("photographs")) == (2, 1, "new")
    (said,) = set(answer["warnings"]) - set(expected["warnings"])
    assert said.startswith("no rate of false alarms is known: 7 photographs and 5 fakes are set aside")
    answer["warnings"] = [warning for warning in answer["warnings"] if warning != said]
    later = set(answer) - set(expected)
    assert all(answer.pop(name) is None for name in later)  # what later versions say, this index cannot
    assert answer == expected


def test_it_can_be_taught(old_index):
    with Store(old_index).writer() as writer:
        manifest = writer.remove([0], reason="", detail={})
    assert (manifest.generation, manifest.version) == (4, 2)
    assert list(findings(Store(old_index).snapshot())) == []


def test_the_kept_pictures_are_there(tmp_path):
    snapshot = Store(copied(2, tmp_path)).snapshot()
    rows = snapshot.scan(["content_id", "label"]).to_pylist()
    kept = [stored_thumbnail(snapshot, row["content_id"]) for row in rows if row["label"] == "fake"]
    assert len(kept) == 33 and all(picture[8:12] == b"WEBP" for picture in kept)


def test_rows_and_pictures_of_either_format_are_the_same(tmp_path):
    """Of more rows than a row group of format 1 has."""
    store = new_store(tmp_path / "idx")
    images = [replace(i, thumbnail=i.content_id) if n % 3 else i for n, i in enumerate(names("a", 5500))]
    add(store, images, "fake", "g")
    wanted = [5499, 0, 4096, 4095, 17, 17]
    seen = []
    for _ in range(2):
        snapshot = store.snapshot()
        kept = [stored_thumbnail(snapshot, images[n].content_id) for n in wanted]
        assert kept == [images[n].thumbnail for n in wanted]
        columns = ["thumbnail", "uri", "generator", "added_at"]
        shard = max(snapshot.shards(), key=len)
        assert len(shard) > 4096
        taken = shard.take(np.array(wanted[1:]) % len(shard), columns)
        seen.append((snapshot.take(wanted, columns[1:]), taken.to_pylist(), taken.schema))
        if snapshot.manifest.version == 2:
            as_format_1(store)
    assert seen[0] == seen[1]


# ---------------------------------------------------------------- format 1, changed by a later rd


@pytest.fixture(params=["merged", "mixed"])
def old_store(request, tmp_path, monkeypatch):
    """An index of format 1 whose small shards are merged with what is added, or stay beside it."""
    if request.param == "mixed":
        monkeypatch.setattr("retrieval_detect.store.shards.SMALL_ROWS", 4)
    return Store(copied(1, tmp_path))


def forms(store):
    """Which forms of rows the generation in force has, and the version of its manifest."""
    manifest = store.snapshot().manifest
    suffixes = {suffix for shard in manifest.shards for suffix in shard.files if suffix.startswith("rows.")}
    return suffixes, manifest.version


def rows_of(store):
    """All that is known of each live row, by its id."""
    snapshot = store.snapshot()
    ids = sorted(snapshot.scan(["row_id"])["row_id"].to_pylist())
    return snapshot.take(ids, rows_schema(snapshot.manifest.layers).names)


def answers(store):
    """Verdicts in full, to the last bit, but for what names the generation and the time."""
    detector = Detector.load(store.folder, encoder=TinyEncoder())
    told = [detector.query(png(seed, fake=seed % 2 == 0)).to_dict() for seed in range(900, 906)]
    for answer in told:
        answer.pop("elapsed_s")
        answer["index"].pop("generation")
        answer["index"].pop("name")
    return told


def removed(store, ids):
    with store.writer() as writer:
        writer.remove(ids, reason="", detail={})


def test_what_is_added_and_removed_again_leaves_the_answers_as_they_were(old_store):
    before, rows = answers(old_store), rows_of(old_store)
    assert forms(old_store) == ({"rows.parquet"}, 1)
    add(old_store, names("new", 9), "fake", "grid")
    mixed = {"rows.parquet", "rows.arrow"}
    assert forms(old_store)[1] == 2 and "rows.arrow" in forms(old_store)[0] <= mixed
    assert answers(old_store) != before
    removed(old_store, [row["row_id"] for row in rows_of(old_store)[len(rows) :]])
    assert answers(old_store) == before and rows_of(old_store) == rows
    with old_store.writer() as writer:
        writer.compact()
    assert answers(old_store) == before and rows_of(old_store) == rows
    assert list(findings(old_store.snapshot())) == []


def test_it_can_be_gone_back_to(old_store):
    before, rows = answers(old_store), rows_of(old_store)
    add(old_store, names("new", 9), "real", "camera")
    with old_store.writer() as writer:
        writer.rollback(3)
    assert forms(old_store) == ({"rows.parquet"}, 2)
    assert answers(old_store) == before and rows_of(old_store) == rows


def test_a_purge_writes_what_it_leaves_as_format_2(old_store):
    before, rows = answers(old_store), rows_of(old_store)
    with old_store.writer() as writer:
        writer.compact(purge=True)
    assert answers(old_store) == before and rows_of(old_store) == rows
    assert list(findings(old_store.snapshot())) == []
    assert "rows.arrow" in forms(old_store)[0]
    records = old_store.snapshot().manifest.shards
    there = {path.name for path in (old_store.folder / "shards").glob("*.rows.*")}
    assert there == {f"{r.id}.{suffix}" for r in records for suffix in r.files if suffix.startswith("rows.")}


@pytest.mark.parametrize("added", [False, True])
def test_it_is_handed_on(old_store, tmp_path, added):
    if added:
        add(old_store, names("new", 9), "fake", "other")
    before = answers(old_store)
    export_index(old_store.snapshot(), tmp_path / "file.tar", keep=("uri", "contributor"))
    with tarfile.open(tmp_path / "file.tar") as file:
        assert json.load(file.extractfile("export.json"))["manifest"]["version"] == 1
    import_index(tmp_path / "file.tar", tmp_path / "taken", check=lambda _: None)
    taken = Store(tmp_path / "taken")
    assert forms(taken) == ({"rows.arrow"}, 2)
    assert answers(taken) == before and rows_of(taken) == rows_of(old_store)
