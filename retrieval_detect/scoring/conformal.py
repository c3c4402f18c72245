"""Split-conformal p-values: how many known images of a kind score as extremely as this one.

Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a random world", §2.2; with a calibration set
per source or generator (Mondrian), §4.5. The promise holds for images exchangeable with the
calibration images and says nothing about other cameras, sites or generators.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.names import spelling

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from retrieval_detect.types import Float64

ALPHA = 0.05
BETA = 0.05
TRAITS = ("format", "size")
"""What is known of every query, so that photographs can be compared with their like."""
_SIZES = (256, 512, 1024, 2048)

MIN_GENERATOR = 19
"""Calibration images a generator needs for a p-value of its own: with fewer, none can reach 5 %."""


def photographs_needed(alpha: float) -> int:
    """How many calibration photographs a rate of ``alpha`` needs, so that a p-value can be as small."""
    return math.ceil(1 / alpha) - 1


def at_least(calibration: Float64, scores: ArrayLike) -> Float64:
    """(1 + number of ``calibration`` >= score) / (n + 1). ``calibration`` : float64 (n,), ascending."""
    n = len(calibration)
    below = np.searchsorted(calibration, np.asarray(scores, dtype=np.float64), side="left")
    share: Float64 = (1 + n - below) / (n + 1)
    return share


def at_most(calibration: Float64, scores: ArrayLike) -> Float64:
    """(1 + number of ``calibration`` <= score) / (n + 1). ``calibration`` : float64 (n,), ascending."""
    n = len(calibration)
    upto = np.searchsorted(calibration, np.asarray(scores, dtype=np.float64), side="right")
    share: Float64 = (1 + upto) / (n + 1)
    return share


@dataclass(frozen=True, slots=True, eq=False)
class Conformal:
    """Calibration scores, positive = fake; all arrays float64, ascending.

    ``real`` : source → scores of its calibration photographs. ``fake`` : generator → scores of its
    calibration images. ``typical`` : of both, the larger of the mean similarities to the two banks.
    ``traits`` : what an image shows by itself (``TRAITS``) → value → scores of the calibration
    photographs that have it.
    """

    real: Mapping[str, Float64]
    fake: Mapping[str, Float64]
    typical: Float64
    traits: Mapping[str, Mapping[str, Float64]] = field(default_factory=dict)

    def n_real(self, source: str | None = None) -> int:
        """Calibration photographs, of one source or of all."""
        return sum(len(scores) for scores in self._photographs(source))

    @property
    def photographs(self) -> Float64:
        """Scores of all calibration photographs, ascending."""
        return np.sort(np.concatenate([np.empty(0), *self.real.values()]))

    def _photographs(self, source: str | None) -> list[Float64]:
        if source is None:
            return list(self.real.values())
        found = [scores for name, scores in self.real.items() if spelling(name) == spelling(source)]
        if not found:
            hint = f"Sources that have some: {', '.join(sorted(self.real))}"
            raise UsageError(f"there are no calibration photographs of source {source!r}", hint=hint)
        return found

    def compared(
        self, alpha: float, *, within: str | None, source: str | None, traits: Mapping[str, str]
    ) -> dict[str, Float64]:
        """The sets of photographs that an image is compared with; its p-value is the largest of theirs.

        Mondrian: all photographs together; or those of ``source``; or ``within`` a trait those that share
        the image's own, where enough do. Else, and within ``"source"``, every set that is large enough
        for a rate of ``alpha``: then the promise holds whichever of them the image belongs to. Raises
        ``UsageError`` where no set is.
        """
        sets = self._sets(within, source)
        needed = photographs_needed(alpha)
        own = traits.get(within or "", "")
        if source is None and len(sets.get(own, ())) >= needed:
            return {own: sets[own]}
        large = {name: scores for name, scores in sets.items() if len(scores) >= needed}
        if not large:
            self.require(alpha, source=source, within=within)
        return large

    def _sets(self, within: str | None, source: str | None) -> Mapping[str, Float64]:
        if within is None or source is not None:
            return {source or "": np.sort(np.concatenate(self._photographs(source)))}
        if within == "source":
            return self.real
        if within not in TRAITS:
            raise UsageError(
                f"photographs are not told apart by {within!r}", hint=f"Choose source, {' or '.join(TRAITS)}."
            )
        if within not in self.traits:
            raise UsageError(
                f"this calibration does not know the {within} of its photographs",
                hint="Fit it again: rd fit calibration",
            )
        return self.traits[within]

    def require(self, alpha: float, *, source: str | None = None, within: str | None = None) -> None:
        """Raise ``UsageError`` if there are too few calibration images for false alarms at ``alpha``."""
        if why := self.lacking(alpha, source=source, within=within):
            way_out = "Add fakes" if self.lacking_fakes() else "Ask for a higher --fpr, or add references"
            raise UsageError(why, hint=f"{way_out}: a fifth of each name's is set aside.")

    def lacking(self, alpha: float, *, source: str | None = None, within: str | None = None) -> str:
        """How many calibration images are missing for false alarms at ``alpha``, in words; empty: none.

        Raises ``UsageError`` for what is no rate, and for a source that has no photographs here.
        """
        if not 0 < alpha < 1:
            raise UsageError(f"a false-alarm rate of {alpha} is not between 0 and 1")
        if within is None or source is not None:
            n = self.n_real(source)
        else:
            n = max(map(len, self._sets(within, source).values()), default=0)
        photographs = (
            f"a false-alarm rate of {alpha:.3%} needs {needed:,} calibration photographs"
            f"{' in one set' * (within is not None)}, there are {n:,}, {needed - n:,} too few"
            if (needed := photographs_needed(alpha)) > n
            else ""
        )
        return "; ".join(filter(None, (photographs, self.lacking_fakes())))

    def lacking_fakes(self) -> str:
        """How many calibration images of fakes are missing, whatever the rate, in words; empty: none."""
        n = sum(map(len, self.fake.values()))
        if n >= MIN_GENERATOR:
            return ""
        return (
            f"of fakes, no generator has {MIN_GENERATOR} calibration images, nor have all of them together, "
            f"{n}: {MIN_GENERATOR - n} too few"
        )

    def p_fake(self, scores: ArrayLike) -> Float64:
        """Share of the best-fitting generator's calibration images that score as low, float64 (q,), 0…1.

        Generators that are too small count together, where together they are large enough.
        """
        large = [known for known in self.fake.values() if len(known) >= MIN_GENERATOR]
        small = [known for known in self.fake.values() if len(known) < MIN_GENERATOR]
        pooled = np.sort(np.concatenate(small)) if small else np.empty(0)
        strata = [*large, pooled] if len(pooled) >= MIN_GENERATOR else large
        fits: Float64 = np.max([at_most(known, scores) for known in strata], axis=0)
        return fits


def rate_interval(alpha: float, n: int) -> tuple[float, float]:
    """Between which two the true rate of "p <= alpha" lies with 95 %, over the draw of n photographs.

    It is Beta(r, n + 1 - r), r = floor(alpha (n + 1)); see ``confident_alpha``.
    """
    from scipy.special import betaincinv

    rank = math.floor(alpha * (n + 1))
    if not rank:
        return 0.0, 0.0
    low, high = betaincinv(rank, n + 1 - rank, [0.025, 0.975]).tolist()
    return low, high


def benjamini_hochberg(p: ArrayLike, q: float) -> float:
    """The cutoff c such that calling "p <= c" keeps the expected share of false discoveries at ``q``.

    ``p`` : float64 (m,), the p-values of a batch. 0 where nothing can be called. Benjamini and Hochberg
    1995; conformal p-values of one calibration set depend on each other in a way that it allows (Bates,
    Candès, Lei, Romano and Sesia 2023, "Testing for outliers with conformal p-values", Theorem 2).
    """
    ordered = np.sort(np.asarray(p, dtype=np.float64).ravel())
    limits = q * np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
    below = np.flatnonzero(ordered <= limits)
    return float(limits[below[-1]]) if below.size else 0.0


def traits_of(formats: Sequence[str], sizes: Iterable[tuple[int, int]]) -> dict[str, list[str]]:
    """Each of ``TRAITS`` → its value for every image; ``sizes`` : widths and heights."""
    return {"format": list(formats), "size": [size_class(int(w), int(h)) for w, h in sizes]}


def size_class(width: int, height: int) -> str:
    """An image's shorter side, roughly: what it was scaled to is what it was saved for."""
    shorter = min(width, height)
    return next((f"below {edge}" for edge in _SIZES if shorter < edge), f"{_SIZES[-1]} and more")


def confident_alpha(alpha: float, n: int, *, confidence: float) -> float:
    """The rate to use so that the true one is at most ``alpha`` with probability ``confidence``.

    Over the draw of n calibration photographs, the rate of the test "p <= r/(n+1)" is Beta(r, n+1-r)
    (Vovk 2012, "Conditional validity of inductive conformal predictors", §2). Raises ``UsageError``
    if n is too small for any r, and for a confidence that no number of photographs gives.
    """
    from scipy.special import betainc

    if not 0 < confidence < 1:
        raise UsageError(f"a confidence of {confidence} is not between 0 and 1")

    ranks = np.arange(1, math.floor(alpha * (n + 1)) + 1)
    holds = ranks[betainc(ranks, n + 1 - ranks, alpha) >= confidence]
    if not holds.size:
        needed = math.ceil(math.log(1 - confidence) / math.log(1 - alpha))
        raise UsageError(
            f"{alpha:.3%} with confidence {confidence:.0%} needs {needed:,} calibration photographs, "
            f"there are {n:,}",
            hint="Ask for a higher rate or a lower confidence (--fpr RATE,confidence=P), or add photographs.",
        )
    return float(holds[-1] / (n + 1))
