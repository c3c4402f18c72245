"""RINE's perturbations: what its test of robustness does to images, drawn for each from its content id.

Koutlis and Papadopoulos 2024, "Leveraging Representations from Intermediate Encoder-Blocks for Synthetic
Image Detection", arXiv 2402.19091; the perturbations are those of Frank et al. 2020, "Leveraging Frequency
Analysis for Deep Fake Image Recognition". The numbers are taken from the published programs
(``src/perturbation.py`` and ``src/data.py`` of mever-team/rine, ``create_perturbed_imagedata.py`` of
RUB-SysSec/GANDCTAnalysis). Where these do another thing than they say, it is written at the step concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retrieval_detect.errors import UsageError
from retrieval_detect.images.laundering import Step, between, require_step, seed_of, step_name, uniforms

if TYPE_CHECKING:
    from retrieval_detect.types import Float32, UInt8

SHARE = 0.5
"""Of the images that are changed at all; the others stay as they are."""
_DEVIATION = 4.0
"""Pixels. The programs pass OpenCV's ``BORDER_DEFAULT``, which is 4, where the deviation belongs."""
_WINDOWS = (3, 5, 7, 9)

# ---------------------------------------------------------------- steps with their numbers


def _windowed(rgb: UInt8, side: int) -> UInt8:
    """Gaussian of deviation 4 pixels, cut off to ``side`` × ``side`` pixels; edges are mirrored."""
    from scipy.ndimage import correlate1d

    offsets = np.arange(side) - side // 2
    weights = np.exp(-0.5 * (offsets / _DEVIATION) ** 2).astype(np.float32)
    weights /= weights.sum()
    smooth = rgb.astype(np.float32)
    for axis in (0, 1):
        smooth = correlate1d(smooth, weights, axis, mode="mirror")
    return _bytes(smooth)


def _inset(rgb: UInt8, per_mille: int) -> UInt8:
    """So much of each side cut away, half at either end; what is left gets the size it had, bicubic.

    The programs take height for width there, so that oblong images change their shape; here they keep it.
    """
    height, width = rgb.shape[:2]
    y, x = (int(side * per_mille / 2000) for side in (height, width))
    part = Image.fromarray(np.ascontiguousarray(rgb[y : height - y, x : width - x]))
    return np.array(part.resize((width, height), Image.Resampling.BICUBIC))


def _noisy(rgb: UInt8, tenths: int, seed: int) -> UInt8:
    """Gaussian noise on every value, of a deviation in tenths of a grey level.

    The programs call this number a variance, and multiply by it: it is followed as a deviation.
    """
    noise = np.random.default_rng(seed).standard_normal(rgb.shape, dtype=np.float32)
    return _bytes(rgb + noise * np.float32(tenths / 10))


def _bytes(values: Float32) -> UInt8:
    return np.rint(values).clip(0, 255).astype(np.uint8)


PERTURBATIONS: Mapping[str, Step] = {
    "window": Step(_windowed, (99,)),
    "inset": Step(_inset, (900,)),
    "noise": Step(_noisy, (1000, 999_999)),
}
"""All of them keep the size."""


def require_perturbation(step: str) -> None:
    """Raise ``UsageError`` unless a step of ``PERTURBATIONS`` has numbers that make sense."""
    require_step(step, PERTURBATIONS)
    kind, *numbers = step.split("-")
    if kind == "window" and int(numbers[0]) % 2 == 0:
        raise UsageError(f"{step!r} has no middle", hint="Give an odd number of pixels: window-9")


# ---------------------------------------------------------------- drawn by chance

_PARTS: Mapping[str, Callable[[Sequence[float]], str]] = {
    "blur": lambda u: step_name("window", _WINDOWS[int(u[0] * len(_WINDOWS))]),
    "crop": lambda u: step_name("inset", between(u[0], 50, 200)),
    # The programs hand the quality over as the name of a parameter that OpenCV does not know: it keeps its
    # default, 95, and the published figures are of that. Here it is what they say they draw.
    "compress": lambda u: step_name("jpeg", between(u[0], 10, 74)),
    "noise": lambda u: step_name("noise", between(u[0], 50, 200), between(u[1], 0, 999_999)),
}
DRAWN: Mapping[str, tuple[str, ...]] = {
    **{f"rine-{part}": (part,) for part in _PARTS},
    # One coin for all four, in this order; Frank et al. do one of them to each image in turn.
    "rine-combined": ("blur", "crop", "compress", "noise"),
}
"""Step → its parts; each image has its own numbers."""


def drawn(step: str, content_id: bytes) -> tuple[str, ...]:
    """A step of ``DRAWN`` with the numbers of one image; nothing where chance leaves the image as it is."""
    seed = seed_of(content_id)
    if uniforms(step, seed)[0] >= SHARE:
        return ()
    return tuple(_PARTS[part](uniforms(f"{step}/{part}", seed)) for part in DRAWN[step])
