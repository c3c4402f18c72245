"""The neighbours of queries in one bank, as votes see them: one an image, nearest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Int64

    Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class NearestImages:
    """The k nearest images of each of q queries, by (-similarity, row id); k is the widest's.

    ``similarities`` : float64 (q, k), cosines, -inf past the end. ``log_weights`` : float64 (q, k), of
    ``reference_weights``. ``names`` : int64 (q, k), codes of generators or sources. ``row_ids`` :
    int64 (q, k), each the nearest view of its image. ``n`` : int64 (q,), how many there are.
    ``n_bank`` : images in the whole bank.
    """

    similarities: Float64
    log_weights: Float64
    names: Int64
    row_ids: Int64
    n: Int64
    n_bank: int

    def __len__(self) -> int:
        return len(self.n)

    def first(self, k: int) -> NearestImages:
        """The k nearest of these."""
        return NearestImages(
            self.similarities[:, :k],
            self.log_weights[:, :k],
            self.names[:, :k],
            self.row_ids[:, :k],
            np.minimum(self.n, k),
            self.n_bank,
        )

    def take(self, queries: NDArray[np.bool_] | Int64) -> NearestImages:
        """Those of some queries."""
        return NearestImages(
            self.similarities[queries],
            self.log_weights[queries],
            self.names[queries],
            self.row_ids[queries],
            self.n[queries],
            self.n_bank,
        )


def seen_before(content: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which entries of (q, k) occur earlier in their row."""
    order = np.argsort(content, axis=1, kind="stable")
    ordered = np.take_along_axis(content, order, 1)
    again = np.zeros(content.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    seen = np.empty_like(again)
    np.put_along_axis(seen, order, again, 1)
    return seen
