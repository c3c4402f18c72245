"""Sixteen images that every index remembers the vectors of, to tell whether another engine agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.encoders._pattern import scattered
from retrieval_detect.errors import EncoderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.types import Float32, Int64, UInt8

CANARY_TOLERANCE = 1e-2
"""Engines whose canary vectors differ by more than this centred cosine distance are not mixed.

With CLIP ViT-B/16, bfloat16 moves the worst canary by .002 to .008, layer by layer; another filter for
resizing by .010 to .029, and plain for quick GELU by .014 to .33.
"""

_SIDE = 256


def canary_images() -> UInt8:
    """uint8 (16, 256, 256, 3): gradients, noise of several spectra, shapes and textures.

    Made by integer arithmetic alone, so that every machine makes the same bytes.
    """
    y, x = np.indices((_SIDE, _SIDE), dtype=np.int64)
    centre = (x - 128) ** 2 + (y - 128) ** 2
    images = [
        _colour(x, y, (x + y) // 2),
        _colour(255 - centre // 128, centre // 128, x),
        _colour(_wave(x, 64), _wave(y, 64), _wave(x + y, 96)),
        _colour(_wave(x * x // 64, 128), _wave(y * y // 64, 128), _wave(centre // 16, 256)),
        _noise(1, 1),
        _noise(2, 4),
        _smooth(_noise(3, 1), 4),
        _smooth(_noise(4, 8), 16),
        _octaves(5),
        _colour(*([(x // 16 + y // 16) % 2 * 200 + 30] * 3)),
        _colour(_wave(x + 2 * y, 12), _wave(x - y, 20), _wave(3 * x + y, 28)),
        _discs(6),
        _rectangles(7),
        _colour(x ^ y, x & y, x | y),
        _colour(*([_wave(centre // 8, 64)] * 3)) // 2 + _noise(8, 2) // 2,
        _scene(x, y),
    ]
    return np.stack(images).clip(0, 255).astype(np.uint8)


def canary_vectors(encoder: Encoder, layers: Sequence[str]) -> dict[str, Float32]:
    """The canaries' vectors by this encoder and engine.

    Returns for each layer float32 (16, d), NOT unit norm. Raises ``EncoderError`` if the engine
    gives anything that is not finite.
    """
    batch = np.stack([encoder.prepare(image) for image in canary_images()])
    vectors = dict(encoder.encode(batch, layers))
    broken = [layer for layer, rows in vectors.items() if not np.isfinite(rows).all()]
    if broken:
        raise EncoderError(
            f"{encoder.spec.name} gives infinite or undefined numbers in {encoder.spec.precision} "
            f"(layer {broken[0]})",
            hint="Use another precision: bfloat16 or float32 where float16 overflows.",
        )
    return vectors


def centred_distance(a: Float32, b: Float32) -> float:
    """Largest cosine distance between rows of ``a`` and ``b`` after taking off each set's mean.

    ``a``, ``b`` : float32 (n, d), of the same images. Embeddings share a large common part, which
    would hide a difference: without it 0 still means equal, and 1 means nothing in common.
    """
    left, right = _unit(a.astype(np.float64)), _unit(b.astype(np.float64))
    return float(np.max(1 - np.sum(left * right, axis=1)).clip(0, 2))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = rows - rows.mean(axis=0)
    unit: NDArray[np.float64] = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(
        np.finfo(np.float64).tiny
    )
    return unit


# ---------------------------------------------------------------- painting; int64 (256, 256, 3), any range


def _colour(red: Int64, green: Int64, blue: Int64) -> Int64:
    return np.stack([red, green, blue], axis=2)


def _wave(phase: Int64, period: int) -> Int64:
    """Triangle wave, 0…255."""
    return np.abs(phase % period * 2 - period) * 255 // period


def _noise(seed: int, block: int) -> Int64:
    """White noise, 0…255, in blocks of ``block`` pixels."""
    cells = (scattered(seed, _SIDE // block, _SIDE // block, 3) >> np.uint64(56)).astype(np.int64)
    return cells.repeat(block, axis=0).repeat(block, axis=1)


def _smooth(image: Int64, radius: int) -> Int64:
    """Box filter, wrapping round, with the contrast brought back."""
    for axis in (0, 1):
        image = sum(np.roll(image, step, axis) for step in range(radius)) // radius  # type: ignore[assignment]
    low, high = image.min(), image.max()
    stretched: Int64 = (image - low) * 255 // (high - low)
    return stretched


def _octaves(seed: int) -> Int64:
    """Noise whose power falls with frequency, as that of photographs does."""
    blocks = (64, 32, 16, 8, 4, 2, 1)
    layers = [_noise(seed + i, block) * block for i, block in enumerate(blocks)]
    mixed: Int64 = np.sum(layers, axis=0) // sum(blocks)
    return mixed


def _discs(seed: int) -> Int64:
    y, x = np.indices((_SIDE, _SIDE), dtype=np.int64)
    image = np.full((_SIDE, _SIDE, 3), 235, np.int64)
    for row, column, radius, *colour in (scattered(seed, 24, 6) >> np.uint64(56)).astype(np.int64):
        image[(y - row) ** 2 + (x - column) ** 2 < (radius // 5 + 6) ** 2] = colour
    return image


def _rectangles(seed: int) -> Int64:
    image = np.full((_SIDE, _SIDE, 3), 20, np.int64)
    for top, left, height, width, *colour in (scattered(seed, 24, 7) >> np.uint64(56)).astype(np.int64):
        image[top : top + height // 3 + 4, left : left + width // 3 + 4] = colour
    return image


def _scene(x: Int64, y: Int64) -> Int64:
    """A sky, a sun, hills and grain."""
    image = _colour(90 + y // 4, 130 + y // 3, 250 - y // 4)
    image[(x - 190) ** 2 + (y - 60) ** 2 < 900] = (255, 240, 190)
    image[y > 150 + _wave(x, 160) // 6] = (60, 110, 50)
    image[y > 190 + _wave(x + 70, 220) // 5] = (40, 70, 30)
    return image + _noise(9, 1) // 8 - 16
