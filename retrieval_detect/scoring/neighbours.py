"""The neighbours of a query in one bank, as votes see them: one an image, nearest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Float32, Int64

    Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BankNeighbours:
    """Nearest references of one bank, for one query, shape (k,), or for many, shape (q, k).

    In any order. Rows that must not vote are left out, or have a similarity of -inf.

    ``similarities`` : float32, cosine. ``content`` : integers, equal for views of one image.
    ``log_weights`` : float64, of ``reference_weights``. ``names`` : int64 codes of generators or
    sources. ``row_ids`` : int64; they settle ties. ``n_bank`` : images in the whole bank.
    """

    similarities: Float32
    content: NDArray[np.integer[Any]]
    log_weights: Float64
    names: Int64
    row_ids: Int64
    n_bank: int


@dataclass(frozen=True, slots=True, eq=False)
class NearestImages:
    """The k nearest images of each of q queries, by (-similarity, row id); k is the widest's.

    ``similarities`` : float64 (q, k), -inf past the end. ``log_weights``, ``names``, ``row_ids`` :
    (q, k). ``n`` : int64 (q,), how many there are.
    """

    similarities: Float64
    log_weights: Float64
    names: Int64
    row_ids: Int64
    n: Int64

    def first(self, k: int) -> NearestImages:
        """The k nearest of these."""
        return NearestImages(
            self.similarities[:, :k],
            self.log_weights[:, :k],
            self.names[:, :k],
            self.row_ids[:, :k],
            np.minimum(self.n, k),
        )

    def take(self, queries: NDArray[np.bool_] | Int64) -> NearestImages:
        """Those of some queries."""
        return NearestImages(
            self.similarities[queries],
            self.log_weights[queries],
            self.names[queries],
            self.row_ids[queries],
            self.n[queries],
        )


def nearest_images(bank: BankNeighbours, k: int) -> NearestImages:
    """The k nearest images of ``bank``, each by its nearest view; fewer where there are fewer."""
    similarities, row_ids = np.atleast_2d(bank.similarities), np.atleast_2d(bank.row_ids)
    order = np.lexsort((row_ids, -similarities), axis=-1)
    again = seen_before(np.take_along_axis(np.atleast_2d(bank.content), order, 1))
    usable = ~again & (np.take_along_axis(similarities, order, 1) > -np.inf)
    first = np.argsort(~usable, axis=1, kind="stable")[:, :k]
    columns = np.take_along_axis(order, first, 1)
    chosen = np.take_along_axis(usable, first, 1)
    return NearestImages(
        np.where(chosen, np.take_along_axis(similarities, columns, 1).astype(np.float64), -np.inf),
        np.take_along_axis(np.atleast_2d(bank.log_weights), columns, 1),
        np.take_along_axis(np.atleast_2d(bank.names), columns, 1),
        np.take_along_axis(row_ids, columns, 1),
        chosen.sum(axis=1),
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
