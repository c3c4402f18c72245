"""A reference's file is opened in one way, whoever asks: loose, in an archive, in a table, changed, gone."""

from __future__ import annotations

import io
import tarfile
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retrieval_detect import Detector
from retrieval_detect.evaluate.material import look_through, of_index
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.decode import decode
from retrieval_detect.images.sources import scan
from retrieval_detect.images.stored import stored_items
from retrieval_detect.report.html import strings as t
from retrieval_detect.report.html.pictures import Pictures
from retrieval_detect.report.recheck import case_entry, recheck
from retrieval_detect.review.whole import verify
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.verdicts import Evidence, Question
from retrieval_detect.web.thumbnails import thumbnail
from tests.building import build
from tests.factories import png

CASES = ("loose", "tarred", "tabled", "changed", "gone", "gone-kept")
"""Sources of one photograph each; the index keeps a picture of the last."""
WHOLE = ("loose", "tarred", "tabled")


def write_tar(path, *contents):
    with tarfile.open(path, "w") as archive:
        for data in contents:
            member = tarfile.TarInfo("a/one.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def stored(pictures, run_rd):
    """An index with a photograph of each case, whose files then change or go."""
    assert build(run_rd).exit_code == 0
    loose = ["loose", "changed", "gone", "gone-kept"]
    for seed, name in enumerate(loose, start=300):
        (pictures / f"{name}.png").write_bytes(png(seed))
    write_tar(pictures / "tarred.tar", png(310))
    pq.write_table(pa.table({"image": [png(311)]}), pictures / "tabled.parquet")
    for name in CASES:
        suffix = {"tarred": "tar", "tabled": "parquet"}.get(name, "png")
        kept = ["--thumbnails"] if name == "gone-kept" else []
        added = run_rd("bank", "add", f"{name}.{suffix}", "--label", "real", "--source", name, *kept)
        assert added.exit_code == 0, added.stderr
    (pictures / "changed.png").write_bytes(png(399))
    (pictures / "gone.png").unlink()
    (pictures / "gone-kept.png").unlink()
    return Snapshot.open(pictures / "index" / "default")


def rows_of(snapshot):
    columns = ["row_id", "uri", "content_id", "source", "generator"]
    return {row["source"]: row for row in snapshot.scan(columns).to_pylist() if row["source"] in CASES}


def test_the_page_shows_it(stored):
    shown = {}
    for name, row in rows_of(stored).items():
        evidence = Evidence(
            1, row["row_id"], "real", 1.0, "", name, row["uri"], row["content_id"].hex(), "2026-01-01"
        )
        shown[name] = Pictures(stored, show=True, blur=False).reference(evidence)
    assert {name: picture.note for name, picture in shown.items() if not picture.data} == {
        "changed": t.CHANGED,
        "gone": t.GONE,
    }
    assert len(shown) == len(CASES)


def test_the_service_shows_it(stored):
    decoders = SimpleNamespace(decode=decode)
    shown = {name: thumbnail(stored, row["row_id"], decoders) for name, row in rows_of(stored).items()}
    assert {name for name, picture in shown.items() if picture} == {*WHOLE, "gone-kept"}
    assert Image.open(io.BytesIO(shown["tarred"])).size == (64, 64)


def test_it_is_embedded_again(stored):
    found = verify(stored, sample=1000)
    assert (found.problems, found.sampled - found.compared) == ((), 3)


def test_it_is_looked_at(stored):
    material = look_through(of_index(stored))
    read = {name for name, look in zip(material.names, material.looks, strict=True) if look}
    assert read & {*CASES} == {*WHOLE}
    assert np.count_nonzero(material.read) == len(material) - 3


@pytest.mark.parametrize("name", ["loose.png", "tarred.tar", "tabled.parquet"])
def test_it_is_judged_again(stored, pictures, name):
    """Of a case: what was judged, wherever it lay."""
    (item,) = scan([pictures / name])
    detector = Detector.load(stored.folder)
    entry = case_entry(detector, detector.query(item), Question()) | {"number": 1}
    (finding,) = recheck([entry])
    assert finding.stands is True and finding.notes == ()
    (pictures / name).write_bytes(b"")
    (finding,) = recheck([entry])
    assert finding.stands is None and len(finding.notes) == 1
    (pictures / name).unlink()
    (finding,) = recheck([entry])
    assert finding.stands is None and "is not there any more" in finding.notes[0]


def test_of_two_members_of_one_name_it_is_the_one_that_was_stored(tmp_path):
    path = tmp_path / "two.tar"
    write_tar(path, png(1), png(2))
    wanted = [(f"{path}::a/one.png", content_id(png(seed))) for seed in (2, 1)]
    assert [item.read() for item in stored_items(wanted)] == [png(2), png(1)]
