"""Images as callers have them → items: paths, bytes, open files, Pillow's images, arrays of pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeAlias

import numpy as np
from PIL import Image

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.codes import refusal
from retrieval_detect.images.items import UNREADABLE, file_item, from_bytes
from retrieval_detect.images.sources import scan
from retrieval_detect.names import printable
from retrieval_detect.types import ImageItem

if TYPE_CHECKING:
    from retrieval_detect.types import UInt8

    Given: TypeAlias = (
        "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | UInt8 | ImageItem"
    )
    GivenMany: TypeAlias = "str | os.PathLike[str] | Iterable[Given]"

_OF_PNG = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""Pillow's modes that a PNG holds without loss."""
_WITHOUT_A_RANGE = frozenset({"F", "I"})


def items_of(images: GivenMany) -> Iterator[ImageItem]:
    """Items of several images: all that a folder, archive, table or pattern holds, or each of an iterable.

    Of a path, see ``scan``; of an iterable, ``item_of``. An image without a name is named by its place:
    ``[0]``. Raises ``UsageError`` at the call, for one image alone and as ``scan`` does.
    """
    if isinstance(images, str | os.PathLike):
        return scan([os.fspath(images)])
    pixels = getattr(images, "ndim", 1) not in (1, 4)  # tensors, too: their rows would be grey images
    if pixels or isinstance(images, ImageItem) or _is_one(images) or not isinstance(images, Iterable):
        raise UsageError(
            f"{_kind(images)} was given where several images are meant",
            hint="Give a list of images, or the path of a folder.",
        )
    return (item_of(image, name=f"[{i}]") for i, image in enumerate(images))


def item_of(image: Given, *, name: str = "-") -> ImageItem:
    """One image as an item.

    ``image`` : a path; the bytes of a file; a file opened in binary mode, read from where it stands; a
    Pillow image, turned upright as its EXIF says; or pixels, uint8 (height, width, 3) in RGB or (height,
    width). ``name`` : of one that has none. Pixels and Pillow images become PNG files, without loss; a
    sha256 is of those. All but paths are read now, since their owner may change them. What cannot be used
    is an item whose ``read`` says so in an ``ImageError``.
    """
    if isinstance(image, ImageItem):
        return image
    if isinstance(image, str | os.PathLike):
        text, why = os.fsdecode(image), ""
        if os.path.isdir(text):  # noqa: PTH112 - a name that no file can have is no folder, either
            why = "it is a folder; query_many takes the images that it holds"
        elif "://" in text:
            why = "it is an address, and rd fetches nothing; download it, or give the bytes"
        path = Path(text)
        return _failed(text, refusal(UNREADABLE, why)) if why else file_item(path, path.name)
    own = getattr(image, "filename", "") or getattr(image, "name", "")
    uri = own if isinstance(own, str) and own else name
    try:
        return from_bytes(_file_of(image), printable(uri))
    except ImageError as error:
        return _failed(uri, error)


def _file_of(image: Any) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _png(image)
    if hasattr(image, "read"):
        try:
            data = image.read()
        except Exception as error:  # members of archives and answers of servers raise anything
            raise refusal(UNREADABLE, str(error)) from error
        if isinstance(data, bytes | bytearray):
            return bytes(data)
        raise refusal(UNREADABLE, 'it was opened as text: open(path, "rb")')
    if not hasattr(image, "__array__"):
        raise refusal("not-an-image", f"{_kind(image)} was given")
    try:
        pixels = np.asarray(image)
    except Exception as error:  # a tensor with a gradient, on another device, of a type that numpy lacks
        raise refusal("pixel-type", str(error)) from error
    if pixels.dtype == np.uint8 and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        return _png(Image.fromarray(np.ascontiguousarray(pixels)))
    raise refusal(
        "pixel-type",
        f"an array of {pixels.dtype} {pixels.shape} was given; pixels are uint8, (height, width, 3) in RGB "
        "or (height, width)",
    )


def _png(image: Image.Image) -> bytes:
    if image.mode in _WITHOUT_A_RANGE:
        raise refusal("pixel-type", f"a Pillow image of mode {image.mode} was given: convert it to RGB")
    file = io.BytesIO()
    try:
        kept = image if image.mode in _OF_PNG else image.convert("RGB")
        kept.save(file, "PNG", compress_level=1, exif=image.getexif())
    except Exception as error:  # Pillow reads the pixels now: its decoders raise anything
        raise refusal("undecodable", str(error)) from error
    return file.getvalue()


def _is_one(image: object) -> bool:
    return isinstance(image, bytes | bytearray | memoryview | Image.Image) or hasattr(image, "read")


def _kind(image: object) -> str:
    return f"one {type(image).__name__}"


def _failed(uri: str, error: ImageError) -> ImageItem:
    def read() -> NoReturn:
        raise error

    return ImageItem(printable(uri), read)
