"""images.sources: what each kind of spec gives, in which order, and what a wrong one says."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images import archives, items
from retrieval_detect.images.sources import IMAGE_SUFFIXES, from_bytes, is_image_name, read_list, scan


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(root, *names):
    for name in names:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def uris(*specs, **options):
    return [item.uri for item in scan(specs, **options)]


def relatives(*specs, **options):
    return [item.relative for item in scan(specs, **options)]


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def make_table(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)


# ---------------------------------------------------------------- files and folders


def test_a_file_is_itself_whatever_its_name(here):
    fill(here, "photo", "sub/b.jpg", "notes.txt")
    (first, second, third) = scan(["photo", Path("sub/b.jpg"), "notes.txt"])
    assert [first.uri, second.uri, third.uri] == ["photo", "sub/b.jpg", "notes.txt"]
    assert [first.relative, second.relative] == ["photo", "b.jpg"]
    assert second.read() == second.read() == b"sub/b.jpg"


def test_a_folder_gives_its_images_in_order(here):
    fill(here, "f/b/2.png", "f/b/10.JPG", "f/a/x.webp", "f/z.jpeg", "f/B.gif", "f/a.b/c.tiff")
    assert relatives("f") == ["B.gif", "z.jpeg", "a/x.webp", "a.b/c.tiff", "b/10.JPG", "b/2.png"]
    assert uris("f/") == [f"f/{relative}" for relative in relatives("f")]
    assert relatives("f", recursive=False) == ["B.gif", "z.jpeg"]


def test_order_of_specs_is_kept_and_repeats_are_given_twice(here):
    fill(here, "b/1.jpg", "a/1.jpg")
    assert uris("b", "a", "b/1.jpg") == ["b/1.jpg", "a/1.jpg", "b/1.jpg"]


def test_hidden_and_other_files_are_passed_over(here):
    fill(here, "f/a.jpg", "f/README.txt", "f/x/y.TXT", "f/LICENSE", "f/.hidden.jpg", "f/.git/b.jpg")
    skipped = Counter()
    assert relatives("f", skipped=skipped) == ["a.jpg"]
    assert skipped == {".txt": 2, "no suffix": 1}


def test_suffixes():
    assert is_image_name("a/b.JPeG")
    assert is_image_name("x.heic")  # so that it is reported, not passed over
    assert not is_image_name(".jpg")
    assert not is_image_name("jpg")
    assert not is_image_name("a.jpg.txt")
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


def test_links_are_followed_once_and_never_in_circles(here):
    fill(here, "f/a/1.jpg", "elsewhere/2.jpg")
    (here / "f/a/up").symlink_to("..")
    (here / "f/loop").symlink_to("loop")
    (here / "f/out").symlink_to(here / "elsewhere")
    (here / "f/out-again").symlink_to(here / "elsewhere")
    (here / "f/broken.jpg").symlink_to("nowhere.jpg")
    assert relatives("f") == ["broken.jpg", "a/1.jpg", "out/2.jpg"]
    with pytest.raises(FileNotFoundError):
        next(iter(scan(["f"]))).read()


def test_special_files_are_left_alone(here):
    fill(here, "f/a.jpg")
    os.mkfifo(here / "f/pipe.jpg")
    assert relatives("f") == ["a.jpg"]
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        scan(["f/pipe.jpg"])


def test_names_that_are_no_unicode_are_shown_and_read(here):
    try:
        Path(os.fsdecode(b"f\xff.jpg")).write_bytes(b"data")
    except OSError:
        pytest.skip("this file system wants Unicode names")
    (item,) = scan(["."])
    assert item.uri == item.relative == "f\\xff.jpg"
    assert item.read() == b"data"


def test_a_sub_folder_that_cannot_be_listed_is_one_failure(here, monkeypatch):
    fill(here, "f/a.jpg", "f/closed/b.jpg")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    first, closed = scan(["f"])
    assert first.read() == b"f/a.jpg"
    with pytest.raises(ImageError, match="cannot be listed: Permission denied"):
        closed.read()
    with pytest.raises(UsageError, match="'f/closed' cannot be listed: Permission denied"):
        scan(["f/closed"])


def test_huge_files_are_refused_unread(here, monkeypatch):
    monkeypatch.setattr(items, "MAX_FILE_BYTES", 5)
    fill(here, "long.jpg")
    with pytest.raises(ImageError) as caught:
        next(iter(scan(["long.jpg"]))).read()
    assert caught.value.reason == "too-many-bytes"


def test_nothing_is_read_or_listed_ahead(here, monkeypatch):
    fill(here, *(f"f/{folder}/1.jpg" for folder in "abcdef"))
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(Path(path).name) or real(path))
    found = scan(["f"])
    assert listed == ["f", "a"]
    next(found), next(found)
    assert listed == ["f", "a", "b"]


# ---------------------------------------------------------------- wrong specs


def test_wrong_paths_are_named_at_the_call(here):
    fill(here, "good/a.jpg")
    (here / "empty").mkdir()
    fill(here, "texts/a.txt", "texts/b.txt", "texts/c.md")
    wrong = [
        (["good", "gone.jpg"], "'gone.jpg' does not exist"),
        (["good/a.jpg/b.jpg"], "does not exist"),
        (["good", "empty"], "folder 'empty' holds no image$"),
        (["texts"], r"folder 'texts' holds no image; 3 files were skipped: \.txt 2, \.md 1$"),
        (["good/*.png"], "pattern 'good/\\*.png' matches no image"),
        (["gone/*.png"], "folder 'gone' cannot be listed: No such file"),
        ([""], "empty path"),
        (["a\0b"], "cannot be read: .*null"),
        (["x" * 5000], "cannot be read: File name too long"),
        ([], "no image was given"),
    ]
    for specs, message in wrong:
        with pytest.raises(UsageError, match=message):
            scan(specs)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.zip", "a.tar.zst"])
def test_compressed_archives_are_refused(here, name):
    fill(here, name)
    with pytest.raises(UsageError, match="compressed archive") as caught:
        scan([name])
    assert ".tar" in caught.value.hint


# ---------------------------------------------------------------- patterns


@pytest.fixture
def tree(here):
    fill(here, "fake/sd/1.jpg", "fake/sd/x/2.png", "fake/gan/3.jpg", "fake/4.jpg", "fake/5.txt", "6.jpg")
    return here


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["6.jpg"]),
        ("fake/*.*", ["4.jpg"]),
        ("fake/*/*.jpg", ["gan/3.jpg", "sd/1.jpg"]),
        ("fake/**/*.jpg", ["4.jpg", "gan/3.jpg", "sd/1.jpg"]),
        ("fake/s?", ["sd/1.jpg", "sd/x/2.png"]),
        ("fake/[gs]*/[0-9].jpg", ["gan/3.jpg", "sd/1.jpg"]),
        ("fake/**", ["4.jpg", "gan/3.jpg", "sd/1.jpg", "sd/x/2.png"]),
        ("f*/sd/1.*", ["fake/sd/1.jpg"]),
        ("./fake/*/x", ["sd/x/2.png"]),
    ],
)
def test_patterns(tree, pattern, expected):
    assert relatives(pattern) == expected


def test_patterns_without_sub_folders(tree):
    assert relatives("fake/*", recursive=False) == ["4.jpg"]
    assert relatives("fake/*/*", recursive=False) == ["gan/3.jpg", "sd/1.jpg"]


def test_patterns_enter_only_folders_that_can_match(tree, monkeypatch):
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or real(path))
    assert uris("*.jpg") == ["6.jpg"]
    assert uris("fake/g*/*.jpg") == ["fake/gan/3.jpg"]
    assert listed == [".", "fake", "fake/gan"]


def test_a_name_with_brackets_is_a_name_first(here):
    fill(here, "a[1].jpg", "a1.jpg")
    assert uris("a[1].jpg") == ["a[1].jpg"]


# ---------------------------------------------------------------- lists


def test_lists():
    assert read_list(io.BytesIO(b"a.jpg\nwith space .jpg\r\n\n  \nb")) == ["a.jpg", "with space .jpg", "b"]
    assert read_list(io.BytesIO(b"\xef\xbb\xbfa.jpg")) == ["a.jpg"]
    assert read_list(io.BytesIO(b"a\nb\0c\0"), null_separated=True) == ["a\nb", "c"]
    assert os.fsencode(read_list(io.BytesIO(b"\xff.jpg"))[0]) == b"\xff.jpg"
    assert read_list(io.BytesIO()) == []
    with pytest.raises(UsageError) as caught:
        read_list(io.BytesIO(b"a\0b\0"))
    assert "-0" in caught.value.hint


def test_bytes_at_hand():
    item = from_bytes(b"data", "-")
    assert (item.uri, item.read(), item.read()) == ("-", b"data", b"data")


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


def test_links_and_folders_in_tar_are_no_images(here):
    with tarfile.open("a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("x.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    (item,) = scan(["a.tar"])
    with pytest.raises(ImageError, match="holds no image"):
        item.read()


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


def test_a_compressed_tar_under_a_plain_name(here):
    make_tar("a.tar", [("1.jpg", b"1")], mode="w:gz")
    (item,) = scan(["a.tar"])
    with pytest.raises(ImageError, match="cannot be read"):
        item.read()


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
        ("t.parquet", "no image column, only text, n"),
        ("broken.parquet", "cannot be read"),
    ]:
        (item,) = scan([name])
        with pytest.raises(ImageError, match=message) as caught:
            item.read()
        assert caught.value.reason == "unreadable"


def test_row_groups_are_read_once_in_order_and_few_are_kept(here, monkeypatch):
    make_table("t.parquet", {"image": images(*(b"%d" % n for n in range(40)))}, row_group_size=8)
    loaded = []
    real = archives._RowGroups._load
    monkeypatch.setattr(archives._RowGroups, "_load", lambda s, g: loaded.append(g) or real(s, g))
    found = list(scan(["t.parquet"]))
    assert loaded == []
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda item: item.read(), found)) == [b"%d" % n for n in range(40)]
    assert sorted(set(loaded)) == list(range(5))
    assert len(found[0].read.func.__self__._kept) <= 2


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


def test_importing_sources_loads_nothing_heavy():
    heavy = "[m for m in ('numpy', 'PIL', 'pyarrow') if m in sys.modules]"
    code = f"import sys, retrieval_detect.images.sources; print({heavy})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
