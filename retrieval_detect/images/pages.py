"""Whether the first page of a TIFF is its picture: cameras put a thumbnail there, and that elsewhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from retrieval_detect.images.codes import refusal
from retrieval_detect.images.formats import DEVELOP

_NEW_KIND, _OLD_KIND, _WIDTH, _HEIGHT, _PHOTOMETRIC, _INNER, _DNG = 254, 255, 256, 257, 262, 330, 50706
_REDUCED, _OLD_REDUCED = 1, 2
_RAW = (32803, 34892)
"""Pixels of a colour filter array, and of a sensor, not developed."""
_MOST_PAGES = 16


def check_first_page(data: bytes) -> None:
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
