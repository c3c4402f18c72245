"""Groups: near-duplicates found by perceptual hash, confirmed by cosine. Splits never cut a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.store.near import near_candidates, near_keys
from retrieval_detect.types import NEAR_COSINE, NEAR_HAMMING

if TYPE_CHECKING:
    from retrieval_detect.store.shards import Shard
    from retrieval_detect.types import Bool, Float16, Float32, Int64, UInt64

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
    from_, to = near_candidates(near_keys(phashes), phashes)
    # Not only from_ < to: candidates are capped, so the second of a pair may be the only one to see it.
    pairs: Bool = (from_ != to) & (np.bitwise_count(phashes[from_] ^ phashes[to]) <= NEAR_HAMMING)
    from_, to = from_[pairs], to[pairs]
    linked = _cosines(vectors, from_, vectors, to) >= NEAR_COSINE
    return _components(len(phashes), from_[linked], to[linked])


def _cosines(a: Float16, i: Int64, b: Float16, j: Int64) -> Float32:
    blocks = [
        np.einsum(
            "nd,nd->n", a[i[s : s + _PAIRS_PER_BLOCK]].astype(np.float32), b[j[s : s + _PAIRS_PER_BLOCK]]
        )
        for s in range(0, len(i), _PAIRS_PER_BLOCK)
    ]
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def _components(n: int, from_: Int64, to: Int64) -> Int64:
    """Connected components by union-find, each named by its smallest member."""
    parent = list(range(n))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in zip(from_.tolist(), to.tolist(), strict=True):
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.array([root(node) for node in range(n)], dtype=np.int64)
