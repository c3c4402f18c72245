"""Bytes → upright RGB pixels, or one stable reason why not. Every decision is listed in docs/images.md.

Safe for hostile bytes and for threads: the header is judged before a pixel is decoded, only the
formats below are tried (Pillow knows others, one of which runs a program), and neither Pillow's
globals nor the warning filters are touched. (On broken metadata Pillow issues Python warnings.)
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from retrieval_detect.errors import ImageError
from retrieval_detect.images.codes import refusal
from retrieval_detect.images.formats import DEVELOP, format_of
from retrieval_detect.images.jpeg import strict_pixels
from retrieval_detect.types import DecodedImage

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from retrieval_detect.types import UInt8


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused by its header alone. ``max_aspect`` is the longer side over the shorter."""

    max_pixels: int = 64_000_000
    max_aspect: float = 20.0
    min_side: int = 16


DEFAULT_LIMITS = Limits()

_ORIENTATION = ExifTags.Base.Orientation
_XMP = ("xmp", "XML:com.adobe.xmp")


def decode(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> DecodedImage:
    """Decode one image file.

    Returns its first frame, upright, with ``rgb`` uint8 (height, width, 3), C order, writable.
    Raises ``ImageError`` with a code of ``REASONS``, and nothing else whatever the bytes are.
    """
    try:
        return _decode(data, limits)
    except ImageError:
        raise
    except Exception as error:  # hostile bytes make decoders raise anything
        raise _explain(error, data) from error


def _decode(data: bytes, limits: Limits) -> DecodedImage:
    name = format_of(data)
    if name == "TIFF":
        _check_first_page(data)
    image = _READERS[name](io.BytesIO(data))
    _check_size(image.size, limits)
    _check_pixel_type(image)
    # Pillow turns TIFFs itself while loading, and forgets why; a PNG may keep its EXIF behind the pixels.
    early = _orientation(image) if name == "TIFF" else None
    rgb, notes = _pixels(image, data)
    orientation, turned = early or _orientation(image)
    if early is None and orientation in _UPRIGHT:
        rgb = np.ascontiguousarray(_UPRIGHT[orientation](rgb))
    notes += turned + ["icc-ignored"] * ("icc_profile" in image.info) + ["first-frame"] * _has_more(image)
    height, width = rgb.shape[:2]
    return DecodedImage(rgb, width, height, str(image.format), tuple(sorted(notes)))


# ---------------------------------------------------------------- header

_READERS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "AVIF": AvifImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "JPEG": JpegImageFile,
    "JPEG2000": Jpeg2KImageFile,
    "PNG": PngImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
}
# The readers are called without Image.open, which warns about large images where rd refuses them.


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    shape = f"{width} × {height}"
    if min(size) < max(limits.min_side, 1):
        raise refusal("too-small", f"{shape}, the least is {limits.min_side} on each side")
    if width * height > limits.max_pixels:
        raise refusal("too-many-pixels", f"{shape}, the limit is {limits.max_pixels:,} pixels")
    if max(size) > limits.max_aspect * min(size):
        raise refusal("too-elongated", f"{shape}, the limit is {limits.max_aspect:g} to 1")


def _check_pixel_type(image: ImageFile) -> None:
    kind = f"Pillow mode {image.mode}" if image.mode in ("F", "I", "LAB") else ""
    if isinstance(image, TiffImageFile) and image.mode.startswith("I;16"):
        bits, photometric = image.tag_v2.get(258), image.tag_v2.get(262)
        if (bits, photometric) != ((16,), 1):  # 1: black is zero
            kind = "12-bit or inverted grey"
    if kind:
        raise refusal("pixel-type", kind, hint="Convert it to 8 bits per channel first.")


# ---------------------------------------------------------------- pages of a TIFF
#
# Whether the first is the picture: cameras put a thumbnail there, and that elsewhere.

_NEW_KIND, _OLD_KIND, _WIDTH, _HEIGHT, _PHOTOMETRIC, _INNER, _DNG = 254, 255, 256, 257, 262, 330, 50706
_REDUCED, _OLD_REDUCED = 1, 2
_RAW = (32803, 34892)
"""Pixels of a colour filter array, and of a sensor, not developed."""
_MOST_PAGES = 16


def _check_first_page(data: bytes) -> None:
    """Refuse camera raw, and a first page that is a smaller copy of the picture; ``ImageError`` says so.

    A first page is the picture unless the file says otherwise: levels of a pyramid, masks and further pages
    are of no interest then. What cannot be read is left to the decoder.
    """
    pages = list(_pages(data))
    if not pages:
        return
    first, *others = pages
    if _DNG in first or any(page.get(_PHOTOMETRIC) in _RAW for page in pages):
        raise refusal("format-not-supported", "camera raw", hint=DEVELOP)
    reduced = bool(first.get(_NEW_KIND, 0) & _REDUCED) or first.get(_OLD_KIND) == _OLD_REDUCED
    inner = others[: len(_offsets(first))]
    if (reduced and (first.next or _INNER in first)) or any(_area(page) > _area(first) for page in inner):
        size = f"{first.get(_WIDTH)} × {first.get(_HEIGHT)}"
        detail = f"a TIFF whose first page, {size}, is a reduced copy of the picture"
        hint = "Save the picture itself as a TIFF or JPEG of one page first."
        raise refusal("format-not-supported", detail, hint=hint)


def _pages(data: bytes) -> Iterator[ImageFileDirectory_v2]:
    """The first page, the pictures it holds itself, then the pages behind it, as far as they can be read."""
    with suppress(Exception):  # hostile bytes make Pillow's parser raise anything
        first = following = _page(data, None)
        yield first
        for offset in _offsets(first):
            yield _page(data, offset)
        for _ in range(_MOST_PAGES):
            if not following.next:
                return
            following = _page(data, following.next)
            yield following


def _page(data: bytes, offset: int | None) -> ImageFileDirectory_v2:
    page = ImageFileDirectory_v2(data[: 16 if data[2:4] in (b"\x2b\x00", b"\x00\x2b") else 8])
    stream = io.BytesIO(data)
    stream.seek(page.next if offset is None else offset)
    page.load(stream)
    return page


def _offsets(page: ImageFileDirectory_v2) -> tuple[int, ...]:
    found = page.get(_INNER, ())
    return (found if isinstance(found, tuple) else (found,))[:_MOST_PAGES]


def _area(page: ImageFileDirectory_v2) -> int:
    return int(page.get(_WIDTH, 0)) * int(page.get(_HEIGHT, 0))


# ---------------------------------------------------------------- pixels


def _pixels(image: ImageFile, data: bytes) -> tuple[UInt8, list[str]]:
    if image.format == "JPEG" and image.mode in ("RGB", "L"):  # CMYK is left to Pillow
        found = strict_pixels(data, image.size, lambda: np.array(image.convert("RGB")))
        if found is not None:
            return found[0], ["jpeg-mistake"] * found[1]
    stored = image.tile[0].args if image.format == "PNG" and image.tile else None
    image.load()
    if image.mode.startswith("I;16"):
        return _grey_16_bit(image)
    if isinstance(stored, str) and stored in _LARGEST and "transparency" in image.info:
        return _without_colour(image, data, stored)
    if image.has_transparency_data:
        return _on_white(image)
    return np.array(image.convert("RGB")), ["cmyk-converted"] * (image.mode == "CMYK")


def _grey_16_bit(image: ImageFile) -> tuple[UInt8, list[str]]:
    grey = np.array(image).astype(np.uint32)
    key = image.info.get("transparency")
    notes = ["grey-16-bit"]
    if isinstance(key, int) and np.any(hidden := grey == key):
        grey[hidden] = 65535
        notes.append("alpha-on-white")
    eight = ((grey * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(eight[:, :, None], 3, axis=2), notes


_LARGEST = {"1": 1, "L;2": 3, "L;4": 15, "L": 255, "RGB": 255, "RGB;16B": 65535}
"""Pillow's name for the samples of a PNG without palette and alpha → the largest value of one."""


def _without_colour(image: ImageFile, data: bytes, stored: str) -> tuple[UInt8, list[str]]:
    """White where samples, as stored, equal the transparent colour; of it the low bits count (PNG, tRNS)."""
    largest = _LARGEST[stored]
    key = np.atleast_1d(image.info.pop("transparency")).astype(np.uint16) & largest
    rgb = np.array(image.convert("RGB"))
    if stored == "RGB;16B":
        low = PngImageFile(io.BytesIO(data))
        low.tile = [low.tile[0]._replace(args="RGB;16L")]  # the bytes of each sample in the other order
        hidden = (rgb == key >> 8).all(axis=2) & (np.array(low) == key & 255).all(axis=2)
    else:
        hidden = (rgb == key * (255 // largest)).all(axis=2)
    rgb[hidden] = 255
    return rgb, ["alpha-on-white"] * bool(hidden.any())


def _on_white(image: ImageFile) -> tuple[UInt8, list[str]]:
    rgba = image.convert("RGBA")
    if np.asarray(rgba.getchannel("A")).min() == 255:
        return np.array(rgba.convert("RGB")), []
    canvas = Image.new("RGBA", rgba.size, "white")
    canvas.alpha_composite(rgba)
    return np.array(canvas.convert("RGB")), ["alpha-on-white"]


# EXIF orientation → what brings (height, width, 3) upright.
_UPRIGHT: dict[int, Callable[[UInt8], UInt8]] = {
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.swapaxes(0, 1),
    6: lambda rgb: rgb[::-1].swapaxes(0, 1),
    7: lambda rgb: rgb[::-1, ::-1].swapaxes(0, 1),
    8: lambda rgb: rgb[:, ::-1].swapaxes(0, 1),
}


def _orientation(image: ImageFile) -> tuple[int, list[str]]:
    """As EXIF says, else as XMP says, which is what Pillow's ``exif_transpose`` and Windows do; and notes."""
    try:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
        if orientation not in _UPRIGHT:
            return 1, []
        return orientation, ["exif-rotated" if _stands_in_exif(image) else "xmp-rotated"]
    except Exception:  # noqa: BLE001 - whatever is wrong with the metadata, the picture itself is good
        return 1, ["metadata-unreadable"]


def _stands_in_exif(image: ImageFile) -> bool:
    if isinstance(image, TiffImageFile):
        return _ORIENTATION in image.tag_v2
    without_xmp = Image.new("1", (1, 1))
    without_xmp.info = {name: value for name, value in image.info.items() if name not in _XMP}
    return _ORIENTATION in without_xmp.getexif()


def _has_more(image: ImageFile) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - pages behind the first may be broken
        return False


# ---------------------------------------------------------------- errors


def _explain(error: Exception, data: bytes) -> ImageError:
    """A decoder's exception as a refusal; its own words are kept, for they say where the damage is."""
    words = str(error)
    if isinstance(error, MemoryError):
        return refusal("undecodable", "out of memory")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return refusal("too-many-pixels", words)
    lowered = words.lower()
    # A decoder of WebP does not say so; the header of a RIFF file states its length.
    cut = data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    if cut or "truncated" in lowered or "premature end of jpeg" in lowered:
        return refusal("truncated", words)
    if "corrupt" in lowered or "broken" in lowered:
        return refusal("corrupt", words)
    return refusal("undecodable", words)
