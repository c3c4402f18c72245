"""A picture of where: an image with its crops' scores laid over it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from retrieval_detect.types import UInt8
    from retrieval_detect.verdicts import Regions

_FAKE, _REAL = np.array([[220, 30, 30], [30, 90, 220]], np.float32)
_OPACITY = 0.6
_STRIPES = 40
"""Red has stripes, as many across the longer side: who does not see colours sees those."""


def heat_map(rgb: UInt8, found: Regions) -> Image.Image:
    """Red with stripes where crops are closer to the crops of fakes, blue where to those of photographs.

    ``rgb`` : uint8 (height, width, 3), the upright image that was judged. Each pixel has the mean score of
    the crops over it; what no crop covers keeps its colours, the deepest colour is the largest score in
    size, and the highest crop is framed.
    """
    size = rgb.shape[:2]
    total, covered = np.zeros((2, *size), np.float32)
    for region in found.heat_map:
        x, y, width, height = region.box
        total[y : y + height, x : x + width] += region.score
        covered[y : y + height, x : x + width] += 1
    heat = total / np.maximum(covered, 1)
    heat = (heat / max(np.abs(heat).max(), 1e-9)).astype(np.float32)
    # Slanting stripes that leave half of each pair paler.
    pair = max(2, 2 * max(size) // _STRIPES)
    slant = np.arange(size[0])[:, None] + np.arange(size[1])
    stripes = np.where(slant % pair < pair // 2, 1, 0.6).astype(np.float32)
    opacity = (_OPACITY * np.abs(heat) * np.where(heat > 0, stripes, 1))[:, :, None]
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
