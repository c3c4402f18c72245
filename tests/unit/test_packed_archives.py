"""ZIP archives, packed tar archives and Arrow tables: what they hold, and what is refused of hostile ones."""

from __future__ import annotations

import gc
import gzip
import io
import os
import stat
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images import members, unpacked, zips
from retrieval_detect.images.sources import scan
from tests.listings import fill, relatives, uris

MEMBERS = {"./sd/2.jpg": b"two", "1.JPG": b"one", "1.json": b"{}", "._1.jpg": b"mac", "../up.png": b"3"}
ZEROS = bytes(80 << 20)


def make_zip(path, files, kind=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def make_packed(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def outcome(item):
    try:
        return item.read()
    except ImageError as error:
        return error.message


def outcomes(*specs):
    return {item.uri: outcome(item) for item in scan(specs)}


def patched(path, change):
    """An archive of one member, some of whose fields in the list are written over: offset → value."""
    data = bytearray(Path(path).read_bytes())
    listed = data.rindex(b"PK\x01\x02")
    for offset, (kind, value) in change.items():
        struct.pack_into(kind, data, listed + offset, value)
    Path(path).write_bytes(data)


FLAGS, METHOD, SIZE = 8, 10, 24
"""Where the fields of a member lie in its entry of the list."""


@pytest.mark.parametrize(
    ("name", "make"), [("a.zip", make_zip), ("a.tar.gz", make_packed), ("a.TGZ", make_packed)]
)
def test_members(here, name, make):
    make(name, MEMBERS)
    found = list(scan([name]))
    assert [item.uri for item in found] == [f"{name}::{inside}" for inside in ("sd/2.jpg", "1.JPG", "up.png")]
    assert [item.relative for item in found] == ["sd/2.jpg", "1.JPG", "up.png"]
    assert [item.read() for item in reversed(found)] == [b"3", b"one", b"two"]
    assert [path.name for path in here.iterdir()] == [name]
    (again,) = scan([f"{name}::1.JPG"])
    assert again.read() == b"one"


def test_in_a_folder_they_are_no_folders_of_their_own(here):
    (here / "fake/sd").mkdir(parents=True)
    make_zip("fake/sd/000.zip", {"x/1.jpg": b"1", "notes.txt": b"", "inner.zip": b"PK", "f/": b""})
    make_packed("fake/001.tar.gz", {"gan/2.jpg": b"2"})
    assert relatives("fake") == ["gan/2.jpg", "sd/x/1.jpg"]
    assert uris("fake") == ["fake/001.tar.gz::gan/2.jpg", "fake/sd/000.zip::x/1.jpg"]


@pytest.mark.parametrize(("name", "make"), [("a.zip", make_zip), ("a.tgz", make_packed)])
def test_without_an_image(here, name, make):
    make(name, {"a.txt": b"x", "in.zip": b"PK"})
    with pytest.raises(UsageError, match=rf"'{name}' holds no image; passed over 2 files"):
        scan([name])


# ---------------------------------------------------------------- ZIP


def test_a_link_in_a_zip_leads_nowhere(here):
    link = zipfile.ZipInfo("l.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert outcomes("a.zip") == {"a.zip::l.jpg": b"/etc/passwd"}


def test_members_that_are_not_read(here):
    make_zip("enc.zip", {"1.jpg": b"1"})
    patched("enc.zip", {FLAGS: ("<H", 1)})
    make_zip("bz.zip", {"1.jpg": ZEROS}, zipfile.ZIP_BZIP2)
    make_zip("xz.zip", {"1.jpg": b"1"}, zipfile.ZIP_LZMA)
    assert outcomes("enc.zip", "bz.zip", "xz.zip") == {
        "enc.zip::1.jpg": "this member is encrypted: unpack the archive",
        "bz.zip::1.jpg": "this member is packed in a way that is not read: unpack the archive",
        "xz.zip::1.jpg": "this member is packed in a way that is not read: unpack the archive",
    }


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (len(ZEROS), "it unpacks to 83,886,080 bytes, the limit for its size is 67,108,864"),
        (10, "this member is damaged: Bad CRC-32 for file '1.jpg'"),
        (1 << 20, "this member is damaged: Bad CRC-32 for file '1.jpg'"),
    ],
)
def test_a_bomb_never_goes_off_whatever_it_says_of_itself(here, size, said):
    make_zip("a.zip", {"1.jpg": ZEROS})
    patched("a.zip", {SIZE: ("<I", size)})
    (item,) = scan(["a.zip"])
    tracemalloc.start()
    assert outcome(item) == said
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_member_shorter_than_it_says(here):
    make_zip("a.zip", {"1.jpg": b"12345"})
    patched("a.zip", {SIZE: ("<I", 500)})
    assert outcomes("a.zip") == {"a.zip::1.jpg": "the file is cut short: it ends before its stated size"}


def test_packed_bytes_that_are_damaged_cost_their_member_alone(here):
    make_zip("a.zip", {"1.jpg": os.urandom(500), "2.jpg": b"2"})
    data = bytearray(Path("a.zip").read_bytes())
    data[100] ^= 0xFF
    Path("a.zip").write_bytes(data)
    found = outcomes("a.zip")
    assert "this member is damaged: " in str(found["a.zip::1.jpg"]) and found["a.zip::2.jpg"] == b"2"


def test_members_over_one_another(here):
    make_zip("a.zip", {"1.jpg": b"1" * 100, "2.jpg": b"2" * 100}, zipfile.ZIP_STORED)
    patched("a.zip", {42: ("<I", 0)})  # the second lies where the first does
    assert outcomes("a.zip") == {"a.zip": "the archive cannot be read: its members lie over one another"}


def test_a_list_that_would_fill_the_memory(here, monkeypatch):
    make_zip("a.zip", {f"{n}.jpg": b"1" for n in range(100)})
    assert len(outcomes("a.zip")) == 100
    monkeypatch.setattr(zips._Bounded, "most_bytes", 2000)
    Path("a.zip").rename("b.zip")
    assert outcomes("b.zip") == {
        "b.zip": "the archive cannot be read: its list of members is too long: unpack the archive"
    }


def test_damaged_anywhere_a_zip_stops_nothing(here):
    make_zip("a.zip", {"1.jpg": b"1" * 50, "é/2.jpg": b"2"})
    whole = Path("a.zip").read_bytes()
    fill(here, "z.png")
    for at in range(len(whole)):
        for spoilt in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]):
            Path("a.zip").write_bytes(spoilt)
            assert outcomes(".")["z.png"] == b"z.png"


# ---------------------------------------------------------------- tar.gz


def test_a_tar_packed_badly(here):
    make_packed("a.tar.gz", {"1.jpg": b"1", "2.jpg": os.urandom(9000)})
    whole = Path("a.tar.gz").read_bytes()
    Path("cut.tar.gz").write_bytes(whole[:5000])
    fill(here, "none.tar.gz")
    found = outcomes("cut.tar.gz")
    assert found["cut.tar.gz::1.jpg"] == b"1" and "cut short" in str(found["cut.tar.gz::2.jpg"])
    assert "cannot be unpacked to its end: Compressed file ended before" in str(found["cut.tar.gz"])
    (said,) = [outcome(item) for item in scan(["none.tar.gz"])]
    assert said.startswith("the archive cannot be unpacked: Not a gzipped file")


def test_a_packed_tar_fills_no_disk(here, monkeypatch):
    monkeypatch.setattr(members, "_AT_LEAST_BYTES", 1 << 20)
    with gzip.open("bomb.tar.gz", "wb") as packed:
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            info = tarfile.TarInfo("1.jpg")
            info.size = 3
            archive.addfile(info, io.BytesIO(b"one"))
        packed.write(tar.getvalue()[:1024])
        packed.write(ZEROS)
    found = outcomes("bomb.tar.gz")
    assert found["bomb.tar.gz::1.jpg"] == b"one" and len(found) == 2
    listed = [outcome(item) for item in scan(["bomb.tar.gz"])]
    assert [said for said in listed if said != b"one"][-1].startswith("it unpacks to more than 8,")
    key = unpacked.FileKey.of(Path("bomb.tar.gz"))
    assert unpacked.UNPACKED.of(key).path.stat().st_size < 9 << 20


def test_what_was_unpacked_is_gone_with_its_readers(here, tmp_path_factory, monkeypatch):
    there = tmp_path_factory.mktemp("unpacked")
    monkeypatch.setattr(tempfile, "tempdir", str(there))
    for n in range(5):
        make_packed(f"{n}.tgz", {f"{n}.jpg": b"%d" % n})
    found = list(scan(["."]))
    assert [item.read() for item in [*found, *found]] == [b"0", b"1", b"2", b"3", b"4"] * 2
    assert len(list(there.iterdir())) == 2
    unpacked.UNPACKED._kept.clear()
    gc.collect()
    assert list(there.iterdir()) == []


# ---------------------------------------------------------------- Arrow

ROWS = pa.table({"n": [0, 1, 2, 3, 4], "img": [{"bytes": b"%d" % n, "path": "p"} for n in range(5)]})


def write_file(path, table=ROWS):
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table, max_chunksize=2)


def write_stream(path, table=ROWS):
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)


def write_feather(path, table=ROWS):
    feather.write_feather(table, path, compression="lz4", chunksize=2)


@pytest.mark.parametrize("write", [write_file, write_stream, write_feather])
def test_arrow_rows(here, write):
    write("t.arrow")
    Path("t.arrow").rename("t.feather" if write is write_feather else "t.arrow")
    (path,) = here.iterdir()
    found = list(scan([path.name]))
    assert [item.uri for item in found] == [f"{path.name}::row:{n}" for n in range(5)]
    assert [item.read() for item in found] == [b"0", b"1", b"2", b"3", b"4"]
    assert [found[n].read() for n in (4, 0, 3, 1)] == [b"4", b"0", b"3", b"1"]


def test_an_arrow_stream_that_breaks_off(here):
    write_stream("t.arrow")
    whole = Path("t.arrow").read_bytes()
    Path("t.arrow").write_bytes(whole[: len(whole) * 2 // 3])
    *read, last = outcomes("t.arrow").items()
    assert dict(read) and dict(read) == {f"t.arrow::row:{n}": b"%d" % n for n in range(len(read))}
    assert last[0] == "t.arrow" and "damaged behind row" in last[1]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["t.arrow", "t.parquet"])
def test_columns_that_share_a_name_are_no_image_column(here, name, inside):
    bytes_of = pa.array([b"1"])
    columns = {"arrays": [bytes_of, bytes_of], "names": ["bytes" if inside else "image"] * 2}
    if inside:
        columns = {"arrays": [pa.StructArray.from_arrays(**columns)], "names": ["image"]}
    table = pa.Table.from_arrays(**columns)
    pq.write_table(table, name) if name.endswith("parquet") else write_file(name, table)
    assert "under a name of their own" in outcomes(name)[name]


@pytest.mark.parametrize("columns", [{"imag_": b"1"}, {"image": b"1", "tex_": "x"}, {"tex_": "x"}])
def test_a_column_whose_name_is_no_text_stops_nothing(here, columns):
    write_file("t.arrow", pa.table({name: [value] for name, value in columns.items()}))
    Path("t.arrow").write_bytes(Path("t.arrow").read_bytes().replace(b"_", b"\xff"))
    assert outcomes("t.arrow")["t.arrow"].startswith("the table cannot be read: 'utf-8' codec")


def test_offsets_that_lead_out_of_an_arrow_file_are_not_followed(here):
    offsets = pa.py_buffer(struct.pack("<3i", 0, 1 << 30, 5))
    column = pa.Array.from_buffers(pa.binary(), 2, [None, offsets, pa.py_buffer(b"x" * 64)])
    write_file("t.arrow", pa.table({"image": column}))
    for said in outcomes("t.arrow").values():
        assert "the table is damaged at this row or before it" in said


def test_damaged_anywhere_an_arrow_file_stops_nothing(here):
    write_file("whole.arrow", ROWS.slice(0, 2))
    whole = Path("whole.arrow").read_bytes()
    for at in range(0, len(whole), 3):
        Path("t.arrow").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        assert all(isinstance(said, bytes | str) for said in outcomes("t.arrow").values())
