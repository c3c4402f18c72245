"""RGB pixels → the square that a network sees. Pillow only, so that every engine gets the same pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from retrieval_detect.types import Preprocessing, UInt8

MAX_ASPECT = 4
"""Up to this ratio of sides the whole image is resized, exactly as open_clip does it; of a longer
one only the middle, so that no shape costs more than ``MAX_ASPECT`` · size² output pixels."""

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def prepare(rgb: UInt8, preprocessing: Preprocessing) -> UInt8:
    """Resize and crop one image.

    ``rgb`` : uint8 (height, width, 3), C order. Returns uint8 (size, size, 3), C order.

    ``"clip"`` and ``"squash"`` equal open_clip's own transform (torchvision's Resize and CenterCrop
    on a Pillow image) in every pixel, for sides up to 4 : 1. ``"crop"`` takes the centre without
    resizing; sides shorter than ``size`` are filled by reflection, because black borders would tell
    small images from large ones.
    """
    size = preprocessing.size
    if preprocessing.mode == "crop":
        return _reflected(_centre(rgb, size, size), size)
    resample = _FILTERS[preprocessing.interpolation]
    if preprocessing.mode == "squash":
        return _resized(rgb, size, size, resample)
    rgb = _without_far_ends(rgb)
    height, width = rgb.shape[:2]
    # int() and not round(): torchvision's rule for the longer side.
    return _centre(
        _resized(
            rgb, int(size * height / min(height, width)), int(size * width / min(height, width)), resample
        ),
        size,
        size,
    )


def _resized(rgb: UInt8, height: int, width: int, resample: Image.Resampling) -> UInt8:
    if rgb.shape[:2] == (height, width):
        return np.ascontiguousarray(rgb)
    return np.asarray(Image.fromarray(rgb).resize((width, height), resample))


def _without_far_ends(rgb: UInt8) -> UInt8:
    longest = MAX_ASPECT * min(rgb.shape[:2])
    return _centre(rgb, longest, longest)


def _centre(rgb: UInt8, height: int, width: int) -> UInt8:
    """The middle ``height`` × ``width`` pixels, or fewer where there are fewer."""
    top = max(0, round((rgb.shape[0] - height) / 2))
    left = max(0, round((rgb.shape[1] - width) / 2))
    return np.ascontiguousarray(rgb[top : top + height, left : left + width])


def _reflected(rgb: UInt8, size: int) -> UInt8:
    missing_rows, missing_columns = size - rgb.shape[0], size - rgb.shape[1]
    if not missing_rows and not missing_columns:
        return rgb
    rows = (missing_rows // 2, missing_rows - missing_rows // 2)
    columns = (missing_columns // 2, missing_columns - missing_columns // 2)
    return np.pad(rgb, (rows, columns, (0, 0)), mode="reflect")
