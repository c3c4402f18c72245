"""Split-conformal p-values: how many known images of a kind score as extremely as this one.

Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a random world", §2.2; with a calibration set
per source or generator (Mondrian), §4.5. The promise holds for images exchangeable with the
calibration images and says nothing about other cameras, sites or generators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from retrieval_detect.types import VerdictName

    Float64 = NDArray[np.float64]

ALPHA = 0.05
BETA = 0.05
TYPICAL = 0.01
"""Below this share of typical images, an image is like neither bank: unknown."""

MIN_GENERATOR = 19
"""Calibration images a generator needs for a p-value of its own: with fewer, none can reach 5 %."""


def at_least(calibration: Float64, scores: ArrayLike) -> Float64:
    """(1 + number of ``calibration`` >= score) / (n + 1). ``calibration`` : float64 (n,), ascending."""
    n = len(calibration)
    below = np.searchsorted(calibration, np.asarray(scores, dtype=np.float64), side="left")
    share: Float64 = (1 + n - below) / (n + 1)
    return share


def at_most(calibration: Float64, scores: ArrayLike) -> Float64:
    """(1 + number of ``calibration`` <= score) / (n + 1). ``calibration`` : float64 (n,), ascending."""
    n = len(calibration)
    share: Float64 = (
        1 + np.searchsorted(calibration, np.asarray(scores, dtype=np.float64), side="right")
    ) / (n + 1)
    return share


@dataclass(frozen=True, slots=True, eq=False)
class PValues:
    """For q queries, each float64 (q,), 0…1.

    ``real`` : share of calibration photographs that score as high. ``fake`` : share of the best-fitting
    generator's images that score as low. ``typical`` : share of all that lie as far from both banks.
    """

    real: Float64
    fake: Float64
    typical: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Conformal:
    """Calibration scores, positive = fake; all arrays float64, ascending.

    ``real`` : source → scores of its calibration photographs. ``fake`` : generator → scores of its
    calibration images. ``typical`` : of both, the larger of the mean similarities to the two banks.
    """

    real: Mapping[str, Float64]
    fake: Mapping[str, Float64]
    typical: Float64

    def n_real(self, source: str | None = None) -> int:
        """Calibration photographs, of one source or of all."""
        return sum(len(scores) for scores in self._photographs(source))

    def _photographs(self, source: str | None) -> list[Float64]:
        if source is None:
            return list(self.real.values())
        if source not in self.real:
            hint = f"Sources that have some: {', '.join(sorted(self.real))}"
            raise UsageError(f"there are no calibration photographs of source {source!r}", hint=hint)
        return [self.real[source]]

    def require(self, alpha: float, *, source: str | None = None) -> None:
        """Raise ``UsageError`` if there are too few calibration images for false alarms at ``alpha``."""
        if not 0 < alpha < 1:
            raise UsageError(f"a false-alarm rate of {alpha} is not between 0 and 1")
        needed = math.ceil(1 / alpha) - 1
        n = self.n_real(source)
        if n < needed:
            raise UsageError(
                f"a false-alarm rate of {alpha:.3%} needs {needed:,} calibration photographs, "
                f"there are {n:,}",
                hint="Ask for a higher --fpr, or add photographs: a fifth of each source is set aside.",
            )
        if not self._fake_strata():
            raise UsageError(
                f"no generator has {MIN_GENERATOR} calibration images, nor have all of them together",
                hint="Add fakes: a fifth of each generator with 25 images or more is set aside.",
            )

    def p_values(self, scores: ArrayLike, typical: ArrayLike, *, source: str | None = None) -> PValues:
        """p-values of queries. ``source`` : judge by the photographs of one source alone."""
        photographs = np.sort(np.concatenate(self._photographs(source)))
        fake = np.max([at_most(stratum, scores) for stratum in self._fake_strata()], axis=0)
        return PValues(at_least(photographs, scores), fake, at_most(self.typical, typical))

    def _fake_strata(self) -> list[Float64]:
        """One a generator that is large enough; the small ones together, if they are."""
        large = [scores for scores in self.fake.values() if len(scores) >= MIN_GENERATOR]
        small = [scores for scores in self.fake.values() if len(scores) < MIN_GENERATOR]
        pooled = np.sort(np.concatenate(small)) if small else np.empty(0)
        return [*large, pooled] if len(pooled) >= MIN_GENERATOR else large


def verdict(
    p_real: float, p_fake: float, p_typical: float, *, alpha: float = ALPHA, beta: float = BETA
) -> VerdictName:
    """The four answers of design §9; P(fake-like | exchangeable photograph) <= ``alpha``."""
    fits_real, fits_fake = p_real > alpha, p_fake > beta
    if p_typical <= TYPICAL or not (fits_real or fits_fake):
        return "unknown"
    if fits_real and fits_fake:
        return "uncertain"
    return "fake-like" if fits_fake else "real-like"


def confident_alpha(alpha: float, n: int, *, confidence: float) -> float:
    """The rate to use so that the true one is at most ``alpha`` with probability ``confidence``.

    Over the draw of n calibration photographs, the rate of the test "p <= r/(n+1)" is Beta(r, n+1-r)
    (Vovk 2012, "Conditional validity of inductive conformal predictors", §2). Raises ``UsageError``
    if n is too small for any r.
    """
    from scipy.special import betainc

    ranks = np.arange(1, math.floor(alpha * (n + 1)) + 1)
    holds = ranks[betainc(ranks, n + 1 - ranks, alpha) >= confidence]
    if not holds.size:
        needed = math.ceil(math.log(1 - confidence) / math.log(1 - alpha))
        raise UsageError(
            f"{alpha:.3%} with confidence {confidence:.0%} needs {needed:,} calibration photographs, "
            f"there are {n:,}",
            hint="Ask for a higher --fpr or a lower --confidence, or add photographs.",
        )
    return float(holds[-1] / (n + 1))
