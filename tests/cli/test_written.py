"""What is written beside images, in files of their name and in columns, is kept with the references."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.images.captions import MOST_BYTES, written_beside
from retrieval_detect.images.sources import scan
from retrieval_detect.store.schema import ASIDE
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.verify import findings
from tests.building import TINY, build
from tests.factories import png

CAPTION, URL = "a cat on a mat", "https://example.org/1.png"
BESIDE = {"1.txt": CAPTION.encode(), "1.json": json.dumps({"caption": "not this", "url": URL}).encode()}


def as_folder(folder, files):
    for name, data in files.items():
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return "in"


def as_tar(folder, files, name="in.tar", mode="w"):
    with tarfile.open(folder / name, mode) as archive:
        for inside, data in files.items():
            member = tarfile.TarInfo(inside)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return name


def as_packed_tar(folder, files):
    return as_tar(folder, files, "in.tar.gz", "w:gz")


def as_zip(folder, files):
    with zipfile.ZipFile(folder / "in.zip", "w") as archive:
        for inside, data in files.items():
            archive.writestr(inside, data)
    return "in.zip"


def as_table(folder, files):
    columns = {"image": [b"1", b"2"], "text": [CAPTION, None], "image_url": [URL, ""], "url": [None, None]}
    pq.write_table(pa.table(columns), folder / "in.parquet")
    return "in.parquet"


@pytest.mark.parametrize("write", [as_folder, as_tar, as_packed_tar, as_zip, as_table])
def test_what_is_beside_an_image(bare_folder, write):
    spec = write(
        bare_folder, {"a/1.png": b"1", "a/2.png": b"2"} | {f"a/{name}": data for name, data in BESIDE.items()}
    )
    first, second = scan([spec])
    assert first.written() == {"caption": CAPTION, "url": URL} and second.written() == {}


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ({"1.json": b"{"}, {}),
        ({"1.json": b"[1]"}, {}),
        ({"1.json": b"[" * 100_000}, {}),
        ({"1.json": b'{"caption": 7, "prompt": "p", "url": {}}'}, {"caption": "p"}),
        ({"1.json": b"\xff", "1.txt": b"\xff\x00 x"}, {"caption": "\ufffd\x00 x"}),
        ({"1.txt": b"  \n"}, {}),
        ({"1.txt": b"x" * (MOST_BYTES + 1)}, {}),
    ],
)
def test_what_is_beside_an_image_may_be_anything(bare_folder, beside, found):
    for write in (as_folder, as_tar, as_zip):
        (item,) = scan([write(bare_folder, {"1.png": b"1"} | beside)])
        assert item.written() == found


def test_names_without_a_file_beside():
    assert written_beside("", lambda name: None) == {}


# ---------------------------------------------------------------- kept


@pytest.fixture
def captioned(pictures, run_rd):
    """An index of which one photograph has a caption with a line break, one fake an address."""
    (pictures / "photos/camera/0003.txt").write_text("two\nlines")
    (pictures / "generated/sdxl/0053.json").write_text(json.dumps({"url": URL}))
    assert build(run_rd, "--views", "jpeg").exit_code == 0
    return pictures


def listed(run_rd, *more):
    rows = json.loads(run_rd("bank", "list", "--by", "row", "--json", *more).stdout)
    return {
        row["uri"].rpartition("/")[2]: (row["caption"], row["url"])
        for row in rows
        if row["view"] == "original"
    }


def some(found):
    return {name: kept for name, kept in found.items() if any(kept)}


def test_captions_are_kept_with_references(captioned, run_rd):
    kept = some(listed(run_rd))
    assert kept["0003.png"] == ("two lines", None) and URL in [url for _, url in kept.values()]
    rows = json.loads(run_rd("bank", "list", "--by", "row", "--json").stdout)
    assert not any(row["caption"] or row["url"] for row in rows if row["view"] != "original")
    assert list(findings(Snapshot.open(captioned / "index" / "default"))) == []
    # Shards are rewritten, with and without any.
    (captioned / "later").mkdir()
    (captioned / "later" / "1.png").write_bytes(png(900))
    assert run_rd("bank", "add", "later", "--label", "real", "--source", "camera").exit_code == 0
    assert some(listed(run_rd)) == kept and "1.png" in listed(run_rd)
    run_rd("bank", "rename", "source", "camera", "cam", "--yes")
    assert some(listed(run_rd)) == kept
    assert run_rd("bank", "remove", "--among", "label=real", "--yes").exit_code == 0
    assert run_rd("bank", "compact", "--purge", "--yes").exit_code == 0
    for shard in Snapshot.open(captioned / "index" / "default").shards():
        assert (
            b"two lines"
            not in (captioned / "index/default/shards" / f"{shard.record.id}.rows.arrow").read_bytes()
        )


def test_a_report_shows_them_and_an_export_has_none(captioned, run_rd):
    (captioned / "photos/camera/0003.txt").unlink()
    page = captioned / "page.html"
    assert run_rd("query", "photos/camera/0002.png", "--report", "page.html").exit_code == 0
    assert "<dd>two lines</dd>" in page.read_text()
    assert run_rd("index", "export", "out.tar", "--with-uris").exit_code == 0
    assert run_rd("index", "import", "out.tar", "--name", "theirs").exit_code == 0
    assert some(listed(run_rd, "--index", "theirs")) == {}


def test_lists_say_it_in_columns(pictures, run_rd):
    (pictures / "photos/camera/0003.txt").write_text("beside")
    rows = ["path,label,caption,image_url", f"photos/camera/0003.png,real,{CAPTION},{URL}"]
    rows += [f"photos/camera/{n:04}.png,real,," for n in range(3)]
    rows += [f"{path.relative_to(pictures)},fake,," for path in pictures.glob("generated/*/*.png")]
    (pictures / "l.csv").write_text("\n".join(rows))
    assert run_rd("build-index", "--labelled", "l.csv", *TINY).exit_code == 0
    assert some(listed(run_rd)) == {"0003.png": (CAPTION, URL)}


def test_an_index_without_any_has_no_such_column(index, run_rd):
    assert not any(set(ASIDE) & set(shard.names) for shard in Snapshot.open(index).shards())
    assert some(listed(run_rd)) == {}
