"""images.decode: transparent colours in the depth in which they are stored; who says which side is up."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from retrieval_detect.images.decode import decode
from tests.copies import saved
from tests.scenes import picture, reference
from tests.tagged import chunk

GREY, RGB, PALETTE = 0, 2, 3
LEVELS = 32


def png(samples, depth, colour, key, *, before=b"", adam7=False):
    """A PNG of ``samples`` (height, width) or (height, width, 3), of ``depth`` bits each, with tRNS."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, adam7)
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes] if adam7 else [samples]
    rows = b"".join(b"\0" + packed(row, depth) for part in parts for row in part if part.size)
    chunks = chunk(b"IHDR", header) + before + chunk(b"tRNS", key)
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def packed(row, depth):
    bits = (row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()


def levels(depth):
    """Every level that a few bits have, or some neighbours among many, side by side."""
    largest = 2**depth - 1
    row = np.arange(LEVELS) * largest // (LEVELS - 1) if depth > 4 else np.arange(LEVELS) % (largest + 1)
    return np.tile(row, (LEVELS, 1)).astype(np.uint32)


@pytest.mark.parametrize("adam7", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_compared_as_it_is_stored(depth, adam7):
    grey = levels(depth)
    key = int(grey[0, 1])
    image = decode(png(grey, depth, GREY, struct.pack(">H", key), adam7=adam7))
    assert "alpha-on-white" in image.notes
    expected = np.round(grey * 255 / (2**depth - 1))
    expected[grey == key] = 255
    np.testing.assert_array_equal(image.rgb[:, :, 0], expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_bits_above_the_depth_do_not_count(depth):
    grey = levels(depth)
    key = int(grey[0, 1])
    plain = png(grey, depth, GREY, struct.pack(">H", key))
    above = png(grey, depth, GREY, struct.pack(">H", key | 1 << 15 | 1 << depth))
    np.testing.assert_array_equal(decode(above).rgb, decode(plain).rgb)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_that_is_not_there_changes_nothing(depth):
    grey = np.full((LEVELS, LEVELS), 1, np.uint32)
    image = decode(png(grey, depth, GREY, struct.pack(">H", 0)))
    assert "alpha-on-white" not in image.notes
    assert len(np.unique(image.rgb)) == 1


@pytest.mark.parametrize("adam7", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_compared_as_it_is_stored(depth, adam7):
    colours = np.repeat(levels(depth)[:, :, None], 3, axis=2)
    colours[:, 1] = colours[:, 0] + [0, 0, 1]  # neighbours: the same in their upper bits
    key = colours[0, 0]
    image = decode(png(colours, depth, RGB, struct.pack(">3H", *map(int, key)), adam7=adam7))
    hidden = (colours == key).all(axis=2)
    assert hidden.sum() == LEVELS
    expected = (colours >> (depth - 8)).astype(np.uint8)
    expected[hidden] = 255
    assert image.notes == ("alpha-on-white",)
    np.testing.assert_array_equal(image.rgb, expected)


def test_a_16_bit_colour_between_those_of_8_bits_hides_nothing_black():
    black = np.zeros((LEVELS, LEVELS, 3), np.uint32)
    image = decode(png(black, 16, RGB, struct.pack(">3H", 0, 0, 200)))
    assert image.notes == () and not image.rgb.any()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_with_alpha(depth):
    index = levels(depth)
    n = min(2**depth, 40)
    index = index % n
    colours = np.random.default_rng(depth).integers(0, 256, (n, 3), dtype=np.uint8)
    alpha = np.linspace(0, 255, n).round().astype(np.uint8)
    palette = chunk(b"PLTE", colours.tobytes())
    image = decode(png(index, depth, PALETTE, alpha.tobytes(), before=palette))
    share = alpha[:, None] / 255
    expected = (colours * share + 255 * (1 - share))[index]
    assert np.abs(image.rgb - expected).max() <= 1


def test_a_transparent_level_of_16_bits_and_one_palette_entry():
    colours = bytes([10, 20, 30, 200, 100, 50])
    index = np.arange(LEVELS * LEVELS).reshape(LEVELS, LEVELS) % 2
    image = decode(png(index, 1, PALETTE, b"\xff\0", before=chunk(b"PLTE", colours)))
    np.testing.assert_array_equal(image.rgb[0, :2], [[10, 20, 30], [255, 255, 255]])


# ---------------------------------------------------------------- orientation


def xmp(orientation, form='tiff:Orientation="{}"'):
    said = form.format(orientation)
    inside, attribute = ("", said) if "=" in said else (said, "")
    return f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {attribute}>{inside}</rdf:Description></rdf:RDF>
</x:xmpmeta>""".encode()


def tagged(kind, packet, orientation=None):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    if kind == "PNG":
        data = saved(picture(), "PNG", exif=exif)
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
        return data[:33] + text + data[33:]
    if kind == "TIFF":
        exif[700] = packet
        return saved(picture(), kind, exif=exif)
    options = {"lossless": True} if kind == "WEBP" else {}
    return saved(picture(), kind, xmp=packet, exif=exif, **options)


FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


def upright(data):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("form", ['tiff:Orientation="{}"', "<tiff:Orientation>{}</tiff:Orientation>"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("kind", FORMATS)
def test_xmp_says_which_side_is_up_where_exif_does_not(kind, orientation, form):
    data = tagged(kind, xmp(orientation, form))
    image = decode(data)
    assert image.notes == (() if orientation == 1 else ("xmp-rotated",))
    assert image.rgb.shape == ((97, 61, 3) if orientation == 6 else (61, 97, 3))
    np.testing.assert_array_equal(image.rgb, upright(data))


@pytest.mark.parametrize("kind", FORMATS)
def test_exif_counts_before_xmp(kind):
    image = decode(tagged(kind, xmp(6), orientation=3))
    assert image.notes == ("exif-rotated",)
    np.testing.assert_array_equal(image.rgb, decode(tagged(kind, b"<x/>", orientation=3)).rgb)
    assert image.rgb.shape == (61, 97, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_exif_that_says_upright_counts_too(kind):
    image = decode(tagged(kind, xmp(6), orientation=1))
    assert image.notes == ()
    np.testing.assert_array_equal(image.rgb, reference(tagged(kind, xmp(1), orientation=1)))
