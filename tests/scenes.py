"""A scene that no format stores trivially, and what Pillow reads from a file."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image


def picture(width=97, height=61, mode="RGB", seed=0):
    """A smooth scene with some noise, so that no format stores it trivially."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9) + np.cos(y / 7), x / width * 2 - 1, y / height * 2 - 1], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 12, waves.shape)
    return Image.fromarray((waves * 55 + 127 + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def reference(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
