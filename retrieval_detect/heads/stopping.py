"""Rows set aside to stop training by: other images, and as far as there are several, other generators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from retrieval_detect.store.training import TrainingSet
    from retrieval_detect.types import Bool

SHARE = 0.2


def split_for_stopping(rows: TrainingSet, *, seed: int, share: float = SHARE) -> tuple[Bool, Bool]:
    """(fit, stop) : bool (n,) each, disjoint by group, and by generator and source where there are several.

    Whole generators and whole sources go to ``stop``, about ``share`` of each label. A label with a single
    name is cut by group instead. A group that has rows on both sides is in neither. Each label keeps
    rows on both sides wherever it has two groups.
    """
    rng = np.random.default_rng(seed)
    stop = np.zeros(len(rows), bool)
    for label in (False, True):
        members = np.flatnonzero(rows.fake == label)
        units = rows.names[members]
        if len(np.unique(units)) < 2:
            units = rows.groups[members].astype(str)
        stop[members] = np.isin(units, _drawn(units, rng, share))
    torn = np.intersect1d(rows.groups[stop], rows.groups[~stop])
    whole = ~np.isin(rows.groups, torn)
    return ~stop & whole, stop & whole


def _drawn(units: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Units, in random order, that together have about ``share`` of the rows: at least one, never all."""
    found, counts = np.unique(units, return_counts=True)
    order = rng.permutation(len(found))
    below = np.cumsum(counts[order]) <= share * len(units)
    taken = order[: max(1, int(below.sum()))]
    return found[taken] if len(found) > 1 else found[:0]
