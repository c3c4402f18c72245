"""images.decode: what is refused, by its header or as damaged, and what holds whatever is given."""

from __future__ import annotations

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from retrieval_detect.errors import ImageError
from retrieval_detect.images.codes import NOTES, REASONS
from retrieval_detect.images.decode import Limits, decode
from tests.copies import saved as encoded
from tests.scenes import picture, reference


def reason(data, **limits):
    with pytest.raises(ImageError) as caught:
        decode(data, limits=Limits(**limits))
    assert caught.value.message.startswith(REASONS[caught.value.reason])
    return caught.value.reason


# ---------------------------------------------------------------- what is refused by its header


def bomb(width, height):
    """A PNG header that promises pixels which do not follow."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 5) + b"IDAT"


@pytest.mark.parametrize("side", [8_001, 12_000, 20_000, 2**31 - 1])
def test_too_many_pixels_is_known_from_the_header_and_warns_of_nothing(side):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert reason(bomb(side, side)) == "too-many-pixels"
    assert caught == []


def test_limits_are_inclusive():
    data = encoded(picture(320, 16), "PNG")
    assert decode(data).rgb.shape == (16, 320, 3)
    assert reason(data, max_pixels=320 * 16 - 1) == "too-many-pixels"
    assert reason(data, max_aspect=19.9) == "too-elongated"
    assert reason(data, min_side=17) == "too-small"
    assert decode(data, limits=Limits(max_pixels=320 * 16, max_aspect=20, min_side=16)).width == 320


def test_elongated_and_tiny():
    assert reason(encoded(Image.new("L", (20_000, 16)), "PNG")) == "too-elongated"
    assert reason(encoded(Image.new("L", (1, 20_000)), "PNG")) == "too-small"
    assert reason(encoded(Image.new("L", (15, 15)), "GIF")) == "too-small"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_range(mode):
    values = np.linspace(-1, 1, 32 * 32).reshape(32, 32)
    image = Image.fromarray(values.astype(np.float32 if mode == "F" else np.int32))
    assert reason(encoded(image, "TIFF")) == "pixel-type"


def test_lab_tiff():
    assert reason(encoded(Image.new("LAB", (32, 32)), "TIFF")) == "pixel-type"


def test_inverted_16_bit_grey_tiff():
    data = encoded(Image.fromarray(np.full((32, 32), 500, np.uint16)), "TIFF")
    tag = struct.pack("<HHI", 262, 3, 1)
    assert data.count(tag) == 1
    assert reason(data.replace(tag + struct.pack("<HH", 1, 0), tag + bytes(4))) == "pixel-type"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello",
        b"<!DOCTYPE html><html>",
        b"<svg xmlns='x'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"8BPS\0\1",
    ],
)
def test_not_an_image(data):
    assert reason(data) == "not-an-image"


def test_a_lookalike_is_named():
    with pytest.raises(ImageError, match="git lfs pull"):
        decode(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ImageError, match="empty"):
        decode(b"")


@pytest.mark.parametrize(
    ("data", "plug_in"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "pillow-heif"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "pillow-jxl-plugin"),
        (b"\xff\x0a\xfa\x1f", "pillow-jxl-plugin"),
    ],
)
def test_heic_and_jpeg_xl_name_the_way_out(data, plug_in):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.reason == "format-not-supported"
    assert plug_in in caught.value.hint


def test_avif_under_a_general_brand_is_avif():
    data = bytearray(encoded(picture(), "AVIF"))
    data[8:12] = b"mif1"
    assert decode(bytes(data)).format == "AVIF"


# ---------------------------------------------------------------- what is damaged


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_cut_files_are_truncated(kind, share):
    data = encoded(picture(200, 150), kind)
    assert reason(data[: int(len(data) * share)]) == "truncated"


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_cut_anywhere_is_refused(kind):
    data = encoded(picture(200, 150), kind)
    for share in (0.999, 0.7, 0.3, 0.03, 0.01):
        reason(data[: int(len(data) * share)])


def test_a_jpeg_without_its_last_marker_is_truncated():
    assert reason(encoded(picture(), "JPEG")[:-2]) == "truncated"


def test_bytes_after_a_jpeg_are_no_damage():
    data = encoded(picture(), "JPEG")
    np.testing.assert_array_equal(decode(data + b"appended by a phone" * 9).rgb, decode(data).rgb)


def test_holes_in_a_jpeg_are_found_where_pillow_sees_none():
    data = encoded(picture(300, 200), "JPEG")
    found = []
    for start in range(1000, len(data) - 100, 400):
        holed = data[:start] + bytes(50) + data[start + 50 :]
        assert reference(holed).shape == (200, 300, 3)
        try:
            decode(holed)
        except ImageError as error:
            found.append(error.reason)
    assert set(found) == {"corrupt"}
    assert len(found) >= 3  # not all: a hole may leave valid codes behind


def test_header_then_zeros():
    for kind in ("JPEG", "PNG", "GIF", "TIFF"):
        data = encoded(picture(), kind)
        assert reason(data[:40] + bytes(len(data) - 40)) in REASONS


def test_every_bit_of_png_data_counts():
    data = encoded(picture(64, 64), "PNG")
    for position in range(60, len(data) - 20, len(data) // 40):
        flipped = bytearray(data)
        flipped[position] ^= 4
        reason(bytes(flipped))


def test_a_jpeg_that_states_two_sizes():
    data = encoded(picture(96, 48), "JPEG")
    start = data.index(b"\xff\xc0")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0] + 2
    frame = bytearray(data[start : start + length])
    frame[5:9] = struct.pack(">HH", 9_000, 9_000)
    assert reason(data[:start] + bytes(frame) + data[start:]) in {"corrupt", "too-many-pixels", "undecodable"}


# ---------------------------------------------------------------- promises


def test_threads_do_not_disturb_one_another():
    files = [
        encoded(picture(90 + n, 60, seed=n), kind) for n in range(12) for kind in ("JPEG", "PNG", "WEBP")
    ]
    alone = [decode(data).rgb for data in files]
    with ThreadPoolExecutor(8) as pool:
        for expected, image in zip(alone, pool.map(decode, files), strict=True):
            np.testing.assert_array_equal(image.rgb, expected)


def test_out_of_memory_is_a_reason(monkeypatch):
    def explode(*_):
        raise MemoryError

    data = encoded(picture(), "PNG")
    monkeypatch.setattr(Image.Image, "convert", explode)
    assert reason(data) == "undecodable"


def test_pillow_globals_do_not_matter_and_are_not_touched(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    assert decode(encoded(picture(), "PNG")).width == 97
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (100, False)


def test_the_codes_are_explained_in_the_guide():
    guide = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
    missing = [code for code in [*REASONS, *NOTES] if f"`{code}`" not in guide]
    assert missing == []
