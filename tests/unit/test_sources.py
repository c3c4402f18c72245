"""images.sources: what each kind of spec gives, in which order, and what a wrong one says."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images import items
from retrieval_detect.images.passed import counting, sentence
from retrieval_detect.images.sources import IMAGE_SUFFIXES, from_bytes, is_image_name, read_list, scan
from tests.listings import fill, relatives, uris

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
    assert skipped == {".txt": 2, "no suffix": 1, "hidden": 1, "hidden/": 1}


def test_what_other_programs_leave_in_folders_is_left_out_by_name(here):
    folders = ["@eaDir", "#recycle", ".thumbnails", "__MACOSX", "$Recycle.bin", "lost+found"]
    fill(here, "f/a.jpg", *(f"f/x/{folder}/b.jpg" for folder in folders))
    fill(here, "f/._a.jpg", "f/x/._b.jpg", "f/Thumbs.db", "f/.DS_Store", "f/my@eaDir/c.jpg", "f/raw.DNG")
    skipped = Counter()
    assert relatives("f", skipped=skipped) == ["a.jpg", "my@eaDir/c.jpg"]
    by_name = {f"{folder}/": 1 for folder in folders} | {"._*": 2, "Thumbs.db": 1, ".DS_Store": 1}
    assert skipped == by_name | {".dng": 1}
    assert relatives("f/x/@eaDir") == ["b.jpg"]  # whoever names it means it


def test_archives_are_counted_alike(here):
    names = ["a/1.jpg", "a/1.json", "__MACOSX/a/._1.jpg", "a/._1.jpg", "a/Thumbs.db", "README"]
    with tarfile.open("a.tar", "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    skipped = Counter()
    assert relatives("a.tar", skipped=skipped) == ["a/1.jpg"]
    assert skipped == {".json": 1, "__MACOSX/": 1, "._*": 1, "Thumbs.db": 1, "no suffix": 1}
    skipped.clear()
    assert uris("a.tar::a/1.jpg", skipped=skipped) == ["a.tar::a/1.jpg"] and not skipped


def test_a_pattern_counts_what_it_would_have_reached(here):
    fill(here, "f/1.jpg", "f/._1.jpg", "f/.DS_Store", "f/notes.txt", "f/@eaDir/1.jpg", "g/@eaDir/2.jpg")
    for pattern, expected in [
        ("f/*.jpg", {"._*": 1}),
        ("f/*", {"._*": 1, ".DS_Store": 1, ".txt": 1, "@eaDir/": 1}),
        ("f/**/1.jpg", {"@eaDir/": 1}),
    ]:
        skipped = Counter()
        assert relatives(pattern, skipped=skipped) == ["1.jpg"]
        assert skipped == expected


def test_counts_reach_whoever_asked_for_them_once(here):
    fill(here, "f/1.jpg", "f/a.txt", "none/b.txt")
    with counting() as counts:
        assert relatives("f") == ["1.jpg"]
        with pytest.raises(UsageError):  # which says it itself
            scan(["none"])
        assert counts == {".txt": 1}
        relatives("f", skipped=Counter())
        assert relatives("f") == ["1.jpg"] and counts == {".txt": 2}
    relatives("f")
    assert counts == {".txt": 2}


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, ""),
        ({".txt": 1}, "passed over 1 file that is no image: 1 .txt"),
        ({".txt": 2, ".dng": 3000}, "passed over 3,002 files that are no images: 3,000 .dng, 2 .txt"),
        ({"@eaDir/": 2, "._*": 3}, "left out by name: 3 ._*, 2 @eaDir/"),
        (
            {".txt": 2, "no suffix": 1, "hidden": 1, "LOST+FOUND/": 1},
            "passed over 3 files that are no images: 2 .txt, 1 no suffix; left out by name: 1 hidden, "
            "1 LOST+FOUND/",
        ),
        (
            {f".{n}": 9 - n for n in range(8)},
            "passed over 44 files that are no images: 9 .0, 8 .1, 7 .2, 6 .3, 5 .4, 4 .5, …",
        ),
    ],
)
def test_what_is_said_of_counts(counts, said):
    assert sentence(counts) == said


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
        (
            ["texts"],
            r"folder 'texts' holds no image; passed over 3 files that are no images: 2 \.txt, 1 \.md$",
        ),
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


@pytest.mark.parametrize("name", ["a.gz", "a.tar.xz", "a.7z", "a.tar.zst"])
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
    assert ",null" in caught.value.hint


def test_bytes_at_hand():
    item = from_bytes(b"data", "-")
    assert (item.uri, item.read(), item.read()) == ("-", b"data", b"data")


# ---------------------------------------------------------------- what it loads


def test_importing_sources_loads_nothing_heavy():
    heavy = "[m for m in ('numpy', 'PIL', 'pyarrow') if m in sys.modules]"
    code = f"import sys, retrieval_detect.images.sources; print({heavy})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
