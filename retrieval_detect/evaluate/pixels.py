"""Eighteen trivial statistics of an image's pixels: what a detector must beat to have learnt anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NAMES = (
    *("mean red", "mean green", "mean blue", "spread of red", "spread of green", "spread of blue"),
    *("mean saturation", "spread of saturation", "black share", "white share", "skewness", "entropy"),
    *("sharpness", "sharpness at half size", "ratio of sharpnesses", "smooth share"),
    *("sharpness of red difference", "sharpness of blue difference"),
)
"""What ``statistics`` returns, in its order."""


def statistics(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour, brightness and sharpness of one image.

    ``rgb`` : uint8 (height, width, 3), both sides at least 6. Returns float32 (18,): mean and spread
    of each channel (6) and of saturation (2); shares of almost black and almost white pixels, skewness
    and entropy of brightness (4); mean Laplacian of brightness, in full and at half size, their ratio,
    the share of smooth pixels (4); mean Laplacian at half size of both colour differences (2).
    """
    pixels = rgb.astype(np.float32)
    light = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = pixels.max(axis=2) - pixels.min(axis=2)
    fine, coarse = _laplacian(light), _laplacian(_halved(light)).mean()
    values = [
        *pixels.mean(axis=(0, 1)),
        *pixels.std(axis=(0, 1)),
        saturation.mean(),
        saturation.std(),
        (light < 8).mean(),
        (light > 247).mean(),
        _skewness(light),
        _entropy(light),
        fine.mean(),
        coarse,
        coarse / (fine.mean() + 0.1),
        (fine < 1).mean(),
        *(_laplacian(_halved(pixels[..., channel] - light)).mean() for channel in (0, 2)),
    ]
    return np.array(values, np.float32)


def _laplacian(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Absolute values, inside the border."""
    around = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:]
    steps: NDArray[np.float32] = np.abs(4 * plane[1:-1, 1:-1] - around)
    return steps


def _halved(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 × 2 pixels."""
    height, width = (side // 2 for side in plane.shape)
    cells = plane[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    means: NDArray[np.float32] = cells.mean(axis=(1, 3))
    return means


def _skewness(light: NDArray[np.float32]) -> float:
    return float(((light - light.mean()) ** 3).mean() / (light.std() ** 3 + 1))


def _entropy(light: NDArray[np.float32]) -> float:
    """Bits, of 64 levels of brightness."""
    shares = np.bincount((light.ravel() / 4).astype(int).clip(0, 63), minlength=64) / light.size
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())
