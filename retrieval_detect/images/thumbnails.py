"""Small pictures of images, for people to look at. Nothing is judged by them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from retrieval_detect.types import UInt8

STORED_SIDE = 128
"""Longer side of the pictures that an index keeps, where it is asked to."""
_QUALITY = 60


def thumbnail(rgb: UInt8, *, side: int = STORED_SIDE) -> bytes:
    """A WebP file without metadata, at most ``side`` pixels long. ``rgb`` : uint8 (height, width, 3)."""
    return encoded(Image.fromarray(rgb), side)[0]


def encoded(image: Image.Image, side: int) -> tuple[bytes, int, int]:
    """``thumbnail`` of an image that may be changed, with its width and height."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY)
    return file.getvalue(), image.width, image.height
