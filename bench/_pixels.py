"""Eighteen trivial statistics of an image's pixels: the least a detector must beat to have learnt anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N_STATISTICS = 18


def statistics(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour, contrast and sharpness of one image.

    ``rgb`` : uint8 (height, width, 3). Returns float32 (18,): mean and spread of each channel; mean
    and spread of saturation; shares of almost black and almost white; the 5 % and 95 % points of
    brightness and the entropy of its histogram; mean steps to the right and down; mean Laplacian;
    how red goes with green and green with blue.
    """
    pixels = rgb.astype(np.float32)
    light = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = pixels.max(axis=2) - pixels.min(axis=2)
    inner = light[1:-1, 1:-1]
    laplacian = 4 * inner - light[:-2, 1:-1] - light[2:, 1:-1] - light[1:-1, :-2] - light[1:-1, 2:]
    values = [
        *pixels.mean(axis=(0, 1)),
        *pixels.std(axis=(0, 1)),
        saturation.mean(),
        saturation.std(),
        (light < 8).mean(),
        (light > 247).mean(),
        *np.percentile(light, [5, 95]),
        _entropy(light),
        np.abs(np.diff(light, axis=1)).mean(),
        np.abs(np.diff(light, axis=0)).mean(),
        np.abs(laplacian).mean(),
        _correlation(pixels[..., 0], pixels[..., 1]),
        _correlation(pixels[..., 1], pixels[..., 2]),
    ]
    return np.array(values, np.float32)


def _entropy(light: NDArray[np.float32]) -> float:
    """Bits, of 64 levels of brightness."""
    shares = np.bincount((light.ravel() / 4).astype(int).clip(0, 63), minlength=64) / light.size
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Of two channels; 1 where one of them is flat, since a grey image is perfectly correlated."""
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / length if length else 1.0
