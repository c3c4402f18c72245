"""A picture of where: an image with its crops' scores laid over it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from retrieval_detect.types import Float32, UInt8
    from retrieval_detect.verdicts import Regions

_FAKE, _REAL = np.array([[220, 30, 30], [30, 90, 220]], np.float32)
_OPACITY = 0.6
_STRIPES = 40
"""Red has stripes, as many across the longer side: who does not see colours sees those."""


def heat_map(rgb: UInt8, found: Regions) -> Image.Image:
    """Red with stripes where crops are closer to the crops of fakes, blue where to those of photographs.

    ``rgb`` : uint8 (height, width, 3), the upright image that was judged. What no crop covers keeps its
    colours, the deepest colour is the largest score in size, and the highest crop is framed.
    """
    heat = _heat(found, rgb.shape[0], rgb.shape[1])
    opacity = (_OPACITY * np.abs(heat) * np.where(heat > 0, _stripes(heat.shape), 1))[:, :, None]
    colour = np.where(heat[:, :, None] > 0, _FAKE, _REAL)
    image = Image.fromarray(np.rint(rgb * (1 - opacity) + colour * opacity).astype(np.uint8))
    x, y, width, height = found.highest.box
    outline = max(1, min(image.size) // 200)
    frame = (x, y, x + width - 1, y + height - 1)
    ImageDraw.Draw(image).rectangle(frame, outline=(255, 255, 255), width=outline)
    return image


def heat_map_png(rgb: UInt8, found: Regions) -> bytes:
    """``heat_map`` as a PNG file."""
    file = io.BytesIO()
    heat_map(rgb, found).save(file, "PNG")
    return file.getvalue()


def _stripes(shape: tuple[int, ...]) -> Float32:
    """Slanting stripes that leave half of each pair paler, float32 (height, width)."""
    height, width = shape
    pair = max(2, 2 * max(shape) // _STRIPES)
    slant = np.arange(height)[:, None] + np.arange(width)
    return np.where(slant % pair < pair // 2, 1, 0.6).astype(np.float32)


def _heat(found: Regions, height: int, width: int) -> Float32:
    """Mean score of the crops over each pixel, float32 (height, width), scaled to -1…1; 0 where none is."""
    total, covered = np.zeros((2, height, width), np.float32)
    for region in found.heat_map:
        x, y, w, h = region.box
        total[y : y + h, x : x + w] += region.score
        covered[y : y + h, x : x + w] += 1
    heat = total / np.maximum(covered, 1)
    scaled: Float32 = (heat / max(np.abs(heat).max(), 1e-9)).astype(np.float32)
    return scaled
