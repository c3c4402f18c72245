"""Which choice detects generators and photographs it has not seen, judged on bank rows alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.metrics import auc
from retrieval_detect.scoring.neighbours import NearestImages
from retrieval_detect.scoring.vote import DEFAULT_K, TEMPERATURE, vote
from retrieval_detect.scoring.weights import reference_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Float32, Int64, Label, Method
    from retrieval_detect.vectors import Rows

    Float64 = NDArray[np.float64]

MAX_FOLDS = 12
GROUP_FOLDS = 5
MAX_ROWS = 4_000
"""Their similarities take 64 MB."""


@dataclass(frozen=True, slots=True)
class Vote:
    """A vote of ``scoring.vote`` with its settings; ``k=None`` is the method's default."""

    method: Method = "density"
    k: int | None = None
    temperature: float = TEMPERATURE


BALANCED = Vote()
"""The density vote of design §9."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """References that choices are judged on, each as a query that its own name does not help.

    ``positions`` : int64 (m,), which of the n rows given are judged; ``rows`` : those. ``folds`` :
    int64 (n,), of all rows given: rows of one label and fold are held out together.

    A fold of a label is a generator or a source, or several where there are more than 12; where a
    label has a single name, a fifth of its groups.
    """

    rows: Rows
    positions: Int64
    folds: Int64

    @classmethod
    def of(cls, rows: Rows, *, at_most: int = MAX_ROWS, seed: int = 0) -> Trial:
        """Judge on ``rows``, or on a sample of them in which names are as equal as can be."""
        positions = spread(rows, at_most, seed=seed)
        return cls(rows.take(positions), positions, _folds(rows))

    def folds_of(self, label: Label) -> list[int]:
        """The folds of one label's judged rows."""
        mine = self.rows.fake == (label == "fake")
        found: list[int] = np.unique(self.folds[self.positions][mine]).tolist()
        return found

    @property
    def possible(self) -> bool:
        """Whether both labels can be held out in part."""
        return min(len(self.folds_of("real")), len(self.folds_of("fake"))) >= 2

    def require(self) -> None:
        """Raise ``UsageError`` unless that is ``possible``."""
        if not self.possible:
            raise UsageError(
                "choices are judged on generators and photographs held out, and there is nothing to hold out",
                hint="Add references of another generator, source or scene.",
            )

    def auc(
        self,
        z: Float32,
        *,
        vote: Vote = BALANCED,
        real: int | None = None,
        fake: int | None = None,
        known: int = 0,
    ) -> float:
        """Mean AUC over all pairs of a held-out generator and a held-out source.

        ``z`` : float32 (m, d), unit norm, the judged rows as the banks would hold them. For each pair,
        both banks are taken without it, and the generator's fakes and the source's photographs are
        scored. Rows of one group never vote for each other. ``real``, ``fake`` : only pairs with this
        fold of photographs, of fakes, for a ``z`` that was fitted without it. ``known`` : so many of the
        held-out generator's images are put back into the fake bank, as if they had been added to it.
        """
        return self.auc_of(z @ z.T, vote=vote, real=real, fake=fake, known=known)

    def auc_of(
        self,
        similarities: Float32,
        *,
        vote: Vote = BALANCED,
        real: int | None = None,
        fake: int | None = None,
        known: int = 0,
    ) -> float:
        """The same from similarities, float32 (m, m); they are overwritten between rows of one group."""
        self.require()
        groups = self.rows.groups
        np.copyto(similarities, -np.inf, where=groups[:, None] == groups)
        fakes, photographs = self._sides("fake", fake, known), self._sides("real", real)
        found = [_pair_auc(similarities, *pair, vote) for pair in product(fakes, photographs)]
        kept = [value for value in found if value is not None]
        if not kept:
            raise UsageError("no image has references of both labels left to vote on it")
        return float(np.mean(kept))

    def _sides(self, label: Label, fold: int | None, known: int = 0) -> list[_Side]:
        folds = self.folds_of(label) if fold is None else [fold]
        return [self._side(label, each, known) for each in folds]

    def _side(self, label: Label, fold: int, known: int) -> _Side:
        mine = self.rows.fake == (label == "fake")
        inside = self.folds[self.positions] == fold
        # At most half: somebody must be left to be asked about.
        back = np.flatnonzero(mine & inside)
        inside[back[np.linspace(0, len(back) - 1, min(known, len(back) // 2)).astype(int)]] = False
        queries, bank = np.flatnonzero(mine & inside), np.flatnonzero(mine & ~inside)
        rest = self.rows.take(bank)
        weights = reference_weights(rest.names, rest.row_ids, groups=rest.groups, batches=rest.batches)
        return _Side(queries, bank, weights)


def held_out_auc(z: Float32, rows: Rows, *, vote: Vote = BALANCED, seed: int = 0) -> float:
    """AUC on unseen generators and sources of a projection's outcome: see ``Trial.auc``.

    ``z`` : float32 (n, d), unit norm, one a row of ``rows``; more than 4,000 are sampled.
    """
    trial = Trial.of(rows, seed=seed)
    return trial.auc(z[trial.positions], vote=vote)


def spread(rows: Rows, at_most: int, *, seed: int) -> Int64:
    """Positions, int64 ascending, of at most that many rows: half of each label, names as equal as can be."""
    order = np.random.default_rng(seed).permutation(len(rows))
    positions = []
    for label in (False, True):
        members = order[rows.fake[order] == label]
        codes = np.unique(rows.names[members], return_inverse=True)[1]
        positions.append(members[np.argsort(_occurrence(codes), kind="stable")[: at_most // 2]])
    return np.sort(np.concatenate(positions))


def _occurrence(codes: Int64) -> Int64:
    """How many entries before each are equal to it."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    before = np.empty_like(order)
    before[order] = np.arange(len(codes)) - np.searchsorted(ordered, ordered)
    return before


def _folds(rows: Rows) -> Int64:
    folds = np.empty(len(rows), np.int64)
    for label in (False, True):
        members = rows.fake == label
        _, codes, counts = np.unique(rows.names[members], return_inverse=True, return_counts=True)
        if len(counts) > 1:
            rank = np.argsort(np.argsort(-counts, kind="stable"))
            folds[members] = rank[codes] % MAX_FOLDS
        else:
            folds[members] = np.unique(rows.groups[members], return_inverse=True)[1] % GROUP_FOLDS
    return folds


# ---------------------------------------------------------------- one pair held out


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """A fold of one label, and its bank without it; positions among the judged rows, int64."""

    queries: Int64
    bank: Int64
    log_weights: Float64


def _pair_auc(similarities: Float32, fake: _Side, real: _Side, by: Vote) -> float | None:
    """AUC of the pair's fakes against its photographs; ``None`` where no query is left."""
    queries = np.concatenate([fake.queries, real.queries])
    is_fake = np.arange(len(queries)) < len(fake.queries)
    near = [_nearest(similarities, queries, side, by) for side in (fake, real)]
    usable = (near[0].n > 0) & (near[1].n > 0)
    if not (usable & is_fake).any() or not (usable & ~is_fake).any():
        return None
    scores = vote(
        *(side.take(usable) for side in near), method=by.method, k=by.k, temperature=by.temperature
    ).scores
    return auc(scores[is_fake[usable]], scores[~is_fake[usable]])


def _nearest(similarities: Float32, queries: Int64, side: _Side, by: Vote) -> NearestImages:
    """The k nearest in a bank; ties are in any order, for no sum minds."""
    found = similarities[np.ix_(queries, side.bank)]
    k = min(by.k or DEFAULT_K[by.method], len(side.bank))
    columns = np.argpartition(found, len(side.bank) - k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(found, columns, 1), axis=1)
    columns = np.take_along_axis(columns, order, 1)
    values = np.take_along_axis(found, columns, 1).astype(np.float64)
    return NearestImages(
        values,
        side.log_weights[columns],
        np.zeros_like(columns),
        side.bank[columns],
        (values > -np.inf).sum(axis=1),
        len(side.bank),
    )
