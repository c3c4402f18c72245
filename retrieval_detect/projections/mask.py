"""Drop the coordinates that mislead on generators not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from retrieval_detect.options import option
from retrieval_detect.projections.base import Fitting, classes, joined, part, require_generators
from retrieval_detect.projections.heads import selection
from retrieval_detect.projections.inner import Trial
from retrieval_detect.scoring.metrics import auc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.search.projection import Affine
    from retrieval_detect.types import Bool, Float32
    from retrieval_detect.vectors import Rows

    Float64 = NDArray[np.float64]

MAX_ROWS = 8_000
FIRST_BLOCK = 20
"""One coordinate in so many is dropped at once to begin with."""


@dataclass(frozen=True)
class Mask(Fitting):
    """z = unit(x of the coordinates kept): greedy removal of Gaintseva et al. 2024 (arXiv 2406.15035).

    A linear score is fitted on each generator A against half of the photographs, w = (mean_A − mean_R) /
    variance a coordinate, and judged on every other generator against the other half. Coordinates whose
    removal raises the mean AUC most are dropped in blocks; a block that does not raise it is halved,
    down to one. Which to try is told by the AUC of normal scores, Φ(difference of means / root of the
    summed variances), for all coordinates at once; whether to drop them, by the AUC itself.
    """

    kind: ClassVar[str] = "mask"
    steps: int = option(40, "Blocks tried at most.", low=1)
    max_removed: float = option(0.5, "Share of the coordinates dropped at most.", low=0.0, high=0.95)
    seed: int = option(0, "Seed of the sample, where there are more than 8,000 references.", low=0)

    def fit(self, rows: Rows, layers: Sequence[str]) -> Affine:
        """See ``Fitting``."""
        require_generators(rows, self.kind)
        trial = Trial.of(rows, at_most=MAX_ROWS, seed=self.seed)
        trial.require()
        contest = _Contest.of(trial, joined(trial.rows, layers))
        kept, before, after = self._greedy(contest)
        return self.affine(
            [part(layer, rows) for layer in layers],
            matrix=selection(len(kept), np.flatnonzero(kept)),
            removed=int((~kept).sum()),
            linear_auc=[round(before, 4), round(after, 4)],
        )

    def _greedy(self, contest: _Contest) -> tuple[Bool, float, float]:
        d = len(contest.weights)
        kept, block = np.ones(d, bool), max(1, d // FIRST_BLOCK)
        before = found = contest.auc(kept)
        for _ in range(self.steps):
            allowed = min(block, int(self.max_removed * d) - int((~kept).sum()))
            gains = np.where(kept, contest.gains(kept), -np.inf)
            worst = np.argsort(-gains, kind="stable")[: max(allowed, 0)]
            worst = worst[gains[worst] > 0]
            if not worst.size:
                break
            tried = kept.copy()
            tried[worst] = False
            score = contest.auc(tried)
            if score > found:
                kept, found = tried, score
            elif block == 1:
                break
            else:
                block //= 2
        return kept, before, found


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """One generator's fakes, or half of the photographs: ``centred`` float32 (n, d), moments (d, 1)."""

    centred: Float32
    mean: Float32
    variance: Float32

    @classmethod
    def of(cls, x: Float32) -> _Sample:
        mean = x.mean(axis=0)
        return cls(x - mean, mean[:, None], x.var(axis=0)[:, None])

    def scores(self, weights: Float32) -> NDArray[np.floating[Any]]:
        """Floating point (n, t)."""
        return (self.centred + self.mean.T) @ weights

    def without_each(self, weights: Float32) -> tuple[Float64, Float64]:
        """Mean and variance of each score without each coordinate in turn; last, with all. (d + 1, t)."""
        offsets = self.centred @ weights
        covariance = self.centred.T @ offsets / len(offsets)
        mean = (self.mean.T @ weights).astype(np.float64)
        variance = np.square(offsets, dtype=np.float64).mean(axis=0, keepdims=True)
        less = variance - 2 * weights * covariance + weights**2 * self.variance
        means = np.vstack([mean - weights * self.mean, mean])
        return means, np.vstack([np.maximum(less, 0), variance])


@dataclass(frozen=True, slots=True, eq=False)
class _Contest:
    """Scores t = (generator fitted on, half of the photographs fitted on), and what they are judged on.

    ``weights`` : float32 (d, t). Score t was fitted on generator t // 2 and half t % 2.
    """

    generators: list[_Sample]
    halves: list[_Sample]
    weights: Float32

    @classmethod
    def of(cls, trial: Trial, x: Float32) -> _Contest:
        rows, half = trial.rows, trial.folds[trial.positions] % 2
        codes = classes(rows)
        generators = [_Sample.of(x[codes == code]) for code in range(1, codes.max() + 1)]
        halves = [_Sample.of(x[~rows.fake & (half == side)]) for side in (0, 1)]
        spread = np.mean([s.variance for s in (*generators, *halves)], axis=0)
        # A coordinate that hardly varies within a kind would outweigh all others by rounding alone.
        spread += np.maximum(spread.mean(), np.finfo(np.float32).tiny) * 1e-2
        weights = [(g.mean - h.mean) / spread for g in generators for h in halves]
        return cls(generators, halves, np.hstack(weights).astype(np.float32))

    def auc(self, kept: Bool) -> float:
        """Mean over scores and the generators that they were not fitted on."""
        weights = self.weights * kept[:, None]
        fakes = [g.scores(weights) for g in self.generators]
        photographs = [h.scores(weights) for h in self.halves]
        return float(
            np.mean(
                [
                    auc(fakes[g][:, t], photographs[1 - t % 2][:, t])
                    for t in range(weights.shape[1])
                    for g in range(len(fakes))
                    if g != t // 2
                ]
            )
        )

    def gains(self, kept: Bool) -> Float64:
        """By how much dropping each coordinate raises the mean AUC of normal scores, float64 (d,)."""
        from scipy.special import ndtr

        weights = self.weights * kept[:, None]
        fitted_on = np.arange(weights.shape[1])
        halves = [h.without_each(weights) for h in self.halves]
        mean_real, var_real = (
            np.where(fitted_on % 2, halves[0][moment], halves[1][moment]) for moment in (0, 1)
        )
        total = np.zeros(len(weights) + 1)
        for number, generator in enumerate(self.generators):
            mean, variance = generator.without_each(weights)
            spread = np.sqrt(np.maximum(variance + var_real, np.finfo(np.float64).tiny))
            total += ndtr((mean - mean_real) / spread)[:, fitted_on // 2 != number].sum(axis=1)
        judged = weights.shape[1] * (len(self.generators) - 1)
        gains: Float64 = (total[:-1] - total[-1]) / judged
        return gains
