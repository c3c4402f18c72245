"""Images as callers have them: each way in gives the same pixels, and what is none is said in a sentence."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.decode import decode
from retrieval_detect.images.given import item_of, items_of
from retrieval_detect.images.provenance import read_provenance
from retrieval_detect.types import ImageItem
from tests.factories import picture, png, write_pictures


def pixels(item: ImageItem) -> np.ndarray:
    return decode(item.read()).rgb


def test_every_way_in_gives_the_same_pixels(here):
    path = here / "a.png"
    path.write_bytes(png(1))
    array = np.asarray(picture(1))
    with path.open("rb") as opened:
        ways = [path, str(path), png(1), bytearray(png(1)), memoryview(png(1)), opened, io.BytesIO(png(1))]
        ways += [picture(1), Image.open(path), array, np.asfortranarray(array), array[:, ::-1][:, ::-1]]
        found = [item_of(way) for way in ways]
    for item in found:
        np.testing.assert_array_equal(pixels(item), array)
    names = [item.uri for item in found]
    assert names == [*[str(path)] * 2, *["-"] * 3, str(path), "-", "-", str(path), *["-"] * 3]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "HSV", "I;16"])
def test_a_pillow_image_is_seen_as_its_file_would_be(mode):
    grey = np.linspace(0, 65535, 4096).reshape(64, 64).astype(np.uint16)
    image = Image.fromarray(grey) if mode == "I;16" else picture(1).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(picture(2).convert("L"))
    file = io.BytesIO()
    (image if mode not in ("CMYK", "HSV") else image.convert("RGB")).save(file, "PNG")
    np.testing.assert_array_equal(pixels(item_of(image)), decode(file.getvalue()).rgb)


def test_a_pillow_image_is_turned_upright_and_keeps_what_it_says_of_itself():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    file = io.BytesIO()
    picture(1).save(file, "PNG", exif=exif)
    item = item_of(Image.open(io.BytesIO(file.getvalue())))
    np.testing.assert_array_equal(pixels(item), decode(file.getvalue()).rgb)
    assert "exif-rotated" in decode(item.read()).notes
    assert read_provenance(item.read()).exif == read_provenance(file.getvalue()).exif != None  # noqa: E711


def test_grey_pixels_are_a_grey_image():
    grey = np.asarray(picture(1).convert("L"))
    np.testing.assert_array_equal(pixels(item_of(grey)), np.repeat(grey[:, :, None], 3, axis=2))


def test_what_its_owner_changes_later_is_not_seen():
    frame = np.asarray(picture(1)).copy()
    item = item_of(frame)
    frame[:] = 0
    np.testing.assert_array_equal(pixels(item), np.asarray(picture(1)))


def closed(path):
    stream = path.open("rb")
    stream.close()
    return stream


def raising(error):
    stream = io.BytesIO()
    stream.read = Mock(side_effect=error)
    return stream


class Refusing:
    """As a tensor whose gradient is asked for."""

    def __array__(self, *_, **__):
        raise RuntimeError("requires grad")


class Pixels:
    """As a tensor: pixels that are no array, and can be iterated."""

    ndim = 3

    def __iter__(self):
        return iter(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: np.zeros((3, 32, 32), np.uint8), r"an array of uint8 \(3, 32, 32\) was given; pixels are"),
        (lambda _: np.zeros((32, 32, 3), np.float32), r"an array of float32 \(32, 32, 3\) was given"),
        (lambda _: np.zeros((32, 32, 4), np.uint8), r"\(32, 32, 4\)"),
        (lambda _: np.zeros((0, 0, 3), np.uint8), "the image cannot be decoded"),
        (lambda _: Image.new("F", (32, 32)), "a Pillow image of mode F was given: convert it to RGB"),
        (lambda _: Image.open(io.BytesIO(png(1)[:200])), "the image cannot be decoded"),
        (lambda _: 3, "this is not an image in a format rd reads: one int was given"),
        (lambda _: ["a.png"], "one list was given"),
        (lambda _: "https://example.org/a.jpg", "it is an address, and rd fetches nothing"),
        (lambda here: here, "it is a folder; query_many takes the images that it holds"),
        (lambda _: "\ud800.png", "no file can have this name"),
        (lambda _: raising(zipfile.BadZipFile("Bad CRC-32")), "the file cannot be read: Bad CRC-32"),
        (lambda _: Refusing(), "the pixels are of a type without a known range: requires grad"),
        (lambda _: io.StringIO("text"), r'it was opened as text: open\(path, "rb"\)'),
        (lambda here: closed(here / "a.txt"), "the file cannot be read: .*closed file"),
        (lambda _: b"text", "this is not an image"),
    ],
)
def test_what_is_no_image_says_so_when_it_is_read(here, make, said):
    (here / "a.txt").write_text("text")
    item = item_of(make(here))
    with pytest.raises(ImageError, match=said):
        pixels(item)


def test_a_name_that_no_file_can_have_fails_when_it_is_read():
    item = item_of("x" * 5000)
    with pytest.raises(OSError, match="name too long"):
        item.read()


def test_a_path_of_bytes_and_a_stream_of_a_bytearray(here):
    (here / "a.png").write_bytes(png(1))
    (entry,) = os.scandir(os.fsencode(here))
    stream = io.BytesIO()
    stream.read = lambda: bytearray(png(1))
    assert item_of(entry).read() == item_of(stream).read() == png(1)


def test_several_are_a_folder_or_a_list_of_anything(here):
    write_pictures(here / "inbox", range(3))
    with tarfile.open("inbox.tar", "w") as archive:
        archive.add("inbox")
    for given in ("inbox", here / "inbox", "inbox.tar", "inbox/*.png"):
        assert len(list(items_of(given))) == 3
    array = np.asarray(picture(1))
    found = list(items_of([png(1), "inbox/0000.png", array, item_of(array, name="mine"), None]))
    assert [item.uri for item in found] == ["[0]", "inbox/0000.png", "[2]", "mine", "[4]"]
    assert [item.uri for item in items_of(np.stack([array] * 2))] == ["[0]", "[1]"]
    assert [item.uri for item in items_of(np.array(["a.png", "b.png"]))] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "one",
    [png(1), io.BytesIO(png(1)), picture(1), np.asarray(picture(1)), Pixels(), item_of(png(1)), None, 7],
)
def test_one_image_is_not_taken_for_several(one):
    with pytest.raises(UsageError, match=f"one {type(one).__name__} was given where several"):
        items_of(one)
