"""Near-duplicate candidates in time that does not grow with the bank: banded perceptual hashes.

A 64-bit hash is cut into four bands of 16 bits. Two hashes that differ in at most 7 bits agree in
at least one band up to one flipped bit, so probing each band's 17 variants finds every pair within
Hamming distance 7 by binary search (multi-probe LSH: Lv et al. 2007, "Multi-probe LSH: efficient
indexing for high-dimensional similarity search", §4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.store.schema import expand_ranges

if TYPE_CHECKING:
    from retrieval_detect.types import Int64, UInt64

BANDS = 4
GUARANTEED_DISTANCE = 7
_POSITION_BITS = 46
_CANDIDATES_PER_PROBE = 64
"""Flat images share a hash by the thousand; comparing with some of them is enough to link them all."""

_FLIPS = np.array([0, *(1 << bit for bit in range(16))], dtype=np.uint64)


def _bands(hashes: UInt64) -> UInt64:
    shifts = np.arange(BANDS, dtype=np.uint64) * np.uint64(16)
    return (hashes[:, None] >> shifts) & np.uint64(0xFFFF)


def _keys(bands: UInt64) -> UInt64:
    numbers = np.arange(BANDS, dtype=np.uint64) << np.uint64(62)
    return numbers | (bands << np.uint64(_POSITION_BITS))


def near_keys(hashes: UInt64) -> UInt64:
    """The sorted band file of a shard: uint64 (4 n,), each ``band << 62 | value << 46 | position``."""
    positions = np.arange(len(hashes), dtype=np.uint64)
    return np.sort((_keys(_bands(hashes)) | positions[:, None]).ravel())


def near_candidates(keys: UInt64, hashes: UInt64) -> tuple[Int64, Int64]:
    """Pairs (index into ``hashes``, position in the shard) that share a band up to one bit.

    Contains every pair within ``GUARANTEED_DISTANCE`` bits, up to the cap on equal bands; pairs are
    unique; most are further apart and are for the caller to drop.
    """
    probes = _keys(_bands(hashes))[:, :, None] ^ (_FLIPS << np.uint64(_POSITION_BITS))
    flat = probes.reshape(-1)
    low = np.searchsorted(keys, flat, side="left")
    high = np.searchsorted(keys, flat + np.uint64(1 << _POSITION_BITS), side="left")
    # The last band value of the last band overflows to 0: its range ends with the file.
    high = np.where(flat + np.uint64(1 << _POSITION_BITS) < flat, len(keys), high)
    owner, where = expand_ranges(low, np.minimum(high, low + _CANDIDATES_PER_PROBE))
    asked = owner // (BANDS * len(_FLIPS))
    position = (keys[where] & np.uint64((1 << _POSITION_BITS) - 1)).astype(np.int64)
    size = max(len(keys) // BANDS, 1)
    pairs = np.sort(asked * size + position)  # one number a pair: np.unique of rows takes ten times as long
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]
    return pairs // size, pairs % size
