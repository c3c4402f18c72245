"""images.decode: each row of docs/images.md, on files made here."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from retrieval_detect.images import jpeg as jpeg_module
from retrieval_detect.images.decode import decode
from tests.copies import saved as encoded
from tests.scenes import picture, reference

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


def with_orientation(image, kind, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif, **options)


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("AVIF", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("JPEG2000", {}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"big_tiff": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_formats_give_the_pixels_of_pillow(kind, options):
    data = encoded(picture(), kind, **options)
    image = decode(data)
    assert image.format == kind
    assert (image.width, image.height) == (97, 61)
    assert image.notes == ()
    assert image.rgb.dtype == np.uint8
    assert image.rgb.flags.c_contiguous
    assert image.rgb.flags.writeable
    np.testing.assert_array_equal(image.rgb, reference(data))


@pytest.mark.parametrize("size", [(97, 61), (16, 17), (33, 200), (128, 128), (255, 31)])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0"},
        {"subsampling": "4:1:1"},
        {"subsampling": "4:2:0", "progressive": True},
        {"quality": 20, "restart_marker_rows": 1},
        {"keep_rgb": True},
    ],
)
def test_jpeg_pixels_equal_pillow_whatever_the_sampling(size, options):
    data = encoded(picture(*size), "JPEG", **options)
    np.testing.assert_array_equal(decode(data).rgb, reference(data))


@pytest.mark.parametrize("progressive", [False, True])
def test_grey_jpeg_equals_pillow(progressive):
    data = encoded(picture(mode="L"), "JPEG", progressive=progressive)
    np.testing.assert_array_equal(decode(data).rgb, reference(data))


def test_jpeg_with_sampling_unknown_to_turbojpeg_goes_through_pillow():
    data = bytearray(encoded(picture(96, 48), "JPEG", subsampling="4:4:4"))
    start = data.index(b"\xff\xc0")
    data[start + 11 : start + 18 : 3] = b"\x11\x11\x21"  # Cr finer than Y: legal, and unheard of
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg_header(bytes(data))
    np.testing.assert_array_equal(decode(bytes(data)).rgb, reference(bytes(data)))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the checkout")
def test_real_jpegs_equal_pillow():
    files = sorted(SHARED.glob("*/*/*.jpg"))[::100]
    assert len(files) > 10
    for file in files:
        data = file.read_bytes()
        np.testing.assert_array_equal(decode(data).rgb, reference(data), err_msg=str(file))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_without_simplejpeg_the_pixels_are_the_same(mode, monkeypatch):
    data = encoded(picture().convert(mode), "JPEG")
    fast = decode(data)
    monkeypatch.setattr(jpeg_module, "simplejpeg", None)
    slow = decode(data)
    np.testing.assert_array_equal(slow.rgb, fast.rgb)
    assert slow.notes == fast.notes
    assert slow.rgb.flags.writeable


def test_rd_embeds_where_simplejpeg_cannot_be_imported():
    program = (
        "import sys; sys.modules['simplejpeg'] = None\n"
        "import io; from PIL import Image\n"
        "from retrieval_detect.encoders.pipeline import embed\n"
        "from retrieval_detect.encoders.tiny import TinyEncoder\n"
        "from retrieval_detect.images.items import from_bytes\n"
        "Image.new('RGB', (40, 40)).save(file := io.BytesIO(), 'JPEG')\n"
        "(found,) = embed([from_bytes(file.getvalue(), 'x')], TinyEncoder(), layers=['proj'])\n"
        "print(found.format)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "JPEG\n"


# ---------------------------------------------------------------- what is made of it


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 32).astype(np.uint16).reshape(32, 64)
    expected = np.round(ramp / 257).astype(np.uint8)
    for kind, options in [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_deflate"})]:
        image = decode(encoded(Image.fromarray(ramp), kind, **options))
        assert image.notes == ("grey-16-bit",)
        for channel in range(3):
            np.testing.assert_array_equal(image.rgb[:, :, channel], expected)


def test_big_endian_16_bit_grey_tiff():
    ramp = np.linspace(0, 65535, 64 * 32).astype(">u2").reshape(32, 64)
    image = decode(encoded(Image.frombytes("I;16B", (64, 32), ramp.tobytes()), "TIFF"))
    np.testing.assert_array_equal(image.rgb[:, :, 0], np.round(ramp / 257).astype(np.uint8))


def test_transparent_value_of_a_16_bit_grey_png_becomes_white():
    ramp = np.full((32, 64), 1000, dtype=np.uint16)
    ramp[:, :20] = 30000
    data = encoded(Image.fromarray(ramp), "PNG", transparency=1000)
    image = decode(data)
    assert image.notes == ("alpha-on-white", "grey-16-bit")
    assert (image.rgb[:, 20:] == 255).all()
    assert (image.rgb[:, :20] == round(30000 / 257)).all()


def test_16_bit_rgb_png_is_reduced():
    grey = np.linspace(0, 65535, 32 * 32).astype(">u2").reshape(32, 32, 1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.repeat(grey, 3, axis=2))
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks
    )
    image = decode(b"\x89PNG\r\n\x1a\n" + body)
    assert np.abs(image.rgb[:, :, 1].astype(int) - grey[:, :, 0] / 257).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_on_white(kind):
    rgba = np.zeros((32, 48, 4), dtype=np.uint8)
    rgba[:, :, 1] = 200  # green; hidden on the left, half hidden in the middle
    rgba[:, 16:32, 3] = 128
    rgba[:, 32:, 3] = 255
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = decode(encoded(Image.fromarray(rgba), kind, **options))
    assert image.notes == ("alpha-on-white",)
    assert (image.rgb[:, :16] == 255).all()
    assert np.abs(image.rgb[5, 20].astype(int) - [127, 227, 127]).max() <= 1
    np.testing.assert_array_equal(image.rgb[5, 40], [0, 200, 0])


def test_alpha_that_hides_nothing_changes_nothing():
    opaque = picture(mode="RGBA")
    image = decode(encoded(opaque, "PNG"))
    assert image.notes == ()
    np.testing.assert_array_equal(image.rgb, np.asarray(opaque.convert("RGB")))


def test_grey_with_alpha_and_palette_with_transparency():
    grey = Image.merge("LA", (Image.new("L", (32, 32), 40), Image.new("L", (32, 32), 0)))
    image = decode(encoded(grey, "PNG"))
    assert image.notes == ("alpha-on-white",)
    assert (image.rgb == 255).all()

    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(0, (0, 0, 16, 32))
    for kind in ("PNG", "GIF"):
        image = decode(encoded(palette, kind, transparency=1))
        assert image.notes == ("alpha-on-white",)
        np.testing.assert_array_equal(image.rgb[0, 0], [10, 20, 30])
        np.testing.assert_array_equal(image.rgb[0, 31], [255, 255, 255])


def test_colour_key_of_an_rgb_png():
    solid = Image.new("RGB", (32, 32), (1, 2, 3))
    solid.paste((9, 9, 9), (0, 0, 16, 32))
    image = decode(encoded(solid, "PNG", transparency=(1, 2, 3)))
    np.testing.assert_array_equal(image.rgb[0, 31], [255, 255, 255])
    np.testing.assert_array_equal(image.rgb[0, 0], [9, 9, 9])


def test_cmyk_jpeg_goes_through_pillow():
    data = encoded(picture(mode="CMYK"), "JPEG", quality=95)
    image = decode(data)
    assert image.notes == ("cmyk-converted",)
    np.testing.assert_array_equal(image.rgb, reference(data))


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr"])
def test_other_8_bit_modes(mode):
    data = encoded(picture(mode=mode), "TIFF")
    np.testing.assert_array_equal(decode(data).rgb, reference(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_exif_orientation_is_applied(kind, options, orientation):
    data = with_orientation(picture(), kind, orientation, **options)
    image = decode(data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(image.rgb, np.asarray(expected))
    assert image.rgb.flags.c_contiguous
    assert (image.width, image.height) == expected.size
    assert image.notes == (("exif-rotated",) if orientation != 1 else ())


def test_senseless_orientation_and_broken_exif_leave_the_picture_alone():
    upright = decode(encoded(picture(), "JPEG")).rgb
    image = decode(with_orientation(picture(), "JPEG", 77))
    assert image.notes == ()
    np.testing.assert_array_equal(image.rgb, upright)
    as_text = b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0"
    image = decode(encoded(picture(), "JPEG", exif=b"Exif\0\0" + as_text))
    assert image.notes == ("metadata-unreadable",)
    np.testing.assert_array_equal(image.rgb, upright)


def test_colour_profile_is_noted_and_not_applied():
    plain, profiled = encoded(picture(), "PNG"), encoded(picture(), "PNG", icc_profile=b"any profile")
    image = decode(profiled)
    assert image.notes == ("icc-ignored",)
    np.testing.assert_array_equal(image.rgb, decode(plain).rgb)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_of_several_frames(kind):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert image.notes == ("first-frame",)
    assert np.abs(image.rgb.astype(int) - [255, 0, 0]).max() <= 3


def test_the_first_picture_of_an_mpo_is_a_jpeg():
    data = encoded(picture(), "MPO", save_all=True, append_images=[picture(seed=1)])
    image = decode(data)
    assert (image.format, image.notes) == ("JPEG", ())
    np.testing.assert_array_equal(image.rgb, reference(data))
