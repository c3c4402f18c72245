"""images.archives: tar and Parquet files as folders of images, and uris that lead back into them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images import tables
from retrieval_detect.images.sources import scan
from tests.listings import fill, relatives, uris


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def make_table(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)


def outcome(item):
    """The bytes of an item, or why there are none."""
    try:
        return item.read()
    except ImageError as error:
        return error.message


# ---------------------------------------------------------------- tar


def test_tar_members(here):
    members = [
        ("./sd/2.jpg", b"two"),
        ("1.JPG", b"one"),
        ("1.json", b"{}"),
        ("._1.jpg", b"mac"),
        ("../up.png", b"3"),
    ]
    make_tar("a.tar", members)
    found = list(scan(["a.tar"]))
    assert [item.uri for item in found] == ["a.tar::sd/2.jpg", "a.tar::1.JPG", "a.tar::up.png"]
    assert [item.relative for item in found] == ["sd/2.jpg", "1.JPG", "up.png"]
    assert [item.read() for item in reversed(found)] == [b"3", b"one", b"two"]
    assert sorted(path.name for path in here.iterdir()) == ["a.tar"]


def test_tar_in_a_folder_is_no_folder_of_its_own(here):
    (here / "fake/sd").mkdir(parents=True)
    make_tar("fake/sd/000.tar", [("x/1.jpg", b"1")])
    make_tar("fake/001.tar", [("gan/2.jpg", b"2")])
    assert relatives("fake") == ["gan/2.jpg", "sd/x/1.jpg"]
    assert uris("fake") == ["fake/001.tar::gan/2.jpg", "fake/sd/000.tar::x/1.jpg"]


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_in_every_tar_dialect(here, dialect):
    name = "d" * 90 + "/" + "é" * 40 + ".jpg"
    with tarfile.open("a.tar", "w", format=dialect) as archive:
        info = tarfile.TarInfo(name)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    (item,) = scan(["a.tar"])
    assert (item.relative, item.read()) == (name, b"abc")


def make_special(path, *members):
    """Members of (name, type, where a link leads), after those that ``path`` has."""
    with tarfile.open(path, "a") as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)


def test_folders_and_pipes_in_tar_are_no_images(here):
    make_special("a.tar", ("x.jpg", tarfile.DIRTYPE, ""), ("y.jpg", tarfile.FIFOTYPE, ""))
    with pytest.raises(UsageError, match=r"'a\.tar' holds no image"):
        scan(["a.tar"])


def test_links_in_tar_are_what_they_lead_to_and_never_leave_it(here):
    make_special("a.tar", ("b/early.jpg", tarfile.SYMTYPE, "../a/1.jpg"))
    with tarfile.open("a.tar", "a") as archive:
        for name in ("./a/1.jpg", "blob"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(name[-3:].encode()))
    links = [
        ("hard.jpg", tarfile.LNKTYPE, "a/1.jpg"),
        ("a/soft.jpg", tarfile.SYMTYPE, "1.jpg"),
        ("twice.jpg", tarfile.LNKTYPE, "hard.jpg"),
        ("other.jpg", tarfile.LNKTYPE, "blob"),
        ("out.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ("up.jpg", tarfile.LNKTYPE, "../../etc/passwd"),
    ]
    make_special("a.tar", *links)
    found = {item.uri: outcome(item) for item in scan(["a.tar"])}
    assert found == {
        "a.tar::a/1.jpg": b"jpg",
        "a.tar::hard.jpg": b"jpg",
        "a.tar::a/soft.jpg": b"jpg",
        "a.tar::twice.jpg": b"jpg",
        "a.tar::other.jpg": b"lob",
        "a.tar::b/early.jpg": b"jpg",
        "a.tar::out.jpg": "this is a link to '/etc/passwd', which the archive lacks",
        "a.tar::up.jpg": "this is a link to '../../etc/passwd', which the archive lacks",
    }
    for uri in ("a.tar::hard.jpg", "a.tar::b/early.jpg"):
        assert [item.read() for item in scan([uri])] == [b"jpg"]


def test_a_member_without_a_name_or_of_another_kind_is_one_failure(here):
    make_tar("a.tar", [("1.jpg", b"1"), (".", b"2"), ("../..", b"3"), ("4.jpg", b"4")])
    make_special("a.tar", ("5.jpg", b"M", ""), ("6.jpg", tarfile.GNUTYPE_SPARSE, ""))
    found = {item.uri: outcome(item) for item in scan(["a.tar"])}
    assert found == {
        "a.tar::1.jpg": b"1",
        "a.tar::.": "a member of the archive is called '.', which is no name",
        "a.tar::../..": "a member of the archive is called '../..', which is no name",
        "a.tar::4.jpg": b"4",
        "a.tar::5.jpg": "this member is of type 'M', which is not read: unpack the archive",
        "a.tar::6.jpg": "this member is sparse, which is not read: unpack the archive",
    }


def test_a_broken_tar_is_one_failure_and_stops_nothing(here):
    fill(here, "f/a.tar", "f/b/c.jpg")
    broken, good = scan(["f"])
    assert good.relative == "b/c.jpg"
    assert broken.uri == "f/a.tar"
    with pytest.raises(ImageError, match="archive cannot be read") as caught:
        broken.read()
    assert caught.value.reason == "unreadable"


def test_a_cut_tar_is_listed_as_far_as_it_goes(here):
    make_tar("a.tar", [("1.jpg", b"x" * 2000), ("2.jpg", b"y" * 2000)])
    whole = Path("a.tar").read_bytes()
    Path("a.tar").write_bytes(whole[: 512 + 2048 + 512 + 1000])
    found = list(scan(["a.tar"]))
    assert found[0].read() == b"x" * 2000
    reasons = set()
    for item in found[1:]:
        with pytest.raises(ImageError) as caught:
            item.read()
        reasons.add(caught.value.reason)
    assert "truncated" in reasons


@pytest.mark.parametrize(
    ("mode", "packing"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz"), ("zip", "ZIP")]
)
def test_a_packed_archive_under_a_plain_name(here, mode, packing):
    if mode == "zip":
        with zipfile.ZipFile("a.tar", "w") as archive:
            archive.writestr("1.jpg", b"1")
    else:
        make_tar("a.tar", [("1.jpg", b"1")], mode=mode)
    (item,) = scan(["a.tar"])
    assert outcome(item) == f"the archive cannot be read: it is packed ({packing}): repack it as a plain .tar"


# ---------------------------------------------------------------- Parquet


def images(*values):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([None if v is None else {"bytes": v, "path": "x.jpg"} for v in values], type=kind)


def test_parquet_with_a_hugging_face_column(here):
    make_table("t.parquet", {"label": [0, 1, 2], "image": images(b"a", b"b", None)}, row_group_size=2)
    found = list(scan(["t.parquet"]))
    assert [item.uri for item in found] == [f"t.parquet::row:{row}" for row in range(3)]
    assert [item.relative for item in found] == ["row:0", "row:1", "row:2"]
    assert [item.read() for item in found[:2]] == [b"a", b"b"]
    with pytest.raises(ImageError, match="no image bytes"):
        found[2].read()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"caption": [b"no"], "PNG": [b"yes"]}, b"yes"),
        ({"jpg": [b"no"], "image": [b"yes"]}, b"yes"),
        ({"audio": pa.array([b"no"]), "photo": images(b"yes")}, b"yes"),
        ({"webp": pa.array([b"yes"], type=pa.large_binary())}, b"yes"),
    ],
)
def test_which_column(here, columns, expected):
    make_table("t.parquet", columns)
    (item,) = scan(["t.parquet"])
    assert item.read() == expected


def test_parquet_in_a_folder(here):
    (here / "fake/sd").mkdir(parents=True)
    make_table("fake/sd/t.parquet", {"image": images(b"a")})
    assert relatives("fake") == ["sd/row:0"]


def test_a_table_without_images_and_a_broken_one(here):
    make_table("t.parquet", {"text": ["x"], "n": [1]})
    fill(here, "broken.parquet")
    for name, message in [
        ("t.parquet", r"no image column, only text \(string\), n \(int64\)"),
        ("broken.parquet", "cannot be read"),
    ]:
        (item,) = scan([name])
        with pytest.raises(ImageError, match=message) as caught:
            item.read()
        assert caught.value.reason == "unreadable"


def test_row_groups_are_read_once_in_order_and_few_are_kept(here, monkeypatch):
    make_table("t.parquet", {"image": images(*(b"%d" % n for n in range(40)))}, row_group_size=8)
    loaded = []
    real = tables.ParquetTable.column
    monkeypatch.setattr(tables.ParquetTable, "column", lambda s, c, g: loaded.append(g) or real(s, c, g))
    found = list(scan(["t.parquet"]))
    assert loaded == []
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda item: item.read(), found)) == [b"%d" % n for n in range(40)]
    assert sorted(set(loaded)) == list(range(5))
    assert len(found[0].read.args[0]._kept) <= 2


# ---------------------------------------------------------------- uris lead back


def test_the_uri_of_an_item_is_a_spec(here):
    make_tar("a.tar", [("x/1.jpg", b"1"), ("x/2.jpg", b"2")])
    make_table("t.parquet", {"image": images(b"a", b"b")})
    fill(here, "f/3.jpg")
    for item in scan(["a.tar", "t.parquet", "f"]):
        (again,) = scan([item.uri])
        assert (again.uri, again.read()) == (item.uri, item.read())
    with pytest.raises(UsageError, match=r"'a\.tar' holds no image 'x/9\.jpg'"):
        scan(["a.tar::x/9.jpg"])
