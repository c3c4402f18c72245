"""RGB pixels → the square that a network sees, by torch or, as a reference, by Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval_detect.types import Preprocessing, UInt8

MAX_ASPECT = 4
"""Up to this ratio of sides the whole image is resized, exactly as open_clip does it; of a longer
one only the middle, so that no shape costs more than ``MAX_ASPECT`` · size² output pixels."""


def prepare(rgb: UInt8, preprocessing: Preprocessing, *, decoder: str = "pillow") -> UInt8:
    """Resize and crop one image.

    ``rgb`` : uint8 (height, width, 3), C order. Returns uint8 (size, size, 3), C order.

    ``"clip"`` and ``"squash"`` equal open_clip's own transform (torchvision's Resize and CenterCrop
    on a Pillow image) for sides up to 4 : 1: with decoder ``"pillow"`` in every pixel; with ``"torch"``,
    which is several times as fast, to a step or two of 255 in one pixel of several hundred. ``"crop"``
    takes the centre without resizing; sides shorter than ``size`` are filled by reflection, because
    black borders would tell small images from large ones.
    """
    size, resize = preprocessing.size, _RESIZERS[decoder]
    if preprocessing.mode == "crop":
        return _reflected(_centre(rgb, size, size), size)
    if preprocessing.mode == "squash":
        height, width = size, size
        if rgb.shape[0] > rgb.shape[1]:  # Pillow may flatten before it narrows, and rounds in between
            resize = _by_pillow
    else:
        longest = MAX_ASPECT * min(rgb.shape[:2])
        rgb = _centre(rgb, longest, longest)
        # int() and not round(): torchvision's rule for the longer side.
        height, width = (int(size * side / min(rgb.shape[:2])) for side in rgb.shape[:2])
    if rgb.shape[:2] != (height, width):
        rgb = resize(rgb, height, width, preprocessing.interpolation)
    return _centre(rgb, size, size)


def _by_pillow(rgb: UInt8, height: int, width: int, interpolation: str) -> UInt8:
    resample = Image.Resampling[interpolation.upper()]
    return np.asarray(Image.fromarray(rgb).resize((width, height), resample))


def _by_torch(rgb: UInt8, height: int, width: int, interpolation: str) -> UInt8:
    """In 8-bit arithmetic throughout, on the pixels where they lie."""
    import torch

    pixels = torch.from_numpy(np.require(rgb, requirements=["C", "W"])).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels, (height, width), mode=interpolation, antialias=True)
    square: UInt8 = resized[0].permute(1, 2, 0).numpy()
    return square


_RESIZERS: dict[str, Callable[[UInt8, int, int, str], UInt8]] = {"pillow": _by_pillow, "torch": _by_torch}


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
