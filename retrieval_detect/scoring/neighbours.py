"""The neighbours of queries in one bank, as votes see them: one an image, nearest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.types import NEAR_COSINE, NEAR_HAMMING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Bool, Float32, Float64, Int64


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
        return self._cut((slice(None), slice(k)), np.minimum(self.n, k))

    def take(self, queries: Bool | Int64) -> NearestImages:
        """Those of some queries."""
        return self._cut(queries, self.n[queries])

    def _cut(self, at: Any, n: Int64) -> NearestImages:
        return NearestImages(
            self.similarities[at], self.log_weights[at], self.names[at], self.row_ids[at], n, self.n_bank
        )


def seen_before(content: NDArray[np.integer[Any]]) -> Bool:
    """Which entries of (q, k) occur earlier in their row."""
    order = np.argsort(content, axis=1, kind="stable")
    ordered = np.take_along_axis(content, order, 1)
    again = np.zeros(content.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    seen = np.empty_like(again)
    np.put_along_axis(seen, order, again, 1)
    return seen


def same_image(similarities: Float32, hamming: Any, *, same_content: Bool) -> Bool:
    """Which neighbours are the query's own image; they are shown, and do not vote.

    Rows with the query's content id, or near-duplicates of it. All arrays share one shape.

    ``similarities`` : float32, cosine. ``hamming`` : integers, bits in which the perceptual hashes
    differ. ``same_content`` : bool, whether the content id is the query's. A near-duplicate needs
    both witnesses: flat images share a hash by chance, and unlike images of one subject a cosine.
    """
    own: Bool = same_content | ((hamming <= NEAR_HAMMING) & (similarities >= NEAR_COSINE))
    return own
