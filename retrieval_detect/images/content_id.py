"""What identifies an image: the sha256 of its bytes, and a perceptual hash that survives re-encoding."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, overload

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from retrieval_detect.types import Int64, UInt8, UInt64

_SIDE = 32
_KEPT = 8


_FREQUENCY, _SAMPLE = np.mgrid[:_KEPT, :_SIDE]
_DCT: Int64 = np.rint(4096 * np.cos(np.pi * _FREQUENCY * (2 * _SAMPLE + 1) / (2 * _SIDE))).astype(np.int64)
"""The lowest rows of the DCT-II of 32 points, times 4096 and rounded.

Whole numbers, so that a hash does not depend on how a machine adds up floats: on flat images the sign of a
rounding error would decide.
"""
_BITS = np.uint64(1) << np.arange(_KEPT * _KEPT, dtype=np.uint64)


def content_id(data: bytes) -> bytes:
    """sha256 of a file's bytes, 32 bytes: two images are the same only if their files are."""
    return hashlib.sha256(data).digest()


def phash(rgb: UInt8) -> int:
    """64-bit perceptual hash: signs of the lowest 8 × 8 DCT terms of the luma about their median.

    ``rgb`` : uint8 (height, width, 3). Recompressed or resized copies differ in few bits (see
    ``hamming``); crops, rotations and mirror images in many. Flat images all hash alike.

    Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", §3.2.1, with
    an antialiased resize instead of a mean filter.
    """
    small = Image.fromarray(rgb).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    luma = np.asarray(small.convert("L"), dtype=np.int64)
    terms = (_DCT @ luma @ _DCT.T).ravel()
    return int(_BITS[terms > np.median(terms[1:])].sum())


@overload
def hamming(a: int, b: int) -> int: ...
@overload
def hamming(a: UInt64, b: UInt64) -> UInt8: ...
def hamming(a: int | UInt64, b: int | UInt64) -> int | UInt8:
    """In how many of 64 bits two hashes differ, 0…64.

    For two ints an int; for uint64 arrays of shapes that broadcast, uint8 of the common shape.
    """
    if isinstance(a, int) and isinstance(b, int):
        return (a ^ b).bit_count()
    return np.bitwise_count(np.bitwise_xor(a, b))
