"""What an index knows about its own scores: on how many known images which score occurred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.conformal import (
    BETA,
    MIN_GENERATOR,
    Conformal,
    at_least,
    at_most,
    confident_alpha,
    photographs_needed,
    verdict,
)
from retrieval_detect.scoring.likelihood import LikelihoodMethod, LikelihoodRatio, probability
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Float64
    from retrieval_detect.verdicts import VerdictName

FORMAT = "retrieval-detect/calibration"
VERSION = 1
LOWEST = -1e9
"""In the place of -inf, which JSON does not have."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What a calibration says of q images: their verdicts' names, and each float64 (q,).

    ``alpha`` : the rate that ``p_real`` is held against. ``of`` : the set of photographs each is compared
    with (``""``: all), and ``photographs`` : int64 (q,), how many those are.
    """

    names: Sequence[VerdictName]
    p_real: Float64
    p_fake: Float64
    p_typical: Float64
    alpha: Float64
    of: Sequence[str]
    photographs: NDArray[np.int64]
    log10_lr: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Conformal p-values and likelihood ratios for one method over one state of the banks.

    ``method``, ``k``, ``projection`` : what was asked; ``scorer`` : digest of all that gave the scores,
    which are comparable with no other's.
    ``rows_digest`` : of the live rows it was fitted with, banks and calibration rows together.
    ``generators`` : generator → how close its calibration images lie to its references, ascending.
    ``quality`` : what it costs on its own data, cross-fitted: ``cllr``, and the numbers of images.
    """

    method: str
    k: int
    projection: str
    scorer: str
    rows_digest: str
    conformal: Conformal
    likelihood: LikelihoodRatio
    likelihood_method: LikelihoodMethod
    quality: Mapping[str, float]
    generators: Mapping[str, Float64] = field(default_factory=dict)

    @property
    def question(self) -> Question:
        """What was asked about each calibration image."""
        return Question(self.method, self.k, self.projection)

    def holds_for(self, question: Question, scorer: str) -> bool:
        """Whether a method's scores are such as this was fitted on."""
        return (self.method, self.k, self.scorer) == (question.method, question.k, scorer)

    def lacking(self, question: Question) -> str:
        """How many calibration images are missing for the rate that is asked for, in words; empty: none."""
        return self.conformal.lacking(question.fpr, source=question.source, within=question.within)

    def require(self, question: Question) -> None:
        """Raise ``UsageError`` if so few calibration images cannot answer ``question``."""
        self.conformal.require(question.fpr, source=question.source, within=question.within)
        for scores in self._compared(question, {}).values():
            self._alpha(question, len(scores))
        if question.prior is not None:
            probability(0.0, question.prior)
        if (fdr := question.fdr) is None:
            return
        if not 0 < fdr < 1:
            raise UsageError(f"a share of {fdr} false discoveries is not between 0 and 1")
        n = self.conformal.n_real(question.source)
        if 1 / (n + 1) > fdr:
            raise UsageError(
                f"a share of {fdr:.3%} false discoveries needs {photographs_needed(fdr):,} calibration "
                f"photographs, there are {n:,}: no p-value can be small enough",
                hint="Ask for a higher share (--fpr fdr=SHARE), or add photographs: a fifth of each source "
                "is set aside.",
            )

    def _compared(self, question: Question, traits: Mapping[str, str]) -> dict[str, Float64]:
        return self.conformal.compared(
            question.fpr, within=question.within, source=question.source, traits=traits
        )

    @staticmethod
    def _alpha(question: Question, n: int) -> float:
        if question.confidence is None:
            return question.fpr
        return confident_alpha(question.fpr, n, confidence=question.confidence)

    def judge(
        self, scores: Float64, typical: Float64, question: Question, *, traits: Mapping[str, Sequence[str]]
    ) -> Judged:
        """Judge q images.

        ``scores`` : float64 (q,), positive = fake. ``typical`` : float64 (q,). ``traits`` : each of
        ``conformal.TRAITS`` → every image's own.
        """
        p_real, alpha = np.ones(len(scores)), np.ones(len(scores))
        of, photographs = np.full(len(scores), "", object), np.zeros(len(scores), np.int64)
        by_trait = question.within in traits and question.source is None
        own = np.asarray(traits[question.within or ""]) if by_trait else np.full(len(scores), "")
        for value in np.unique(own):
            rows = own == value
            compared = self._compared(question, {question.within or "": str(value)})
            sizes = np.array([len(known) for known in compared.values()])
            alphas = np.array([self._alpha(question, n) for n in sizes.tolist()])
            p = np.array([at_least(known, scores[rows]) for known in compared.values()])
            closest = (p / alphas[:, None]).argmax(axis=0)
            p_real[rows], alpha[rows] = p[closest, np.arange(p.shape[1])], alphas[closest]
            of[rows], photographs[rows] = np.array(list(compared), object)[closest], sizes[closest]
        p_fake, p_typical = self.conformal.p_fake(scores), at_most(self.conformal.typical, typical)
        columns = (column.tolist() for column in (p_real, p_fake, p_typical, alpha))
        names = [verdict(*p, alpha=a) for *p, a in zip(*columns, strict=True)]
        ratios = self.likelihood(scores)
        return Judged(names, p_real, p_fake, p_typical, alpha, of.tolist(), photographs, ratios)

    def fields(self, judged: Judged, i: int, question: Question) -> dict[str, Any]:
        """The fields of a ``Verdict`` that a calibration gives, of one of the images ``judged``."""
        p_real, n, log10_lr = (float(x[i]) for x in (judged.p_real, judged.photographs, judged.log10_lr))
        return {
            "verdict": judged.names[i],
            "p_values": {
                "real": p_real,
                "fake": float(judged.p_fake[i]),
                "typical": float(judged.p_typical[i]),
            },
            "alpha": {"real": float(judged.alpha[i]), "fake": BETA},
            "calibration": {
                "photographs": int(n),
                "sources": self._n_sources(question),
                "as_high": round(p_real * (n + 1)) - 1,
                "of": judged.of[i],
            },
            "log10_lr": log10_lr,
            "prior": question.prior,
            "probability": None if question.prior is None else float(probability(log10_lr, question.prior)),
        }

    def _n_sources(self, question: Question) -> int | None:
        """Of how many sources the photographs compared with are; of a trait's it is not kept."""
        if question.source is not None or question.within == "source":
            return 1
        n = len(self.conformal.real)
        return n if question.within is None or n == 1 else None

    def fits_generators(self, densities: Mapping[str, float]) -> dict[str, float]:
        """Generator → share of its own calibration images that lie as far from its references, 0…1.

        ``densities`` : how close the image lies to each. Generators with too few calibration images to
        say so are left out. All of them small means: the generator is none of these (open set).
        """
        return {
            name: float(at_most(self.generators[name], max(density, LOWEST)))
            for name, density in densities.items()
            if len(self.generators.get(name, ())) >= MIN_GENERATOR
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; floats keep all their digits."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "method": self.method,
            "k": self.k,
            "projection": self.projection,
            "scorer": self.scorer,
            "rows_digest": self.rows_digest,
            "real": _as_lists(self.conformal.real),
            "fake": _as_lists(self.conformal.fake),
            "typical": self.conformal.typical.tolist(),
            "traits": {trait: _as_lists(values) for trait, values in self.conformal.traits.items()},
            "likelihood": {
                "scores": self.likelihood.scores.tolist(),
                "log10_lr": self.likelihood.log10_lr.tolist(),
                "method": self.likelihood_method,
            },
            "quality": dict(self.quality),
            "generators": _as_lists(self.generators),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
        if (data["format"], data["version"]) != (FORMAT, VERSION):
            raise ValueError(f"this is {data['format']!r}, version {data['version']!r}")
        conformal = Conformal(
            _as_arrays(data["real"]),
            _as_arrays(data["fake"]),
            _ascending(data["typical"]),
            {str(trait): _as_arrays(values) for trait, values in data["traits"].items()},
        )
        knots = data["likelihood"]
        if len(knots["scores"]) != len(knots["log10_lr"]) or not knots["scores"]:
            raise ValueError("a likelihood ratio needs as many ratios as scores")
        return cls(
            method=str(data["method"]),
            k=int(data["k"]),
            projection=str(data["projection"]),
            scorer=str(data["scorer"]),
            rows_digest=str(data["rows_digest"]),
            conformal=conformal,
            likelihood=LikelihoodRatio(_ascending(knots["scores"]), _ascending(knots["log10_lr"])),
            likelihood_method=knots["method"],
            quality={str(name): float(value) for name, value in data["quality"].items()},
            generators=_as_arrays(data["generators"]),
        )


def _as_lists(sets: Mapping[str, Float64]) -> dict[str, list[float]]:
    return {name: scores.tolist() for name, scores in sets.items()}


def _as_arrays(sets: Mapping[str, Any]) -> dict[str, Float64]:
    return {str(name): _ascending(scores) for name, scores in sets.items()}


def _ascending(values: Any) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all() or (np.diff(array) < 0).any():
        raise ValueError("scores must be finite and ascending")
    return array
