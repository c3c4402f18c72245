"""Bytes → upright RGB pixels, or one stable reason why not. Every decision is listed in docs/images.md.

Safe for hostile bytes and for threads: the header is judged before a pixel is decoded, only the
formats below are tried (Pillow knows others, one of which runs a program), and neither Pillow's
globals nor the warning filters are touched. (On broken metadata Pillow issues Python warnings.)
"""

from __future__ import annotations

import io
from collections.abc import Callable
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
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from retrieval_detect.errors import ImageError
from retrieval_detect.types import DecodedImage

try:
    import simplejpeg
except ImportError:  # no wheel for this machine: Pillow gives the same pixels, and overlooks some damage
    simplejpeg = None

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from retrieval_detect.types import UInt8

REASONS: dict[str, str] = {
    "corrupt": "the file is damaged",
    "format-not-supported": "the format is not supported",
    "not-an-image": "this is not an image in a format rd reads",
    "pixel-type": "the pixels are of a type without a known range",
    "too-elongated": "the image is too long for its width",
    "too-many-bytes": "the file is too large",
    "too-many-pixels": "the image has too many pixels",
    "too-small": "the image is too small",
    "truncated": "the file is cut short",
    "undecodable": "the image cannot be decoded",
    "unreadable": "the file cannot be read",
}
"""Reason code of an ``ImageError`` → what it means. Codes are stable; sentences may change."""

NOTES: dict[str, str] = {
    "alpha-on-white": "transparent parts were laid on white",
    "cmyk-converted": "CMYK was converted to RGB without its colour profile",
    "exif-rotated": "turned upright as its EXIF says",
    "first-frame": "only the first of several frames or pages was read",
    "grey-16-bit": "16-bit grey was scaled to 8 bits",
    "icc-ignored": "the colour profile was not applied",
    "metadata-unreadable": "broken metadata was left out",
}
"""Code in ``DecodedImage.notes`` → what was done."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused by its header alone. ``max_aspect`` is the longer side over the shorter."""

    max_pixels: int = 64_000_000
    max_aspect: float = 20.0
    min_side: int = 16


DEFAULT_LIMITS = Limits()


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
    image = _READERS[_format_of(data)](io.BytesIO(data))
    _check_size(image.size, limits)
    _check_pixel_type(image)
    # Pillow turns TIFFs itself while loading and drops the tag, so it is looked at before.
    turned = isinstance(image, TiffImageFile) and image.tag_v2.get(ExifTags.Base.Orientation) in _UPRIGHT
    rgb, notes = _pixels(image, data)
    orientation, more = _metadata(image)
    if orientation in _UPRIGHT:
        rgb, turned = np.ascontiguousarray(_UPRIGHT[orientation](rgb)), True
    notes += more + ["exif-rotated"] * turned
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

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\x00\x00\x00\x0cJXL ", "JXL"),
    (b"\xff\x0a", "JXL"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1"), "HEIC")
_CONVERTERS = {"HEIC": "pillow-heif", "JXL": "pillow-jxl-plugin"}
_LOOKALIKES = (
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML text"),
    (b"%pdf", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with git lfs pull"),
)


def _format_of(data: bytes) -> str:
    name = _sniff(data)
    if name in _READERS:
        return name
    if name in _CONVERTERS:
        hint = f"Convert it to PNG first, for instance with {_CONVERTERS[name]}."
        raise _refusal("format-not-supported", name, hint=hint)
    start = data[:64].lstrip().lower()
    kind = next((kind for prefix, kind in _LOOKALIKES if start.startswith(prefix)), "")
    detail = kind if data else "the file is empty"
    raise _refusal("not-an-image", detail, hint=f"rd reads {', '.join(_READERS)}.")


def _sniff(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":  # the brand, a version, then compatible brands; mif1 alone means little
        found = {_BRANDS[brand] for i in (8, *range(16, 48, 4)) if (brand := data[i : i + 4]) in _BRANDS}
        return "AVIF" if "AVIF" in found else next(iter(found), "")
    return next((name for signature, name in _SIGNATURES if data.startswith(signature)), "")


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    shape = f"{width} × {height}"
    if min(size) < max(limits.min_side, 1):
        raise _refusal("too-small", f"{shape}, the least is {limits.min_side} on each side")
    if width * height > limits.max_pixels:
        raise _refusal("too-many-pixels", f"{shape}, the limit is {limits.max_pixels:,} pixels")
    if max(size) > limits.max_aspect * min(size):
        raise _refusal("too-elongated", f"{shape}, the limit is {limits.max_aspect:g} to 1")


def _check_pixel_type(image: ImageFile) -> None:
    kind = f"Pillow mode {image.mode}" if image.mode in ("F", "I", "LAB") else ""
    if isinstance(image, TiffImageFile) and image.mode.startswith("I;16"):
        bits, photometric = image.tag_v2.get(258), image.tag_v2.get(262)
        if (bits, photometric) != ((16,), 1):  # 1: black is zero
            kind = "12-bit or inverted grey"
    if kind:
        raise _refusal("pixel-type", kind, hint="Convert it to 8 bits per channel first.")


# ---------------------------------------------------------------- pixels


def _pixels(image: ImageFile, data: bytes) -> tuple[UInt8, list[str]]:
    if image.format == "JPEG" and (rgb := _jpeg(image, data)) is not None:
        return rgb, []
    image.load()
    if image.mode.startswith("I;16"):
        return _grey_16_bit(image)
    if image.has_transparency_data:
        return _on_white(image)
    return np.array(image.convert("RGB")), ["cmyk-converted"] * (image.mode == "CMYK")


def _jpeg(image: ImageFile, data: bytes) -> UInt8 | None:
    """The same pixels as Pillow's (both are libjpeg-turbo), but damage is an error and not a grey smear.

    ``None`` is left to Pillow: CMYK, and sampling factors that TurboJPEG does not know.
    """
    if simplejpeg is None or image.mode not in ("RGB", "L"):
        return None
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if (width, height) != image.size:
        raise _refusal("corrupt", "it states two sizes")
    rgb: UInt8 = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    return rgb


def _grey_16_bit(image: ImageFile) -> tuple[UInt8, list[str]]:
    grey = np.array(image).astype(np.uint32)
    key = image.info.get("transparency")
    notes = ["grey-16-bit"]
    if isinstance(key, int) and np.any(hidden := grey == key):
        grey[hidden] = 65535
        notes.append("alpha-on-white")
    eight = ((grey * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(eight[:, :, None], 3, axis=2), notes


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


def _metadata(image: ImageFile) -> tuple[int, list[str]]:
    """EXIF orientation and notes, asked for after the pixels: a PNG may keep its EXIF behind them."""
    notes = ["icc-ignored"] * ("icc_profile" in image.info)
    orientation = 1
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
        notes += ["first-frame"] * bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - whatever is wrong with the metadata, the picture itself is good
        notes.append("metadata-unreadable")
    return orientation, notes


# ---------------------------------------------------------------- errors


def _refusal(reason: str, detail: str = "", *, hint: str = "") -> ImageError:
    message = f"{REASONS[reason]}: {detail}" if detail else REASONS[reason]
    return ImageError(message, reason=reason, hint=hint)


def _explain(error: Exception, data: bytes) -> ImageError:
    """A decoder's exception as a refusal; its own words are kept, for they say where the damage is."""
    words = str(error)
    if isinstance(error, MemoryError):
        return _refusal("undecodable", "out of memory")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _refusal("too-many-pixels", words)
    lowered = words.lower()
    if "truncated" in lowered or "premature end of jpeg" in lowered or _is_cut_webp(data):
        return _refusal("truncated", words)
    if "corrupt" in lowered or "broken" in lowered:
        return _refusal("corrupt", words)
    return _refusal("undecodable", words)


def _is_cut_webp(data: bytes) -> bool:
    """The one decoder that does not say so; the header of a RIFF file states its length."""
    return data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)
