"""Sources that look like one collection cut in two: then fewer are independent than are counted.

Every figure about new sources counts each name once (``scoring.new_sources``); names that are one collection
promise more than was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.evaluate.metrics import auroc
from retrieval_detect.evaluate.shortcuts import LEAST_IMAGES, group_folds, logistic, out_of_fold

if TYPE_CHECKING:
    from retrieval_detect.evaluate.material import Material
    from retrieval_detect.types import Bool, Float32, Int64

_AT_MOST = 150
"""Photographs of a source that are compared, groups of near-duplicates once."""
_DRAWS = 5
_CHANCE = 0.1
"""By how much an AUC of so few photographs may be higher for nothing."""
_NEAREST_APART = 0.65
"""Where so large a share of photographs lies nearest to one of its own source, two are told apart at once."""


@dataclass(frozen=True, slots=True)
class Alike:
    """Two sources that cannot be told apart better than halves of one.

    ``auc`` : how well a model that has learnt from some of their photographs tells whose the others are;
    ``halves`` : the same of halves of either source, drawn at random, the highest. ``shared`` : groups of
    near-duplicates with photographs of both.
    """

    sources: tuple[str, str]
    auc: float
    halves: float
    shared: int


def alike(material: Material) -> list[Alike]:
    """Such pairs among the sources of a set that has vectors, and ``LEAST_IMAGES`` photographs of each."""
    own = {
        name: _first_of_groups(material, (material.names == name) & ~material.fake)
        for name in sorted(set(material.names[~material.fake].tolist()))
    }
    own = {name: at for name, at in own.items() if len(at) >= LEAST_IMAGES}
    x = material.vectors[material.layer]
    halves: dict[str, float] = {}
    found = []
    for pair in combinations(own, 2):
        n = min(len(own[name]) for name in pair)
        at = [own[name][:n] for name in pair]
        if _nearest_is_own(x[np.concatenate(at)], n) >= _NEAREST_APART:
            continue
        for name in pair:
            if name not in halves:
                halves[name] = _of_halves(x, own[name])
        auc, highest = _told_apart(x, at[0], at[1]), max(halves[name] for name in pair)
        if auc <= highest + _CHANCE:
            a, b = (material.groups[(material.names == name) & ~material.fake] for name in pair)
            found.append(Alike(pair, auc, highest, len(np.intersect1d(a, b))))
    return found


def _first_of_groups(material: Material, mine: Bool) -> Int64:
    """One photograph a group, in an order drawn by content id alone, at most ``_AT_MOST``."""
    at = np.flatnonzero(mine)
    at = np.sort(at[np.unique(material.groups[at], return_index=True)[1]])
    drawn = np.random.default_rng(0).permutation(at)[:_AT_MOST]
    return drawn.astype(np.int64)


def _nearest_is_own(x: Float32, n: int) -> float:
    """The share of 2n photographs, n of each source, whose nearest is of their own."""
    cosines = x @ x.T
    np.fill_diagonal(cosines, -np.inf)
    source = np.repeat([False, True], n)
    return float(np.mean(source[cosines.argmax(axis=1)] == source))


def _of_halves(x: Float32, mine: Int64) -> float:
    """The highest AUC of halves drawn at random."""
    draws = (np.random.default_rng(seed).permutation(mine) for seed in range(_DRAWS))
    return max(_told_apart(x, drawn[::2], drawn[1::2]) for drawn in draws)


def _told_apart(x: Float32, a: Int64, b: Int64) -> float:
    """AUC of whose a photograph is, by a model that has learnt from the others; 0.5 is by chance."""
    chosen, second = np.concatenate([a, b]), np.repeat([False, True], [len(a), len(b)])
    folds = group_folds(second, np.arange(len(chosen)))
    return auroc(out_of_fold(logistic, x[chosen].astype(np.float64), second, folds), second)
