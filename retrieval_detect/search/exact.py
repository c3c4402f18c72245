"""What "nearest" means, in numpy: the oracle of the tests and the last word of every bank.

Similarity is the cosine of two float16 codes, rounded to float32; neighbours are ordered by
(-similarity, row id). Every float16 is a multiple of 2^-24, so products of two are multiples of 2^-48;
sums of those below 32 fit the 53 bits of a float64. Dot products and squared norms of codes of about
unit norm are therefore exact in float64, in any order and by any library, and any search that ends in
``cosine`` and ``top`` agrees with this one bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import EmptyBank, UsageError, VectorError
from retrieval_detect.search.projection import query_codes, row_codes
from retrieval_detect.types import Neighbours

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval_detect.search.projection import Projection
    from retrieval_detect.types import Float16, Float32, Float64, Int64

BLOCK_ROWS = 4096
"""Rows widened at a time: some tens of MB, whatever the size of a bank."""

_QUERIES_AT_ONCE = 16


class SideBySide:
    """Several layers' vectors as one array of rows, float16 (n, sum of d), joined only where sliced."""

    def __init__(self, layers: Sequence[Float16]) -> None:
        self._layers = tuple(layers)
        self.dtype = layers[0].dtype
        self.ndim = 2
        self.shape = (len(layers[0]), sum(layer.shape[1] for layer in layers))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Float16:
        return np.concatenate([layer[rows] for layer in self._layers], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class ShardVectors:
    """Rows of one label and one split, for the layers of a projection.

    ``row_ids`` : int64 (n,), strictly increasing. ``vectors`` : float16 (n, d), unit norm up to
    rounding, or several layers' ``SideBySide``; may be memory maps. ``shard_id`` names derived files, which
    are not kept once ``source``, a file, has gone: what was erased must not come back.
    """

    shard_id: str
    row_ids: Int64
    vectors: Float16 | SideBySide
    source: Path | None = None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float16:
            raise VectorError(
                f"shard {self.shard_id}: vectors are {self.vectors.dtype} {self.vectors.shape}, "
                "not float16 (n, d)"
            )
        if self.row_ids.dtype != np.int64 or self.row_ids.shape != self.vectors.shape[:1]:
            raise VectorError(
                f"shard {self.shard_id}: {self.row_ids.dtype} {self.row_ids.shape} row ids "
                f"for {len(self.vectors)} vectors"
            )
        if (np.diff(self.row_ids) <= 0).any():
            raise VectorError(f"shard {self.shard_id}: row ids repeat or are out of order")


def cosine(dots: Float64, squares: Float64, query_squares: Float64) -> Float32:
    """Similarities from dot products and the squared norms of rows and queries; shapes broadcast.

    All float64, exact for float16 codes. Returns float32, within -1…1.
    """
    similarities: Float32 = (dots / (np.sqrt(squares) * np.sqrt(query_squares))).astype(np.float32)
    return np.clip(similarities, -1, 1)


def similarity(query: Float32, codes: Float16) -> Float32:
    """Cosine of one query, or of several, with each row.

    ``query`` : floating point (d,) or (q, d), any norm; float16 codes widened, where bits matter.
    ``codes`` : float16 (m, d), m <= some thousands, no zero rows. Returns float32 (m,) or (q, m), within
    -1…1.
    """
    rows, wide = codes.astype(np.float64), query.astype(np.float64)
    return cosine(wide @ rows.T, np.vecdot(rows, rows), np.vecdot(wide, wide)[..., None])


def top(similarities: Float32, row_ids: Int64, k: int) -> Int64:
    """Positions of the k first by (-similarity, row id).

    ``similarities`` : float32 (n,); ``row_ids`` : int64 (n,); 1 <= k <= n. Returns int64 (k,).
    """
    kth = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
    eligible = np.flatnonzero(similarities >= kth)
    order = np.lexsort((row_ids[eligible], -similarities[eligible]))
    first: Int64 = eligible[order[:k]]
    return first


def check_k(k: int) -> None:
    """Refuse k below one."""
    if k < 1:
        raise UsageError(f"k is {k}", hint="ask for at least one neighbour")


def search(
    queries: Float32,
    shards: Sequence[ShardVectors],
    *,
    k: int,
    projection: Projection,
    dead: Int64 | None = None,
) -> Neighbours:
    """The k nearest live rows of ``shards``, by comparing each query with each row.

    ``queries`` : see ``query_codes``. ``dead`` : row ids that do not count. Memory: one block of rows,
    and some eighty bytes a row.
    """
    check_k(k)
    codes = query_codes(queries, projection).astype(np.float32)
    all_ids = np.concatenate([shard.row_ids for shard in shards] or [np.empty(0, np.int64)])
    alive = ~np.isin(all_ids, dead) if dead is not None else np.ones(len(all_ids), bool)
    row_ids = all_ids[alive]
    if not row_ids.size:
        raise EmptyBank("there are no references to search", hint="add some: rd bank add")
    found = []
    for start in range(0, len(codes), _QUERIES_AT_ONCE):
        several = codes[start : start + _QUERIES_AT_ONCE]
        blocks = [
            similarity(several, row_codes(shard.vectors[first : first + BLOCK_ROWS], projection))
            for shard in shards
            for first in range(0, len(shard.vectors), BLOCK_ROWS)
        ]
        for similarities in np.concatenate(blocks, axis=1)[:, alive]:
            first = top(similarities, row_ids, min(k, len(row_ids)))
            found.append((row_ids[first], similarities[first]))
    shape = (len(found), min(k, len(row_ids)))
    return Neighbours(
        row_ids=np.array([ids for ids, _ in found], np.int64).reshape(shape),
        similarities=np.array([values for _, values in found], np.float32).reshape(shape),
    )
