"""Groups: near-duplicates found by perceptual hash, confirmed by cosine. Splits never cut a group."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrieval_detect.store.schema import expand_ranges
from retrieval_detect.types import NEAR_COSINE, NEAR_HAMMING

if TYPE_CHECKING:
    from retrieval_detect.store.shards import Shard
    from retrieval_detect.types import Bool, Float16, Float32, Int64, Label, Split, UInt64

NONE = -1
_PAIRS_PER_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class Grouping:
    """Where new rows belong.

    ``cluster`` : int64 (n,), the smallest index among the new rows a row is linked to (its own if
    alone). ``shard`` and ``position`` : int64 (n,), the stored row that a row's cluster joins, or -1.
    """

    cluster: Int64
    shard: Int64
    position: Int64


def group_rows(phashes: UInt64, vectors: Float16, shards: Sequence[Shard], layer: str) -> Grouping:
    """Link new rows to one another and to stored rows.

    ``phashes`` : uint64 (n,); ``vectors`` : float16 (n, d), unit norm, of ``layer``. A cluster that
    resembles stored rows of several groups joins the most similar one: the near-duplicates of a
    query never vote, so no calibration row gains by a look-alike left in the bank.
    """
    cluster = _clusters(phashes, vectors)
    best: Float32 = np.full(len(phashes), -np.inf, dtype=np.float32)
    where = np.full((2, len(phashes)), NONE, dtype=np.int64)
    for number, shard in enumerate(shards):
        for i, p, s in zip(*_near(phashes, vectors, shard, layer), strict=True):
            root = cluster[i]
            if s > best[root]:
                best[root] = s
                where[:, root] = number, p
    return Grouping(cluster, where[0][cluster], where[1][cluster])


def beside(shards: Sequence[Shard], others: Sequence[tuple[UInt64, Float16]], layer: str) -> list[Int64]:
    """Positions in each of ``shards``, int64, of rows that are near-duplicates of any of ``others``.

    ``others`` : blocks of rows, each with uint64 (n,) perceptual hashes and float16 (n, d), unit norm, of
    ``layer``. A row that resembles rows of two groups, and joined one of them, is found here by the other.
    """
    none = np.empty(0, np.int64)
    return [
        np.unique(np.concatenate([none, *(_near(*block, shard, layer)[1] for block in others)]))
        for shard in shards
    ]


def _near(phashes: UInt64, vectors: Float16, shard: Shard, layer: str) -> tuple[Int64, Int64, Float32]:
    """Near-duplicates: index into ``phashes``, position in the shard, cosine."""
    asked, position = near_candidates(shard.near, phashes)
    close = np.bitwise_count(phashes[asked] ^ shard.phashes[position]) <= NEAR_HAMMING
    asked, position = asked[close], position[close]
    similar = _cosines(vectors, asked, shard.vectors(layer), position)
    near = similar >= NEAR_COSINE
    return asked[near], position[near], similar[near]


def _clusters(phashes: UInt64, vectors: Float16) -> Int64:
    """Connected components of near-duplicates, each named by its smallest member."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from_, to = near_candidates(near_keys(phashes), phashes)
    # Not only from_ < to: candidates are capped, so the second of a pair may be the only one to see it.
    pairs: Bool = (from_ != to) & (np.bitwise_count(phashes[from_] ^ phashes[to]) <= NEAR_HAMMING)
    from_, to = from_[pairs], to[pairs]
    linked = _cosines(vectors, from_, vectors, to) >= NEAR_COSINE
    links = coo_array((linked[linked], (from_[linked], to[linked])), shape=(len(phashes),) * 2)
    component = connected_components(links, directed=False)[1]
    _, first, of_row = np.unique(component, return_index=True, return_inverse=True)
    return first[of_row]


def _cosines(a: Float16, i: Int64, b: Float16, j: Int64) -> Float32:
    blocks = [
        np.einsum(
            "nd,nd->n", a[i[s : s + _PAIRS_PER_BLOCK]].astype(np.float32), b[j[s : s + _PAIRS_PER_BLOCK]]
        )
        for s in range(0, len(i), _PAIRS_PER_BLOCK)
    ]
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


# ---------------------------------------------------------------- near-duplicates
#
# A 64-bit hash is cut into four bands of 16 bits. Two hashes that differ in at most 7 bits agree in
# at least one band up to one flipped bit, so probing each band's 17 variants finds every pair within
# Hamming distance 7 by binary search, in time that does not grow with the bank (multi-probe LSH: Lv et
# al. 2007, "Multi-probe LSH: efficient indexing for high-dimensional similarity search", §4).

BANDS = 4
GUARANTEED_DISTANCE = 7
_POSITION_BITS = 46
_CANDIDATES_PER_PROBE = 64
"""Flat images share a hash by the thousand; comparing with some of them is enough to link them all."""

_FLIPS = np.array([0, *(1 << bit for bit in range(16))], dtype=np.uint64)


def _keys(hashes: UInt64) -> UInt64:
    """The four bands of each hash, uint64 (n, 4): ``band << 62 | value << 46``."""
    bands = np.arange(BANDS, dtype=np.uint64)
    values = (hashes[:, None] >> (bands * np.uint64(16))) & np.uint64(0xFFFF)
    return (bands << np.uint64(62)) | (values << np.uint64(_POSITION_BITS))


def near_keys(hashes: UInt64) -> UInt64:
    """The sorted band file of a shard: uint64 (4 n,), each ``band << 62 | value << 46 | position``."""
    positions = np.arange(len(hashes), dtype=np.uint64)
    return np.sort((_keys(hashes) | positions[:, None]).ravel())


def near_candidates(keys: UInt64, hashes: UInt64) -> tuple[Int64, Int64]:
    """Pairs (index into ``hashes``, position in the shard) that share a band up to one bit.

    Contains every pair within ``GUARANTEED_DISTANCE`` bits, up to the cap on equal bands; pairs are
    unique; most are further apart and are for the caller to drop.
    """
    probes = _keys(hashes)[:, :, None] ^ (_FLIPS << np.uint64(_POSITION_BITS))
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


# ---------------------------------------------------------------- splits

StratumKey: TypeAlias = "tuple[Label, str]"
"""(label, generator of a fake or source of a photograph)."""

CALIB_ONE_IN = 5
MIN_GROUPS = 25
"""Strata with fewer groups give all of them to the bank: a fifth of so few measures nothing."""


def assign_splits(
    strata: Sequence[StratumKey], keys: Sequence[bytes], existing: Mapping[StratumKey, int]
) -> list[Split]:
    """The split of each new group.

    Parameters
    ----------
    strata : of each new group.
    keys : of each new group, any bytes that name it; equal keys get equal splits in every index.
    existing : groups that each stratum has had so far.
    """
    totals = Counter(existing)
    totals.update(strata)
    return [
        "calib" if totals[stratum] >= MIN_GROUPS and _drawn(key) else "bank"
        for stratum, key in zip(strata, keys, strict=True)
    ]


def _drawn(key: bytes) -> bool:
    digest = hashlib.sha256(b"retrieval-detect/split\0" + key).digest()
    return int.from_bytes(digest[:8], "big") % CALIB_ONE_IN == 0
