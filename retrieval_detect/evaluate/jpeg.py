"""What a file tells of its own compression, and what its pixels tell of an earlier one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Int64

    Float64: TypeAlias = NDArray[np.float64]

SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
"""Pillow's number of a sampling → its name; any other is -1."""

_STANDARD_MEAN = 57.625
"""Of the luma table in Annex K of ITU-T T.81, from which encoders scale theirs."""
_SIDE = 1024
"""Part of an image that is looked at, from its upper left corner, where the grid of blocks begins."""
_FREQUENCIES = ((0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0))
_BINS = 40
_LEAST_COUNT = 8
_ROUNDING = 0.01
"""Roughness that histograms of photographs have without any compression, for they are no exact curve."""


@dataclass(frozen=True, slots=True)
class JpegFacts:
    """``quality`` : of the IJG scale, 1…100, estimated from the luma table; other encoders' tables get the
    nearest. ``subsampling`` : see ``SUBSAMPLINGS``.
    """

    quality: float
    subsampling: int
    progressive: bool


def jpeg_facts(image: Image.Image) -> JpegFacts | None:
    """Of an opened file; ``None`` if it is no JPEG."""
    tables = getattr(image, "quantization", None)
    if image.format != "JPEG" or not tables:
        return None
    return JpegFacts(_quality(tables), get_sampling(image), bool(image.info.get("progressive")))


def _quality(tables: dict[int, list[int]]) -> float:
    scale = 100 * float(np.mean(tables[min(tables)])) / _STANDARD_MEAN
    return float(np.clip(100 - scale / 2 if scale <= 100 else 5000 / scale, 1, 100))


# ---------------------------------------------------------------- earlier compression


def comb(data: bytes) -> float:
    """How much the image's DCT coefficients cluster as only an earlier JPEG compression makes them, ≥ 0.

    Counted in steps of the file's own table (of 1 where the format has none), the coefficients of one
    compression fall off evenly; those of two, with different tables, have gaps and doubled bins (Popescu
    and Farid 2004, "Statistical tools for digital forensics", §3). Returned is the mean squared departure
    of the log histogram from a straight line between its neighbours, less what counting noise makes
    of it, over nine low frequencies. 0 : no trace; above about 0.2 : compressed before. Seen is
    an earlier compression coarser than the file's own; one as fine or finer mostly is not, nor one before a
    resize or a crop off the grid.
    """
    luma, steps = _luma(data)
    blocks = _coefficients(luma)
    rough, weight = 0.0, 0.0
    for v, u in _FREQUENCIES:
        counts = np.bincount(np.abs(np.rint(blocks[:, v, u] / steps[v, u])).astype(np.int64))
        excess, weights = _roughness(counts[: _BINS + 1])
        rough += float((weights * excess).sum())
        weight += float(weights.sum())
    return max(rough / weight - _ROUNDING, 0.0) if weight else 0.0


def _luma(data: bytes) -> tuple[Float64, Float64]:
    """Luma about zero, whole blocks only, and the step of each coefficient, float64 (8, 8)."""
    with Image.open(io.BytesIO(data)) as image:
        steps = np.ones((8, 8))
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            # Its own luma: through RGB every coefficient would be rounded once more.
            image.draft("L", image.size)
            tables = getattr(image, "quantization", {})
            steps = np.array(tables[min(tables)], np.float64).reshape(8, 8)
        width, height = (min(side, _SIDE) // 8 * 8 for side in image.size)
        luma = np.asarray(image.convert("L").crop((0, 0, width, height)), np.float64) - 128
    return luma, steps


def _coefficients(luma: Float64) -> Float64:
    """DCT of every 8 × 8 block, float64 (blocks, 8, 8), on JPEG's scale."""
    from scipy.fft import dctn

    height, width = luma.shape
    blocks = luma.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    coefficients: Float64 = dctn(blocks, axes=(1, 2), norm="ortho")
    return coefficients


def _roughness(counts: Int64) -> tuple[Float64, Float64]:
    """Squared departures from log-linearity in excess of Poisson noise, and their weights, for bins ≥ 2.

    Bin 0 is of one sign where the others are of two, and a smooth histogram bends at its peak alone.
    """
    n = counts.astype(np.float64) + 0.5
    middle, before, after = n[2:-1], n[1:-2], n[3:]
    bend = np.log(middle) - (np.log(before) + np.log(after)) / 2
    noise = 1 / middle + (1 / before + 1 / after) / 4
    around = (middle + before + after) / 3
    weights = np.where(around >= _LEAST_COUNT, around, 0.0)
    return bend**2 - noise, weights
