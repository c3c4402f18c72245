"""Score → log10 likelihood ratio: how many times likelier a fake is to score so than a photograph.

Fitted with both classes weighing alike, so that no prior is built in; bounded by what so many images
can show. Brümmer and du Preez 2006, "Application-independent evaluation of speaker detection", §5-7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from retrieval_detect.types import Float64

LikelihoodMethod: TypeAlias = Literal["logistic", "isotonic"]
LIKELIHOOD_METHODS: tuple[LikelihoodMethod, ...] = ("logistic", "isotonic")


@dataclass(frozen=True, slots=True, eq=False)
class LikelihoodRatio:
    """A monotone map, by its knots: float64 (m,), ``scores`` ascending, ``log10_lr`` not descending."""

    scores: Float64
    log10_lr: Float64

    @classmethod
    def from_lists(cls, scores: Sequence[float], log10_lr: Sequence[float]) -> LikelihoodRatio:
        """Of the knots as a file has them; ``ValueError`` for such as are no monotone map."""
        knots, ratios = np.asarray(scores, np.float64), np.asarray(log10_lr, np.float64)
        fit = knots.ndim == 1 and knots.shape == ratios.shape and knots.size
        if not fit or not (np.isfinite(knots).all() and np.isfinite(ratios).all()):
            raise ValueError("a likelihood ratio needs as many ratios as scores, all finite")
        if (np.diff(knots) < 0).any() or (np.diff(ratios) < 0).any():
            raise ValueError("scores and their ratios must be ascending")
        return cls(knots, ratios)

    def __call__(self, scores: ArrayLike) -> Float64:
        """log10 likelihood ratio of scores, any shape; constant beyond the outermost knots."""
        ratio: Float64 = np.interp(np.asarray(scores, np.float64), self.scores, self.log10_lr)
        return ratio


def fit_likelihood_ratio(
    scores_fake: ArrayLike,
    scores_real: ArrayLike,
    *,
    method: LikelihoodMethod = "logistic",
    weights: tuple[Float64, Float64] | None = None,
    units: tuple[int, int] | None = None,
) -> LikelihoodRatio:
    """Fit on calibration scores, positive = fake, (n,) and (m,).

    ``weights`` : of each score, float64 (n,) and (m,); alike by default. ``units`` : how many independent
    fakes and photographs there are, n and m by default. Bounded by log10(m + 1) above and -log10(n + 1)
    below: nothing rarer than one in so many was seen.
    """
    fake, real = np.asarray(scores_fake, np.float64), np.asarray(scores_real, np.float64)
    if not (fake.size and real.size):
        raise UsageError("a likelihood ratio needs scores of fakes and of photographs")
    scores = np.concatenate([fake, real])
    is_fake = np.r_[np.ones(len(fake)), np.zeros(len(real))]
    sides = weights or (np.ones(len(fake)), np.ones(len(real)))
    fit = _isotonic if method == "isotonic" else _logistic
    knots, log_odds = fit(scores, is_fake, np.concatenate([side / (2 * side.sum()) for side in sides]))
    n_fake, n_real = units or (len(fake), len(real))
    bounds = -np.log10(n_fake + 1), np.log10(n_real + 1)
    return LikelihoodRatio(knots, np.clip(log_odds / np.log(10), *bounds))


def _logistic(scores: Float64, is_fake: Float64, weights: Float64) -> tuple[Float64, Float64]:
    from sklearn.linear_model import LogisticRegression

    spread = scores.std() or 1.0
    model = LogisticRegression(C=1e4).fit(
        scores[:, None] / spread, is_fake, sample_weight=weights * len(scores)
    )
    # A fit that found fakes scoring lower than photographs says that the scores tell nothing.
    slope = max(float(model.coef_[0, 0]), 0.0) / spread
    intercept = float(model.intercept_[0]) if slope else 0.0
    knots = np.linspace(scores.min(), scores.max(), 65)
    return knots, slope * knots + intercept


def _isotonic(scores: Float64, is_fake: Float64, weights: Float64) -> tuple[Float64, Float64]:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1).fit(scores, is_fake, sample_weight=weights)
    share = model.y_thresholds_
    with np.errstate(divide="ignore"):
        return model.X_thresholds_, np.log(share) - np.log1p(-share)


def probability(log10_lr: ArrayLike, prior: float) -> Float64:
    """Chance of a fake, by Bayes' rule, if a share ``prior`` of such images is fake, 0 < prior < 1."""
    if not 0 < prior < 1:
        raise UsageError(f"a prior of {prior} is not between 0 and 1")
    log_odds = np.asarray(log10_lr, np.float64) * np.log(10) + np.log(prior / (1 - prior))
    chance: Float64 = 1 / (1 + np.exp(-log_odds))
    return chance


def cllr(lr_fake: ArrayLike, lr_real: ArrayLike) -> float:
    """Cost of log10 likelihood ratios in bits: 0 perfect, 1 for a map that says nothing, above that harm.

    Brümmer and du Preez 2006, eq. 57.
    """
    fake, real = (np.asarray(lr, np.float64) * np.log(10) for lr in (lr_fake, lr_real))
    misses, alarms = np.logaddexp(0, -fake).mean(), np.logaddexp(0, real).mean()
    return float((misses + alarms) / (2 * np.log(2)))
