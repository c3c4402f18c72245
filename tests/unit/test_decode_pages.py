"""images.decode: a file whose first page is not its picture is refused, with the way out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import ImageError
from retrieval_detect.images.decode import decode
from retrieval_detect.images.items import from_bytes
from tests.copies import saved
from tests.scenes import picture, reference

KIND, OLD_KIND, PHOTOMETRIC, INNER, DNG_VERSION = 254, 255, 262, 330, 50706
REDUCED, COLOUR_FILTER, LINEAR_RAW = 1, 32803, 34892


def tags(**values):
    found = ImageFileDirectory_v2()
    for name, value in values.items():
        found[globals()[name]] = value
    return found


def pages(*sizes_and_tags, **options):
    """A TIFF of several pages, each a picture of one size with tags of its own."""
    stream = io.BytesIO()
    first, *others = sizes_and_tags
    images = [picture(*size) for size, _ in sizes_and_tags]
    for image, (_, more) in zip(images[1:], others, strict=True):
        image.encoderinfo = {"tiffinfo": more}
    images[0].save(stream, "TIFF", save_all=True, append_images=images[1:], tiffinfo=first[1], **options)
    return stream.getvalue()


def within(outer, inner, *, of=None, inside=None, **options):
    """A TIFF whose only page holds another picture, as cameras and pyramids do."""
    info = ImageFileDirectory_v2()
    for tag, value in (of or {}).items():
        info[tag] = value
    info[INNER] = 0
    info.tagtype[INNER] = 4
    data = bytearray(saved(picture(*outer), "TIFF", tiffinfo=info, **options))
    whole = saved(picture(*inner), "TIFF", tiffinfo=inside or {})
    start = len(data)
    moved = ImageFileDirectory_v2(whole[:8])
    stream = io.BytesIO(whole)
    stream.seek(moved.next)
    moved.load(stream)
    wide = options.get("big_tiff", False)
    page = ImageFileDirectory_v2(b"II\x2b\0\x08\0\0\0" + bytes(8) if wide else b"II*\0" + bytes(4))
    for tag, value in moved.items():
        page[tag] = value
    entry = data.index(INNER.to_bytes(2, "little") + b"\x04\0")
    at = entry + (12 if wide else 8)
    data[at : at + 4] = start.to_bytes(4, "little")
    return bytes(data) + page.tobytes(start)


def refused(data):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.reason == "format-not-supported"
    return caught.value


THUMBNAIL, WHOLE = (64, 48), (256, 192)
CAMERA_RAW = {
    "DNG": within(THUMBNAIL, WHOLE, of=tags(KIND=REDUCED, DNG_VERSION=b"\1\4\0\0")),
    "sensor data within": within(THUMBNAIL, WHOLE, inside=tags(PHOTOMETRIC=COLOUR_FILTER)),
    "linear sensor data within": within(THUMBNAIL, WHOLE, inside=tags(PHOTOMETRIC=LINEAR_RAW)),
    "sensor data first": saved(picture(), "TIFF", tiffinfo=tags(DNG_VERSION=b"\1\4\0\0")),
    "sensor data on a later page": pages((THUMBNAIL, tags()), (WHOLE, tags(PHOTOMETRIC=COLOUR_FILTER))),
    "BigTIFF": within(THUMBNAIL, WHOLE, inside=tags(PHOTOMETRIC=COLOUR_FILTER), big_tiff=True),
    "CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(99),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "CRW": b"II\x1a\0\0\0HEAPCCDR" + bytes(99),
    "ORF": b"IIRO\x08\0\0\0" + bytes(99),
    "RW2": b"IIU\0\x18\0\0\0" + bytes(99),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(99),
    "MRW": b"\0MRM" + bytes(99),
    "X3F": b"FOVb" + bytes(99),
}


@pytest.mark.parametrize("data", CAMERA_RAW.values(), ids=CAMERA_RAW)
def test_camera_raw_names_the_way_out(data):
    error = refused(data)
    assert "camera raw" in error.message
    assert "Develop it to JPEG or TIFF" in error.hint


SMALLER_FIRST = {
    "a reduced page before the picture": pages((THUMBNAIL, tags(KIND=REDUCED)), (WHOLE, tags())),
    "in the words of TIFF 5": pages((THUMBNAIL, tags(OLD_KIND=2)), (WHOLE, tags(OLD_KIND=1))),
    "a reduced page that holds the picture": within(THUMBNAIL, WHOLE, of=tags(KIND=REDUCED)),
    "a page that holds a larger one": within(THUMBNAIL, WHOLE),
    "BigTIFF": within(THUMBNAIL, WHOLE, big_tiff=True),
}


@pytest.mark.parametrize("data", SMALLER_FIRST.values(), ids=SMALLER_FIRST)
def test_a_smaller_copy_of_the_picture_is_not_judged(data):
    error = refused(data)
    assert "64 × 48" in error.message and "reduced copy" in error.message
    assert "one page" in error.hint


PICTURE_FIRST = {
    "a pyramid of pages": pages((WHOLE, tags()), (THUMBNAIL, tags(KIND=REDUCED))),
    "a pyramid within the page": within(WHOLE, THUMBNAIL, inside=tags(KIND=REDUCED)),
    "pages of a document": pages((THUMBNAIL, tags(KIND=2)), (WHOLE, tags(KIND=2))),
    "all there is, though called reduced": saved(picture(), "TIFF", tiffinfo=tags(KIND=REDUCED)),
    "an inner page that is nowhere": within(WHOLE, THUMBNAIL)[:-9],
}


@pytest.mark.parametrize("data", PICTURE_FIRST.values(), ids=PICTURE_FIRST)
def test_a_first_page_that_is_the_picture_is_judged(data):
    np.testing.assert_array_equal(decode(data).rgb, reference(data))


def test_pages_that_are_no_pages_are_left_to_the_decoder():
    data = bytearray(saved(picture(), "TIFF"))
    data[4:8] = (len(data) + 99).to_bytes(4, "little")
    with pytest.raises(ImageError) as caught:
        decode(bytes(data))
    assert caught.value.reason != "format-not-supported"


def test_pages_in_a_circle_end():
    data = bytearray(pages((THUMBNAIL, tags()), (THUMBNAIL, tags())))
    first = int.from_bytes(data[4:8], "little")
    following = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[following : following + 4] = data[4:8]
    assert decode(bytes(data)).rgb.shape == (48, 64, 3)


BRANDS = (
    "heic",
    "heix",
    "heim",
    "heis",
    "hevc",
    "hevx",
    "hevm",
    "hevs",
    "mif1",
    "mif2",
    "msf1",
    "avci",
    "vvic",
)


@pytest.mark.parametrize("brand", BRANDS)
@pytest.mark.parametrize("first", [True, False])
def test_every_brand_of_heif_names_the_way_out(brand, first):
    others = b"isom" * 20
    brands = brand.encode() + bytes(4) + others if first else b"isom" + bytes(4) + others + brand.encode()
    data = (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands
    assert "pillow-heif" in refused(data).hint


def test_avif_named_late_among_its_brands_is_avif():
    data = saved(picture(), "AVIF")
    size = int.from_bytes(data[:4], "big")
    more = b"mif1" + data[12:16] + b"miaf" * 20 + b"avif"
    renamed = (8 + len(more)).to_bytes(4, "big") + b"ftyp" + more + data[size:]
    with pytest.raises(ImageError) as caught:  # its offsets are wrong now; what counts is who was asked
        decode(renamed)
    assert caught.value.reason != "format-not-supported"


def test_among_many_images_the_way_out_is_not_lost():
    raw, heif = from_bytes(CAMERA_RAW["DNG"], "a.dng"), from_bytes(b"\0\0\0\x10ftypheic\0\0\0\0", "b.heic")
    found = list(embed([raw, heif], TinyEncoder(), layers=["proj"]))
    assert [failure.uri for failure in found] == ["a.dng", "b.heic"]
    assert "Develop it to JPEG" in found[0].message and "pillow-heif" in found[1].message


def test_several_pictures_of_a_phone_are_a_jpeg_still():
    data = saved(picture(), "MPO", save_all=True, append_images=[picture(seed=1)])
    assert np.array_equal(decode(data).rgb, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
