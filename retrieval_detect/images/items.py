"""One input, not yet read: what counts as an image's name, and the items that read a file or some bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import NoReturn, TypeVar

from retrieval_detect.errors import ImageError
from retrieval_detect.images.captions import file_beside, written_beside
from retrieval_detect.names import printable
from retrieval_detect.types import Failure, ImageItem

T = TypeVar("T")

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jxl"}
    | {".png", ".tif", ".tiff", ".webp"}
)
"""Suffixes taken for images in folders and archives, in any case. HEIC and JPEG XL are among them so
that they are reported as not supported, not passed over in silence."""

MAX_FILE_BYTES = 1 << 30
"""Larger files are refused unread."""
UNREADABLE = "unreadable"


def suffix_of(name: str) -> str:
    """The suffix in lower case with its dot; empty where there is none."""
    return PurePath(name).suffix.lower()


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image when a folder or an archive is scanned."""
    return suffix_of(name) in IMAGE_SUFFIXES


def from_bytes(data: bytes, uri: str) -> ImageItem:
    """An item for bytes at hand, such as those of standard input."""
    return ImageItem(uri, lambda: data, uri)


def file_item(path: Path, relative: str) -> ImageItem:
    """An item for a file on disk."""
    return ImageItem(
        printable(str(path)),
        partial(read_file, path),
        printable(relative),
        written=partial(written_beside, str(path), file_beside),
    )


def failed_item(uri: str, message: str) -> ImageItem:
    """An item whose ``read`` says why there is nothing: so one bad folder or archive stops no run."""
    return ImageItem(printable(uri), partial(_fail, message))


def attempted(item: ImageItem, work: Callable[[bytes], T]) -> T | Failure:
    """What ``work`` makes of an image's bytes, or why they cannot be read or used."""
    try:
        return work(item.read())
    except ImageError as error:
        return Failure(item.uri, error.reason, error.in_full)
    except OSError as error:
        return Failure(item.uri, UNREADABLE, f"the file cannot be read: {error.strerror or error}")


def inner_item(
    container: Path,
    name: str,
    folder: str,
    read: Callable[[], bytes],
    written: Callable[[], Mapping[str, str]] | None = None,
) -> ImageItem:
    """An item for what a container holds; ``folder`` : what goes before its name, if anything."""
    relative = f"{folder}/{name}" if folder else name
    return ImageItem(printable(f"{container}::{name}"), read, printable(relative), written=written)


def read_file(path: Path, offset: int = 0, size_bytes: int | None = None) -> bytes:
    """A file, or exactly ``size_bytes`` of it from ``offset`` on; an ``ImageError`` or ``OSError``."""
    try:
        stream = path.open("rb")
    except ValueError as error:  # a NUL in the name: a table may give any
        raise ImageError(f"no file can have this name: {error}", reason=UNREADABLE) from error
    with stream:
        stream.seek(offset)
        return exactly(stream.read, os.fstat(stream.fileno()).st_size if size_bytes is None else size_bytes)


def exactly(read: Callable[[int], bytes], size_bytes: int) -> bytes:
    """So many bytes of what ``read`` gives; an ``ImageError`` where they are too many, or fewer are there."""
    if size_bytes > MAX_FILE_BYTES:
        message = f"the file is too large: {size_bytes:,} bytes, the limit is {MAX_FILE_BYTES:,}"
        raise ImageError(message, reason="too-many-bytes")
    data = read(size_bytes)
    if len(data) < size_bytes:
        raise ImageError("the file is cut short: it ends before its stated size", reason="truncated")
    return data


def _fail(message: str) -> NoReturn:
    raise ImageError(message, reason=UNREADABLE)
