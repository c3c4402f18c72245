"""The nested protocol: a generator family and a photo source held out together, twice over.

Outer folds are reported and choose nothing. Within the training part of each, the same is done again
with the families and sources that are left, and choices are made by those inner folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.scoring.neighbours import NearestImages
from retrieval_detect.scoring.weights import reference_weights
from retrieval_detect.store.training import load_training_set

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench._data import Embeddings
    from retrieval_detect.types import Float32, Split
    from retrieval_detect.vectors import Rows

    Mask = NDArray[np.bool_]

SPLITS: tuple[Split, Split] = ("bank", "calib")
OUTER_N, INNER_N = (0, 5, 20, 50), (0, 5, 20)
SEEDS = (0, 1, 2)
FAMILIES = {"sd1_diffusiondb": "latent diffusion", "latent_diffusion": "latent diffusion"}
"""Generators of one kind; every other is a family of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """All images, with what the protocol must know of each; arrays have length n.

    ``place`` : position in its folder; of every five, the last is only asked about, the fourth plays
    that part within the training, the first two are what a held-out generator is taught with.
    ``calib`` : set aside by rd's split rule: neither votes nor trains, and calibrates scores.
    """

    rows: Rows
    place: NDArray[np.int64]
    calib: Mask

    def __post_init__(self) -> None:
        if len({len(self.rows), len(self.place), len(self.calib)}) != 1:
            raise ValueError("one place and one split an image")

    @classmethod
    def of(cls, found: Embeddings, work: Path) -> World:
        """All images, with groups and splits as an index of them has them."""
        snapshot = found.index(work / "all", found.samples).snapshot()
        bank, aside = (load_training_set(snapshot, found.layers, split=split) for split in SPLITS)
        rows = bank.followed_by(aside)
        places = {str(sample.path): sample.place for sample in found.samples}
        stored = snapshot.take(rows.row_ids.tolist(), ["uri"])
        place = np.array([places[row["uri"]] for row in stored])
        return cls(rows, place, np.arange(len(rows)) >= len(bank))

    @property
    def families(self) -> NDArray[np.str_]:
        """The family of each image; that of a photograph is empty."""
        names = [FAMILIES.get(str(name), str(name)) for name in self.rows.names]
        return np.where(self.rows.fake, np.array(names), "")


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One family and one source held out; masks are bool (n,) over the world.

    ``known`` : references that vote and train. ``calib`` : images of known names that set thresholds.
    ``pool`` : what the family may be taught with. ``queries`` : who is asked about. ``unseen`` : which
    photographs are of the source held out.
    """

    family: str
    source: str
    seed: int
    known: Mask
    calib: Mask
    pool: Mask
    queries: Mask
    unseen: Mask

    def taught(self, n: int) -> Mask:
        """References once ``n`` images of each generator of the family are added, drawn by the seed."""
        return self.known | self._drawn(n)

    def _drawn(self, n: int) -> Mask:
        members = np.flatnonzero(self.pool)
        chosen = np.random.default_rng(self.seed).permutation(members)
        mask = np.zeros(len(self.pool), bool)
        mask[chosen[:n]] = True
        return mask


def outer_folds(world: World, seeds: Sequence[int] = SEEDS) -> Iterator[Fold]:
    """Every family once a seed, each time with another source."""
    families, sources = _names(world)
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(sources))
        for number, family in enumerate(families):
            source = sources[order[(number + seed) % len(sources)]]
            yield _fold(world, np.ones(len(world.place), bool), (family, source, seed), asked=4)


def inner_folds(world: World, outer: Fold) -> Iterator[Fold]:
    """The same within the references of an outer fold, whose own family and source are not there."""
    inside = (outer.known | outer.calib) & (world.place % 5 != 4)
    families, sources = _names(world, inside)
    order = np.random.default_rng(outer.seed + 100).permutation(len(sources))
    for number, family in enumerate(families):
        source = sources[order[number % len(sources)]]
        yield _fold(world, inside, (family, source, outer.seed), asked=3)


def thinned(world: World, fold: Fold, n: int | None) -> Fold:
    """The fold with only ``n`` of the references of each label that it knows, drawn by its seed."""
    if n is None:
        return fold
    order, kept = np.random.default_rng(fold.seed).permutation(len(fold.known)), np.zeros_like(fold.known)
    for label in (True, False):
        own = fold.known & (world.rows.fake == label)
        kept[order[own[order]][:n]] = True
    return replace(fold, known=kept)


def _names(world: World, inside: Mask | None = None) -> tuple[list[str], list[str]]:
    chosen = np.ones(len(world.place), bool) if inside is None else inside
    fake = world.rows.fake
    families = sorted(set(world.families[fake & chosen].tolist()))
    sources = sorted(set(world.rows.names[~fake & chosen].tolist()))
    return families, sources


def _fold(world: World, inside: Mask, held: tuple[str, str, int], *, asked: int) -> Fold:
    family, source, seed = held
    fake, place = world.rows.fake, world.place % 5
    own = inside & (world.families == family)
    unseen = inside & ~fake & (world.rows.names == source)
    rest = inside & ~own & ~unseen & (place != asked)
    pool = own & ~world.calib & np.isin(place, (0, 1))
    queries = (own & ~np.isin(place, (0, 1))) | (inside & ~fake & (place == asked))
    known = rest & ~world.calib
    # A group on both sides would let an image vote on its own copy.
    asked_groups = np.unique(world.rows.groups[queries])
    free = ~np.isin(world.rows.groups, asked_groups)
    return Fold(
        family, source, seed, known & free, rest & world.calib & free, pool & free, queries, unseen & queries
    )


def nearest(world: World, z: Float32, bank: Mask, asked: Mask, *, wanted: int | None = None) -> NearestImages:
    """The ``wanted`` rows of a bank (all of them if not given) in the order of each query.

    ``z`` : float32 (n, d), unit norm, the whole world as banks would hold it. Equal ones go by row id.
    """
    rows = world.rows.take(bank)
    weights = reference_weights(rows.names, rows.row_ids, groups=rows.groups)
    similarities = z[asked] @ z[bank].T
    wanted = min(len(rows), wanted or len(rows))
    near = np.argpartition(-similarities, wanted - 1, axis=1)[:, :wanted]
    found = np.take_along_axis(similarities, near, 1)
    order = np.lexsort((rows.row_ids[near], -found), axis=-1)
    near = np.take_along_axis(near, order, 1)
    return NearestImages(
        np.take_along_axis(found, order, 1).astype(np.float64),
        weights[near],
        np.zeros_like(near),
        rows.row_ids[near],
        np.full(len(near), wanted),
        len(rows),
    )
