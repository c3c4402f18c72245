"""What images score whose own source, or generator, has no part in the banks: the risk of a new source.

A photograph that is asked about mostly comes from a source that no bank has seen. So every source in turn is
taken out of the banks and of all that was fitted on them, and its photographs are asked about.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.scoring.likelihood import LikelihoodRatio, fit_likelihood_ratio

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from retrieval_detect.scoring.likelihood import LikelihoodMethod
    from retrieval_detect.types import Float64

MOST_FOLDS = 10
"""Sources are left out one by one up to so many; where there are more, several together."""
MOST_ROWS = 100
"""Images of one source, or generator, that are asked about at most."""
_DRAWS = 200
_CURVES = ("log10_lr", "low", "high")
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """The images of one source or generator, asked about without it.

    ``scores`` : float64 (n,), ascending, positive = fake. ``real_like`` : of a generator, the share of its
    images that came out so, 0…1, at the usual rate. ``taken_for`` : the generator that most of the highest
    scores were attributed to, or ``""``. ``nearest`` : row ids of the fakes nearest to the highest, the
    nearest first.
    """

    scores: Float64
    real_like: float = 0.0
    taken_for: str = ""
    nearest: tuple[int, ...] = ()

    def share_at_least(self, scores: ArrayLike) -> Float64:
        """The share of these images that score as high, 0…1, for each of ``scores``."""
        below = np.searchsorted(self.scores, np.asarray(scores, np.float64), side="left")
        share: Float64 = 1 - below / len(self.scores)
        return share

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "scores": self.scores.tolist(),
            "real_like": self.real_like,
            "taken_for": self.taken_for,
            "nearest": list(self.nearest),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LeftOut:
        """Inverse of ``to_json``."""
        scores = np.asarray(data["scores"], np.float64)
        if not scores.size or not np.isfinite(scores).all() or (np.diff(scores) < 0).any():
            raise ValueError("scores must be finite and ascending")
        nearest = tuple(int(row_id) for row_id in data["nearest"])
        return cls(scores, float(data["real_like"]), str(data["taken_for"]), nearest)


@dataclass(frozen=True, slots=True, eq=False)
class NewSources:
    """Every source and every generator left out, by name; ``why`` there is no such figure, in words.

    ``likelihood`` : score → log10 likelihood ratio of "a generator not among those of the index" over "a
    photograph of a source not among those of the index"; ``low`` and ``high`` : its interval of 95 %, at the
    same knots. ``None`` where either side has fewer than two names.
    """

    sources: Mapping[str, LeftOut] = field(default_factory=dict)
    generators: Mapping[str, LeftOut] = field(default_factory=dict)
    likelihood: LikelihoodRatio | None = None
    low: LikelihoodRatio | None = None
    high: LikelihoodRatio | None = None
    why: str = ""

    @classmethod
    def of(
        cls,
        sources: Mapping[str, LeftOut],
        generators: Mapping[str, LeftOut],
        *,
        method: LikelihoodMethod = "logistic",
        why: str = "",
    ) -> NewSources:
        """With the likelihood ratio that follows, and its interval: sources and generators are drawn anew."""
        if min(len(sources), len(generators)) < 2:
            return cls(sources, generators, why=why)
        fakes, photographs = ([one.scores for one in side.values()] for side in (generators, sources))
        fit = _ratio(fakes, photographs, method)
        draw, drawn = np.random.default_rng(0), np.empty((_DRAWS, len(fit.scores)))
        for i in range(_DRAWS):
            again = [
                [side[j] for j in draw.integers(len(side), size=len(side)).tolist()]
                for side in (fakes, photographs)
            ]
            drawn[i] = _ratio(again[0], again[1], method)(fit.scores)
        low, high = np.maximum.accumulate(np.percentile(drawn, _INTERVAL, axis=0), axis=1)
        low, high = LikelihoodRatio(fit.scores, low), LikelihoodRatio(fit.scores, high)
        return cls(sources, generators, fit, low, high, why)

    @property
    def smallest(self) -> float:
        """The smallest value that ``p`` can have."""
        return 1 / (len(self.sources) + 1)

    def p(self, scores: ArrayLike) -> Float64 | None:
        """How rare such scores are for a photograph of a new source, 0…1; ``None`` without figures.

        (1 + the sum over sources of the share of its photographs that score as high with it left out) /
        (sources + 1): hierarchical conformal prediction, Dunn, Wasserman and Ramdas 2022, "Distribution-free
        prediction sets for two-layer hierarchical models", and Lee, Barber and Willett 2023,
        "Distribution-free inference with hierarchical data". The question is scored with all sources,
        those left out with one fewer: a jackknife, whose rate is observed (``bench.accuracy.new_sources``)
        and not proven. It bounds the mean over sources, not the rate of each.
        """
        if not self.sources:
            return None
        shares: Float64 = np.sum([one.share_at_least(scores) for one in self.sources.values()], axis=0)
        return (1 + shares) / (len(self.sources) + 1)

    def mean_share(self, score: float) -> float | None:
        """The mean over sources of the share that scores as high with the source left out, 0…1."""
        shares = [float(one.share_at_least(score)) for one in self.sources.values()]
        return float(np.mean(shares)) if shares else None

    def interval(self, score: float) -> tuple[float, float] | None:
        """The 95 % interval of the log10 likelihood ratio of one score."""
        return (
            None
            if self.low is None or self.high is None
            else (float(self.low(score)), float(self.high(score)))
        )

    def worst(self, score: float) -> tuple[str, float]:
        """The source most of whose photographs score as high with it left out, and their share."""
        shares = {name: float(one.share_at_least(score)) for name, one in self.sources.items()}
        return max(shares.items(), key=lambda pair: pair[1])

    def without_names(self, *, sources: Collection[str], generators: Collection[str]) -> NewSources:
        """The same, where those of other names have none, ``#1``, ``#2`` in their place; scores stay.

        No reference is named any more: some may be erased.
        """

        def nameless(side: Mapping[str, LeftOut], kept: Collection[str]) -> dict[str, LeftOut]:
            return {
                name if name in kept else f"#{number}": replace(
                    one,
                    taken_for=one.taken_for if one.taken_for in generators else "",
                    nearest=(),
                )
                for number, (name, one) in enumerate(side.items(), start=1)
            }

        found = nameless(self.sources, sources), nameless(self.generators, generators)
        return replace(self, sources=found[0], generators=found[1])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        curves = dict(zip(_CURVES, (self.likelihood, self.low, self.high), strict=True))
        return {
            "sources": {name: one.to_json() for name, one in self.sources.items()},
            "generators": {name: one.to_json() for name, one in self.generators.items()},
            "likelihood": None
            if self.likelihood is None
            else {"scores": self.likelihood.scores.tolist()}
            | {name: curve.log10_lr.tolist() for name, curve in curves.items() if curve is not None},
            "why": self.why,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NewSources:
        """Inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
        sources, generators = (
            {str(name): LeftOut.from_json(one) for name, one in data[side].items()}
            for side in ("sources", "generators")
        )
        why, knots = str(data["why"]), data["likelihood"]
        if knots is None:
            return cls(sources, generators, why=why)
        fit, low, high = (LikelihoodRatio.from_lists(knots["scores"], knots[name]) for name in _CURVES)
        return cls(sources, generators, fit, low, high, why)


def _ratio(fakes: list[Float64], photographs: list[Float64], method: LikelihoodMethod) -> LikelihoodRatio:
    """Names weigh alike, and no ratio is beyond what so many names can show."""
    scores = [np.concatenate(side) for side in (fakes, photographs)]
    weights = [np.concatenate([np.full(len(s), 1 / len(s)) for s in side]) for side in (fakes, photographs)]
    return fit_likelihood_ratio(
        *scores, method=method, weights=(weights[0], weights[1]), units=(len(fakes), len(photographs))
    )
