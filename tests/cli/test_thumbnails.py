"""Pictures that an index keeps: only where asked, shown where files are gone, erased by a purge."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrieval_detect.report.html import strings as t
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.originals import stored_thumbnail
from retrieval_detect.store.schema import THUMBNAIL
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.writer import Addition
from retrieval_detect.types import Facts
from tests.building import build
from tests.factories import names, new_store, write_pictures


@pytest.fixture
def kept(pictures, run_rd):
    """The index ``default``, with a picture of each reference."""
    assert build(run_rd, "--thumbnails", "--views", "jpeg").exit_code == 0
    return pictures / "index" / "default"


def content_ids(snapshot, **which):
    return snapshot.scan(["content_id"], **which)["content_id"].unique().to_pylist()


def pictures_of(folder):
    snapshot = Snapshot.open(folder)
    return [stored_thumbnail(snapshot, content_id) for content_id in content_ids(snapshot)]


def test_none_is_kept_unless_asked(index):
    assert pictures_of(index) == [None] * 23
    assert not any(THUMBNAIL in shard.names for shard in Snapshot.open(index).shards())


def test_each_is_small_and_bare(kept):
    found = pictures_of(kept)
    assert len(found) == 23
    for picture in found:
        image = Image.open(io.BytesIO(picture))
        assert (image.format, image.size) == ("WEBP", (64, 64)) and not image.getexif()
    rows = [shard.columns(["view", THUMBNAIL]).to_pylist() for shard in Snapshot.open(kept).shards()]
    assert all((row["view"] == "original") == bool(row[THUMBNAIL]) for part in rows for row in part)


def test_pictures_wait_for_the_commit_on_disk(tmp_path):
    """An addition with pictures takes no more memory the longer it is."""
    store = new_store(tmp_path / "idx")
    picture = np.random.default_rng(0).bytes(100_000)
    images = names("a", 200)
    pictures = {image.content_id: image.content_id + picture for image in images}
    before = pa.total_allocated_bytes()
    with store.writer() as writer:
        staging = writer.staging()
        for start in range(0, len(images), 20):
            part = images[start : start + 20]
            staging.add([replace(image, thumbnail=pictures[image.content_id]) for image in part])
        again = writer.staging()
        assert len(again) == 200 and pa.total_allocated_bytes() - before < 2_000_000
        rows = [NewRow(image.content_id, image.item.uri, Facts("fake", "g")) for image in images[::-1]]
        writer.add(Addition(rows), again)
    snapshot = store.snapshot()
    assert {image: stored_thumbnail(snapshot, image) for image in pictures} == pictures


def test_a_report_shows_them_once_the_files_are_gone(kept, run_rd, bare_folder):
    shutil.rmtree(bare_folder / "photos")
    shutil.rmtree(bare_folder / "generated")
    assert run_rd("query", "ask/0200.png", "--report", "out.html").exit_code == 0
    page = (bare_folder / "out.html").read_text()
    assert page.count('class="thumb" src="data:image/webp') == 10 and t.GONE not in page


def test_shards_with_and_without_are_merged(kept, run_rd, bare_folder):
    write_pictures(bare_folder / "more", range(300, 302))
    assert run_rd("bank", "add", "more", "--label", "real", "--source", "other").exit_code == 0
    found = pictures_of(kept)
    assert len(found) == 25 and sum(picture is None for picture in found) == 2
    assert run_rd("index", "verify").exit_code == 0


def test_a_purge_erases_them(kept, run_rd):
    snapshot = Snapshot.open(kept)
    gone = content_ids(snapshot, label="fake")[0]
    picture = stored_thumbnail(snapshot, gone)
    assert run_rd("bank", "remove", "--id", gone.hex(), "--yes").exit_code == 0
    assert stored_thumbnail(Snapshot.open(kept), gone) is None
    assert run_rd("bank", "compact", "--purge", "--yes").exit_code == 0
    assert not any(picture[20:60] in path.read_bytes() for path in kept.rglob("*") if path.is_file())
    assert sum(found is not None for found in pictures_of(kept)) == 22
