"""A toy encoder for tests and demonstrations: no torch, no weights file, the same numbers everywhere."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.encoders._pattern import scattered
from retrieval_detect.encoders.base import check_call
from retrieval_detect.encoders.preprocess import prepare
from retrieval_detect.files import sha256_bytes
from retrieval_detect.types import EncoderSpec, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from retrieval_detect.types import Float32, UInt8

    Int8 = NDArray[np.int8]

_SIZE = 32
_COARSE = 16
_N_STATISTICS = 13
_LAYERS = {"proj": 32, "pre": 48, "block01": 24}


@cache
def _matrices() -> tuple[Int8, Int8, Int8]:
    """Fixed projections: statistics → block01, block01 and coarse pixels → pre, pre → proj. int8."""
    shapes = (
        (_N_STATISTICS, _LAYERS["block01"]),
        (_LAYERS["block01"] + _COARSE * _COARSE * 3, _LAYERS["pre"]),
        (_LAYERS["pre"], _LAYERS["proj"]),
    )
    return tuple(  # type: ignore[return-value]
        (scattered(101 + i, *shape) >> np.uint64(56)).astype(np.uint8).view(np.int8)
        for i, shape in enumerate(shapes)
    )


class TinyEncoder:
    """Random projections of a 16 × 16 thumbnail and of colour and edge statistics.

    Similar images get similar vectors, which is all that a test of rd needs; it knows nothing of
    photographs or generators. Satisfies ``encoders.base.Encoder``.
    """

    def __init__(self) -> None:
        self._spec = EncoderSpec(
            name="tiny",
            architecture="rd/tiny-1",
            weights_sha256=sha256_bytes(b"".join(matrix.tobytes() for matrix in _matrices())),
            quick_gelu=False,
            preprocessing=Preprocessing("clip", _SIZE, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            layers=_LAYERS,
            note="toy encoder for tests: fixed random projections, no network",
        )

    @property
    def spec(self) -> EncoderSpec:
        """Always the same."""
        return self._spec

    def prepare(self, rgb: UInt8) -> UInt8:
        """uint8 (height, width, 3) → uint8 (32, 32, 3)."""
        return prepare(rgb, self._spec.preprocessing)

    def encode(self, batch: UInt8, layers: Sequence[str]) -> Mapping[str, Float32]:
        """uint8 (n, 32, 32, 3) → for each layer float32 (n, d), NOT unit norm."""
        check_call(self._spec, batch, layers)
        pixels = batch.astype(np.float32) / 127.5 - 1
        first, second, third = (_scaled(matrix) for matrix in _matrices())
        thumbnail = pixels.reshape(-1, _COARSE, 2, _COARSE, 2, 3).mean(axis=(2, 4)).reshape(len(batch), -1)
        block01 = _statistics(pixels) @ first
        pre = np.hstack([block01, thumbnail]) @ second
        outputs = {"proj": pre @ third, "pre": pre, "block01": block01}
        return {layer: outputs[layer] for layer in layers}


def _scaled(matrix: Int8) -> Float32:
    return matrix.astype(np.float32) / np.float32(128 * np.sqrt(len(matrix)))


def _statistics(pixels: Float32) -> Float32:
    """float32 (n, 13): mean, spread and edges (right, down) of each channel, and one constant.

    The constant keeps a black image from a zero vector.
    """
    constant = np.ones((len(pixels), 1), np.float32)
    right = np.abs(np.diff(pixels, axis=2)).mean(axis=(1, 2))
    down = np.abs(np.diff(pixels, axis=1)).mean(axis=(1, 2))
    return np.hstack([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2)), 4 * right, 4 * down, constant])
