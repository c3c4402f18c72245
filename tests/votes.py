"""Votes on neighbours as they come: in any order, several views of one image. Slow, and easy to follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval_detect.scoring.neighbours import NearestImages, seen_before
from retrieval_detect.scoring.vote import DEFAULT_K, vote


@dataclass(frozen=True)
class BankNeighbours:
    """Nearest references of one bank, for one query, shape (k,), or for many, shape (q, k).

    Rows that must not vote are left out, or have a similarity of -inf. ``content`` : equal for views of
    one image. See ``NearestImages`` for the rest.
    """

    similarities: np.ndarray
    content: np.ndarray
    log_weights: np.ndarray
    names: np.ndarray
    row_ids: np.ndarray
    n_bank: int


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
        bank.n_bank,
    )


def vote_on(fake: BankNeighbours, real: BankNeighbours, *, method="density", k=None, **options):
    """``vote`` on what ``nearest_images`` finds of both."""
    wanted = max(1, DEFAULT_K[method] if k is None else k)
    near = (nearest_images(bank, wanted) for bank in (fake, real))
    return vote(*near, method=method, k=k, **options)


def score_of(fake: BankNeighbours, real: BankNeighbours, **options) -> float:
    """The score of one query."""
    (score,) = vote_on(fake, real, **options).scores
    return float(score)
