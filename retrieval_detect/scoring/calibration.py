"""What an index knows about its own scores: on how many known images which score occurred."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.answers import Answer, PValues, answer
from retrieval_detect.scoring.conformal import (
    BETA,
    MIN_GENERATOR,
    Conformal,
    at_least,
    at_most,
    confident_alpha,
    photographs_needed,
    rate_interval,
)
from retrieval_detect.scoring.likelihood import LikelihoodMethod, LikelihoodRatio, probability
from retrieval_detect.scoring.new_sources import NewSources
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Bool, Float64

FORMAT = "retrieval-detect/calibration"
VERSION = 2
"""Version 1 has no part ``new``, and is read."""
FEWEST_GROUPS, FEWEST_SOURCES = 100, 3
"""Of photographs set aside, below which a calibration is provisional."""
LOWEST = -1e9
"""In the place of -inf, which JSON does not have."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What a calibration says of q images: their answers, and each float64 (q,).

    ``p_new``, ``log10_lr`` : nan where that was not measured. ``alpha`` : the rate that ``p_real`` is held
    against. ``of`` : the set of photographs each is compared with (``""``: all), and ``photographs`` : int64
    (q,), how many those are.
    """

    answers: Sequence[Answer]
    scores: Float64
    p_real: Float64
    p_new: Float64
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
    ``new`` : what photographs of sources that the index does not know would score.
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
    new: NewSources = field(default_factory=NewSources)

    @property
    def question(self) -> Question:
        """What was asked about each calibration image."""
        return Question(self.method, self.k, self.projection)

    @property
    def n_groups(self) -> int:
        """Photographs set aside, near-duplicates of one another counted once."""
        return int(self.quality.get("groups", self.conformal.n_real()))

    @property
    def provisional(self) -> bool:
        """Whether it rests on less than a rate should rest on."""
        return self.n_groups < FEWEST_GROUPS or len(self.conformal.real) < FEWEST_SOURCES

    def rate_interval(self, alpha: float) -> tuple[float, float]:
        """Between which two the share of photographs of known sources called so lies, with 95 %."""
        return rate_interval(alpha, self.n_groups)

    def threshold(self, alpha: float) -> float:
        """The lowest score that is as rare as ``alpha`` among photographs of known sources; inf: none is."""
        known = self.conformal.photographs
        rank = math.floor(alpha * (len(known) + 1) + 1e-9)
        return float(np.nextafter(known[-rank], np.inf)) if 0 < rank <= len(known) else math.inf

    def shares_flagged(self, alpha: float) -> dict[str, tuple[float, float | None]]:
        """Source → the share of its photographs as rare as ``alpha``, 0…1: known, and left out if measured.

        Those most flagged when left out come first.
        """
        threshold = self.threshold(alpha)
        left_out = {name: float(one.share_at_least(threshold)) for name, one in self.new.sources.items()}
        known = {name: float(np.mean(scores >= threshold)) for name, scores in self.conformal.real.items()}
        names = sorted({*known, *left_out}, key=lambda name: (-left_out.get(name, -1.0), name))
        return {name: (known.get(name, math.nan), left_out.get(name)) for name in names}

    def risk(self, alpha: float) -> float | None:
        """The mean share of a new source's photographs as rare as ``alpha``; ``None`` where not measured."""
        return self.new.mean_share(self.threshold(alpha))

    def would_flag(self, question: Question) -> tuple[float, float | None]:
        """Shares of photographs of known and of new sources, 0…1, that score as high as is asked for.

        By ``question.at``, what that threshold comes to; else its rate. Of new sources: on average, ``None``
        where not measured.
        """
        if question.at is None:
            return question.fpr, self.risk(question.fpr)
        known = float(at_least(self.conformal.photographs, question.at))
        return known, self.new.mean_share(question.at)

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
            self._alpha_known(question, scores)
        if question.at is not None and not math.isfinite(question.at):
            raise UsageError(f"a threshold of {question.at} is no score")
        if question.prior is not None:
            probability(0.0, question.prior)
            if self.new.likelihood is None and not _of_known(question):
                raise UsageError(
                    "no probability can be stated for photographs of new sources: that takes two sources and "
                    "two generators, each left out in turn",
                    hint="Say that these are of known sources (--photographs known), or add references.",
                )
        if (fdr := question.fdr) is None:
            return
        if not _of_known(question):
            raise UsageError(
                "a share of false discoveries is promised for photographs of known sources alone",
                hint="Say that these are: --photographs known.",
            )
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
        self,
        scores: Float64,
        typical: Float64,
        question: Question,
        *,
        traits: Mapping[str, Sequence[str]],
        covered: Bool,
    ) -> Judged:
        """Judge q images.

        ``scores`` : float64 (q,), positive = fake. ``typical`` : float64 (q,). ``traits`` : each of
        ``conformal.TRAITS`` → every image's own. ``covered`` : bool (q,), whether the real bank holds
        photographs of its kind.
        """
        known = _of_known(question)
        p_real, alpha = np.ones(len(scores)), np.ones(len(scores))
        of, photographs = np.full(len(scores), "", object), np.zeros(len(scores), np.int64)
        by_trait = question.within in traits and question.source is None
        own = np.asarray(traits[question.within or ""]) if by_trait else np.full(len(scores), "")
        for value in np.unique(own):
            rows = own == value
            compared = self._compared(question, {question.within or "": str(value)})
            sizes = np.array([len(known) for known in compared.values()])
            alphas = np.array([self._alpha_known(question, known) for known in compared.values()])
            p = np.array([at_least(known, scores[rows]) for known in compared.values()])
            closest = (p / alphas[:, None]).argmax(axis=0)
            p_real[rows], alpha[rows] = p[closest, np.arange(p.shape[1])], alphas[closest]
            of[rows], photographs[rows] = np.array(list(compared), object)[closest], sizes[closest]
        p_fake, p_typical = self.conformal.p_fake(scores), at_most(self.conformal.typical, typical)
        nothing = np.full(len(scores), np.nan)
        p_new = self.new.p(scores)
        new = [None] * len(scores) if p_new is None else p_new.tolist()
        columns = (p_real.tolist(), new, p_fake.tolist(), p_typical.tolist())
        p_values = [PValues(*each) for each in zip(*columns, strict=True)]
        alpha_new = self._alpha_new(question)
        # Between a threshold that stays and the next photograph's score lie scores just as rare, and lower.
        enough = (scores >= (-math.inf if question.at is None else question.at)).tolist()
        answers = [
            answer(p, alpha=a * high, alpha_new=alpha_new, known=known, covered=near)
            for p, a, high, near in zip(p_values, alpha.tolist(), enough, covered.tolist(), strict=True)
        ]
        ratio = self.likelihood if known else self.new.likelihood
        return Judged(
            answers,
            scores,
            p_real,
            nothing if p_new is None else p_new,
            p_fake,
            p_typical,
            alpha,
            of.tolist(),
            photographs,
            nothing if ratio is None else ratio(scores),
        )

    def _alpha_known(self, question: Question, photographs: Float64) -> float:
        """The rate that ``p_real`` is held against: what was asked for, or what a threshold comes to."""
        if question.at is not None:
            return float(at_least(photographs, question.at))
        return self._alpha(question, len(photographs))

    def _alpha_new(self, question: Question) -> float:
        """The rate that ``p_new`` is held against; 0 where so few sources give no such confidence."""
        try:
            return self._alpha(question, len(self.new.sources))
        except UsageError:
            return 0.0

    def fields(self, judged: Judged, i: int, question: Question) -> dict[str, Any]:
        """The fields of a ``Verdict`` that a calibration gives, of one of the images ``judged``."""
        said, p_real, n = judged.answers[i], float(judged.p_real[i]), int(judged.photographs[i])
        score = float(judged.scores[i])
        log10_lr, prior = _known(judged.log10_lr[i]), question.prior
        chance = None if prior is None or log10_lr is None else float(probability(log10_lr, prior))
        return {
            "verdict": said.verdict,
            "reason": said.reason,
            "reach": said.reach,
            "photographs": "known" if _of_known(question) else "new",
            "p_values": {
                "real": p_real,
                "new": _known(judged.p_new[i]),
                "fake": float(judged.p_fake[i]),
                "typical": float(judged.p_typical[i]),
            },
            "alpha": {"real": float(judged.alpha[i]), "fake": BETA},
            "calibration": {
                "photographs": n,
                "sources": self._n_sources(question),
                "as_high": round(p_real * (n + 1)) - 1,
                "of": judged.of[i],
                "provisional": self.provisional,
                "new": self._if_new(score),
            },
            "log10_lr": log10_lr,
            "log10_lr_interval": None if _of_known(question) else self.new.interval(score),
            "prior": prior,
            "probability": chance,
            "at": question.at,
        }

    def _if_new(self, score: float) -> dict[str, Any] | None:
        """What is known of photographs of new sources at one score."""
        if not self.new.sources:
            return None
        source, share = self.new.worst(score)
        return {
            "sources": len(self.new.sources),
            "smallest": self.new.smallest,
            "worst": {"source": source, "share": share},
            "nearest": None,
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
            "new": self.new.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
        if data["format"] != FORMAT or data["version"] not in (1, VERSION):
            raise ValueError(f"this is {data['format']!r}, version {data['version']!r}")
        conformal = Conformal(
            _as_arrays(data["real"]),
            _as_arrays(data["fake"]),
            _ascending(data["typical"]),
            {str(trait): _as_arrays(values) for trait, values in data["traits"].items()},
        )
        knots = data["likelihood"]
        return cls(
            method=str(data["method"]),
            k=int(data["k"]),
            projection=str(data["projection"]),
            scorer=str(data["scorer"]),
            rows_digest=str(data["rows_digest"]),
            conformal=conformal,
            likelihood=LikelihoodRatio.from_lists(knots["scores"], knots["log10_lr"]),
            likelihood_method=knots["method"],
            quality={str(name): float(value) for name, value in data["quality"].items()},
            generators=_as_arrays(data["generators"]),
            new=NewSources() if data["version"] == 1 else NewSources.from_json(data["new"]),
        )


def _of_known(question: Question) -> bool:
    """Whether the image, were it a photograph, is said to be of a known source."""
    return question.photographs == "known" or question.source is not None


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _as_lists(sets: Mapping[str, Float64]) -> dict[str, list[float]]:
    return {name: scores.tolist() for name, scores in sets.items()}


def _as_arrays(sets: Mapping[str, Any]) -> dict[str, Float64]:
    return {str(name): _ascending(scores) for name, scores in sets.items()}


def _ascending(values: Any) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all() or (np.diff(array) < 0).any():
        raise ValueError("scores must be finite and ascending")
    return array
