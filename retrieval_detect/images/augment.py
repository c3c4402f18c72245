"""Random blur, JPEG, crop and flip of training images. Everything drawn comes from the caller's generator."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from retrieval_detect.types import UInt8

MAX_SIGMA = 3.0
QUALITIES = (30, 100)


def blur_and_jpeg(rgb: UInt8, rng: np.random.Generator, *, probability: float) -> UInt8:
    """Gaussian blur of sigma U(0, 3), then JPEG of quality U{30…100}, each with ``probability``.

    ``rgb`` : uint8 (height, width, 3); returns the same shape. Wang et al. 2020 (CNNDetection), §4.1,
    and UniversalFakeDetect; Pillow stands for both of their JPEG encoders and for their blur.
    """
    image = Image.fromarray(rgb)
    if rng.random() < probability:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, MAX_SIGMA)))
    if rng.random() < probability:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(QUALITIES[0], QUALITIES[1], endpoint=True)))
        image = Image.open(buffer)
    return np.asarray(image)


def crop_and_flip(rgb: UInt8, rng: np.random.Generator, *, size: int) -> UInt8:
    """A random square of ``size``, mirrored every other time.

    ``rgb`` : uint8 (height, width, 3), both sides at least ``size``. Returns uint8 (size, size, 3), C order.
    """
    top, left = (int(rng.integers(side - size, endpoint=True)) for side in rgb.shape[:2])
    square = rgb[top : top + size, left : left + size]
    return np.ascontiguousarray(square[:, ::-1] if rng.random() < 0.5 else square)
