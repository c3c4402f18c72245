"""Archives and tables that break off: every way is named, and what can still be read is read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.sources import scan
from tests.listings import fill

IMAGES = {f"s/{n}.jpg": bytes([65 + n]) * (700 + 300 * n) for n in range(6)}


def archive(images=IMAGES, dialect=tarfile.PAX_FORMAT, others=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as made:
        for name, data in [*images.items(), *others]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def header(name, data=None):
    """Where the header of a member begins."""
    with tarfile.open(fileobj=io.BytesIO(data or archive())) as made:
        return made.getmember(name).offset


def read(data):
    """What a file of these bytes gives: bytes by name, and every reason why something is not read."""
    Path("a.tar").write_bytes(data)
    good, bad = {}, []
    for item in scan(["a.tar"]):
        try:
            good[item.relative] = item.read()
        except ImageError as error:
            bad.append(error.message)
    return good, bad


def without(*names):
    return {name: data for name, data in IMAGES.items() if name not in names}


def test_a_whole_archive_has_nothing_to_say(here):
    for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert read(archive(dialect=dialect)) == (IMAGES, [])


@pytest.mark.parametrize("byte", [0, 120, 148, 156, 257, 511])
@pytest.mark.parametrize("name", ["s/0.jpg", "s/2.jpg", "s/5.jpg"])
def test_a_damaged_header_costs_its_own_member_alone(here, name, byte):
    data = bytearray(archive())
    data[header(name) + byte] ^= 0x15
    good, bad = read(bytes(data))
    assert good == without(name)
    assert len(bad) == 1 and f"damaged at byte {header(name):,}" in bad[0]


@pytest.mark.parametrize("dialect", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_damaged_long_name_costs_one_member(here, dialect):
    images = {f"{'d' * 150}/{name}": data for name, data in IMAGES.items()}
    data = bytearray(archive(images, dialect))
    victim = list(images)[2]
    data[header(victim, bytes(data)) + 100] ^= 0x15  # the header before the name
    good, bad = read(bytes(data))
    assert {name: data for name, data in good.items() if name in images} == {
        name: data for name, data in images.items() if name != victim
    }
    assert len(bad) == 1 and "damaged at byte" in bad[0]


@pytest.mark.parametrize("dialect", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_damaged_header_behind_a_good_long_name(here, dialect):
    """The long name has a true checksum, and leads nowhere: it is no place to go on from, over and over."""
    images = {f"{'d' * 150}/{name}": data for name, data in IMAGES.items()}
    data = bytearray(archive(images, dialect))
    victim = list(images)[2]
    data[header(victim, bytes(data)) + 1024 + 148] ^= 1
    good, bad = read(bytes(data))
    assert good == {name: data for name, data in images.items() if name != victim}
    assert len(bad) == 1 and "damaged at byte" in bad[0]


@pytest.mark.parametrize("length", [512, 1536, 2560])
def test_a_hole_of_zeros_that_swallows_members(here, length):
    data = bytearray(archive())
    start = header("s/1.jpg")
    data[start : start + length] = bytes(length)
    good, bad = read(bytes(data))
    assert "s/1.jpg" not in good and good["s/0.jpg"] == IMAGES["s/0.jpg"] and good["s/5.jpg"]
    assert bad


@pytest.mark.parametrize("seed", range(40))
def test_damage_of_any_kind_is_never_silent(here, seed):
    random = Random(seed)
    images = {f"{'d' * 120 * (n % 2)}/{n}.jpg": data for n, data in enumerate(IMAGES.values())}
    data = bytearray(archive(images, random.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])))
    place = random.randrange(len(data) - 10_240)
    match seed % 4:
        case 0:
            data[place] ^= 1 << random.randrange(8)
        case 1:
            del data[place : place + random.choice([1, 100, 512, 2000])]
        case 2:
            data[place:place] = random.randbytes(random.choice([1, 100, 512, 3000]))
        case 3:
            data[place : place + 2000] = bytes(2000)
    good, bad = read(bytes(data))
    assert bad or len(good) == len(images)  # what is within an image is found when it is decoded


def test_listing_reads_headers_and_no_images(here):
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("this system does not count what is read")
    Path("a.tar").write_bytes(archive({f"{n}.jpg": b"x" * 400_000 for n in range(50)}))

    def read_so_far():
        return int(counters.read_text().split()[1])

    before = read_so_far()
    assert len(list(scan(["a.tar"]))) == 50
    assert read_so_far() - before < Path("a.tar").stat().st_size / 2


def test_wherever_it_is_cut_nothing_is_lost_in_silence(here):
    data = archive()
    mark = header("s/5.jpg") + 512 + 2560  # of the last member 2,200 bytes, in five blocks
    for end in range(0, len(data), 128):
        if end == 0:
            assert read(b"") == ({}, ["the archive cannot be read: it is empty"])
            continue
        good, bad = read(data[:end])
        assert all(IMAGES[name] == found for name, found in good.items())
        assert bool(bad) == (end <= mark), end
        whole = [name for name in IMAGES if header(name) + 512 + len(IMAGES[name]) <= end]
        assert list(good) == whole


def test_bytes_that_are_missing_in_the_middle(here):
    """Neither are the headers behind them at whole blocks, nor does the cut member take them with it."""
    data = archive()
    for gap in (1, 511, 700):
        start = header("s/2.jpg") + 512 + 300
        good, bad = read(data[:start] + data[start + gap :])
        assert {name: good[name] for name in without("s/2.jpg")} == without("s/2.jpg")
        assert bad and "damaged at byte" in bad[0]


def test_an_archive_cut_and_followed_by_another(here):
    start = header("s/1.jpg") + 512 + 100
    others = {f"t/{n}.jpg": b"o" * 200 for n in range(3)}
    good, bad = read(archive()[:start] + archive(others))
    assert {name: good.get(name) for name in others} == others and good["s/0.jpg"] == IMAGES["s/0.jpg"]
    assert len(bad) == 1 and "reading goes on" in bad[0]


def test_what_follows_the_end(here):
    first, second = archive(without("s/4.jpg", "s/5.jpg")), archive(without(*list(IMAGES)[:4]))
    assert read(first + second) == (IMAGES, [])
    bare = first.rstrip(b"\0") + bytes(-len(first.rstrip(b"\0")) % 512)
    assert read(bare + bytes(1024) + second) == (IMAGES, [])  # as bsdtar and Go end an archive
    good, bad = read(bare + bytes(512) + second)
    assert good == IMAGES and len(bad) == 1 and "512 bytes from byte" in bad[0]
    good, bad = read(first + b"signature" * 100)
    assert good == without("s/4.jpg", "s/5.jpg")
    assert bad == [
        f"the archive is damaged at byte {len(first):,}, where a member should begin: "
        "nothing behind it can be read"
    ]


def test_an_end_without_its_mark(here):
    bare = archive()[: header("s/5.jpg")]
    assert read(bare) == (
        without("s/5.jpg"),
        ["the archive ends without the mark of its end: what came behind may be cut off"],
    )
    assert read(bare + bytes(512)) == (without("s/5.jpg"), [])


def test_a_download_whose_rest_is_zeros(here):
    data = archive()[: header("s/3.jpg")] + bytes(3 << 20)
    good, bad = read(data)
    assert good == without("s/3.jpg", "s/4.jpg", "s/5.jpg")
    assert len(bad) == 1 and "bytes from byte" in bad[0] and "are zero" in bad[0]
    assert read(archive() + bytes(10_240))[1] == []


def test_headers_that_lead_back_or_nowhere_end(here):
    """Sizes below zero, of exabytes, and name upon name upon name."""
    sizes = [b"\xff" * 12, b"\x80" + b"\x7f" * 11]
    for size in sizes:
        for kind in (b"0", b"x", b"L", b"S"):
            block = bytearray(archive()[:512])
            block[124:136], block[156:157] = size, kind
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            good, bad = read(bytes(block) + archive())
            assert bad or all(good[name] == data for name, data in IMAGES.items())
    name = tarfile.TarInfo("x")
    name.type, name.size = b"L", 2
    chain = (name.tobuf() + b"x\0".ljust(512, b"\0")) * 1200
    assert "more than 100 places" in read(chain + archive())[1][-1]


def test_a_folder_goes_on_behind_a_broken_archive(here):
    fill(here, "f/z.jpg")
    Path("f/a.tar").write_bytes(archive()[: header("s/1.jpg") + 200])
    Path("f/b.tar").write_bytes(archive({}, others=[("notes.txt", b"")]))
    Path("f/c.parquet").write_bytes(b"")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), "f/d.parquet")
    found = {}
    for item in scan(["f"]):
        try:
            found[item.uri] = item.read()
        except ImageError as error:
            found[item.uri] = error.message
    assert found["f/a.tar::s/0.jpg"] == IMAGES["s/0.jpg"] and found["f/z.jpg"] == b"f/z.jpg"
    assert "damaged at byte" in found["f/a.tar"]
    assert found["f/b.tar"] == found["f/d.parquet"] == "it holds no image"
    assert "table cannot be read" in found["f/c.parquet"]


def test_many_archives_do_not_stay_open(here):
    resource = pytest.importorskip("resource")
    for n in range(60):
        Path(f"{n}.tar").write_bytes(archive())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
    try:
        assert sum(1 for _ in scan([f"{n}.tar" for n in range(60)])) == 360
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---------------------------------------------------------------- Parquet


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([b"a", b"b", b"a"]).dictionary_encode(), [b"a", b"b", b"a"]),
        (pa.array([b"a", None], pa.binary_view()), [b"a", "the row holds no image bytes"]),
        (
            pa.array([{"bytes": b"a"}], pa.struct([("bytes", pa.dictionary(pa.int8(), pa.binary()))])),
            [b"a"],
        ),
    ],
)
def test_bytes_of_any_type_are_read(here, column, expected):
    try:
        pq.write_table(pa.table({"image": column}), "t.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("this Arrow cannot write it")
    outcomes = []
    for item in scan(["t.parquet"]):
        try:
            outcomes.append(item.read())
        except ImageError as error:
            outcomes.append(error.message)
    assert outcomes == expected


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array(["/9j/4AAQ"]), "image (string)"),
        (pa.array([[b"a", b"b"]]), "image (list<element: binary>)"),
        (pa.array([[{"bytes": b"a"}]]), "image (list<element: struct<bytes: binary>>)"),
        (pa.nulls(2), "image (null)"),
    ],
)
def test_columns_that_are_not_read_are_named_by_type(here, column, kind):
    pq.write_table(pa.table({"image": column}), "t.parquet")
    (item,) = scan(["t.parquet"])
    with pytest.raises(ImageError) as caught:
        item.read()
    assert f"no image column, only {kind}; images are binary" in caught.value.message


def test_a_table_without_rows_holds_no_image(here):
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), "t.parquet")
    with pytest.raises(UsageError, match=r"'t\.parquet' holds no image"):
        scan(["t.parquet"])


def test_a_damaged_page_costs_the_rows_from_there_on(here):
    """Uncompressed, a page to few rows, with checksums: what was read before the damage is right."""
    rows = [bytes([n]) * 400 for n in range(200)]
    pq.write_table(
        pa.table({"image": rows}),
        "t.parquet",
        row_group_size=100,
        data_page_size=2000,
        write_batch_size=4,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    data = bytearray(Path("t.parquet").read_bytes())
    data[data.index(bytes([60]) * 400) + 7] ^= 0x15
    Path("t.parquet").write_bytes(bytes(data))
    good, bad = {}, {}
    for n, item in enumerate(scan(["t.parquet"])):
        try:
            good[n] = item.read()
        except ImageError as error:
            bad[n] = error.message
    assert all(good[n] == rows[n] for n in good) and set(good) >= {*range(40), *range(100, 200)}
    assert 60 in bad and set(bad) <= set(range(40, 100)) and "damaged at this row or before" in bad[60]


def test_a_damaged_footer_is_one_failure_or_none(here):
    rows = [b"x" * 50] * 4
    pq.write_table(pa.table({"image": rows}), "t.parquet", compression="none")
    whole = Path("t.parquet").read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in range(footer, len(whole)):
        data = bytearray(whole)
        data[place] ^= 0x41
        Path("t.parquet").write_bytes(bytes(data))
        try:
            items = list(scan(["t.parquet"]))
        except UsageError as error:
            assert "holds no image" in error.message
            continue
        for item in items[:8]:
            try:
                item.read()
            except ImageError as error:
                assert error.reason == "unreadable"
