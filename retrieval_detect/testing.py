"""For tests of rd and of plug-ins: a toy encoder, and the checks that every encoder must pass."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.encoders.base import Encoder
from retrieval_detect.encoders.canaries import canary_images
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import UsageError
from retrieval_detect.types import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retrieval_detect.types import Float32, UInt8

__all__ = ["TinyEncoder", "check_encoder"]

ROUNDING = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}
"""How far a vector may move, relative to its length, with the batch it is computed in."""

_SHAPES = ((1, 5000), (5000, 1), (7, 3), (16, 16), (333, 500), (1200, 257))


def check_encoder(encoder: Encoder) -> None:
    """Raise ``AssertionError``, with words, unless ``encoder`` keeps the promises of ``encoders.base``."""
    _require(isinstance(encoder, Encoder), "an encoder has spec, prepare and encode")
    _check_spec(encoder)
    _check_prepare(encoder)
    _check_encode(encoder)


def _check_spec(encoder: Encoder) -> None:
    spec = encoder.spec
    reread = EncoderSpec.from_json(json.loads(json.dumps(spec.to_json())))
    _require(reread == spec, "the spec is the same after a way through JSON")
    _require(encoder.spec.fingerprint == reread.fingerprint, "the fingerprint does not change")
    _require(len(spec.weights_sha256) == 64, "weights_sha256 is 64 hex digits")
    _require(spec.precision in ROUNDING, f"the precision is one of {', '.join(ROUNDING)}")
    _require(bool(spec.layers), "there is at least one layer")


def _check_prepare(encoder: Encoder) -> None:
    size = encoder.spec.preprocessing.size
    images = [_picture(height, width) for height, width in _SHAPES]
    before = [image.copy() for image in images]
    for image in images:
        image.flags.writeable = False
    alone = [encoder.prepare(image) for image in images]
    for image, prepared in zip(images, alone, strict=True):
        _require(
            prepared.shape == (size, size, 3) and prepared.dtype == np.uint8 and prepared.flags.c_contiguous,
            f"prepare gives uint8 ({size}, {size}, 3) in C order for an image of {image.shape[:2]}",
        )
    _require(all(map(np.array_equal, images, before)), "prepare leaves its input as it was")
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.prepare, images * 4))
    _require(
        all(np.array_equal(a, b) for a, b in zip(alone * 4, together, strict=True)),
        "prepare gives the same from several threads at once",
    )


def _check_encode(encoder: Encoder) -> None:
    layers = list(encoder.spec.layers)
    batch = np.stack([encoder.prepare(image) for image in canary_images()[3::4]])
    kept = batch.copy()
    vectors = encoder.encode(batch, layers)
    _require(np.array_equal(batch, kept), "encode leaves its input as it was")
    _require(list(vectors) == layers, "encode gives the layers that were asked for, in that order")
    for layer, rows in vectors.items():
        shape = (len(batch), encoder.spec.layers[layer])
        _require(rows.shape == shape and rows.dtype == np.float32, f"layer {layer} is float32 {shape}")
        _require(bool(np.isfinite(rows).all()), f"layer {layer} is finite")
        _require(bool(rows.any(axis=1).all()), f"no vector of layer {layer} is zero")
    _check_rows(encoder, batch, vectors)
    for layer in layers:
        _require_close(
            encoder, encoder.encode(batch, [layer])[layer], vectors[layer], f"layer {layer} asked alone"
        )
    try:
        encoder.encode(batch, ["no such layer"])
    except UsageError:
        return
    _require(False, "encode raises UsageError for a layer it does not have")


def _check_rows(encoder: Encoder, batch: UInt8, vectors: Mapping[str, Float32]) -> None:
    layers = list(vectors)
    reverse = encoder.encode(np.ascontiguousarray(batch[::-1]), layers)
    single = [encoder.encode(batch[i : i + 1], layers) for i in range(len(batch))]
    for layer in layers:
        _require_close(encoder, reverse[layer][::-1], vectors[layer], f"layer {layer} of a batch in reverse")
        one_by_one = np.vstack([rows[layer] for rows in single])
        _require_close(encoder, one_by_one, vectors[layer], f"layer {layer} one by one")


def _require_close(encoder: Encoder, a: Float32, b: Float32, what: str) -> None:
    scale = np.linalg.norm(b, axis=1)
    moved = float((np.linalg.norm(a - b, axis=1) / scale).max())
    allowed = ROUNDING[encoder.spec.precision]
    _require(moved <= allowed, f"{what} is the same to {allowed:g}, and moved by {moved:.1e}")


def _picture(height: int, width: int) -> UInt8:
    y, x = np.indices((height, width))
    return np.stack([x % 256, y % 256, (x * y) % 251], axis=2).astype(np.uint8)


def _require(condition: bool, promise: str) -> None:
    if not condition:
        raise AssertionError(f"broken promise: {promise}")
