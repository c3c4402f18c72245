"""What an index knows about its own scores: on how many known images which score occurred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.scoring.conformal import BETA, Conformal, confident_alpha, verdict
from retrieval_detect.scoring.likelihood import LikelihoodMethod, LikelihoodRatio, probability

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Method, Question

    Float64 = NDArray[np.float64]

FORMAT = "retrieval-detect/calibration"
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Conformal p-values and likelihood ratios for one vote over one state of the banks.

    ``method``, ``k``, ``layer`` : the vote it holds for; scores of another are not comparable.
    ``rows_digest`` : of the live rows it was fitted with, banks and calibration rows together.
    ``quality`` : what it costs on its own data, cross-fitted: ``cllr``, and the numbers of images.
    """

    method: Method
    k: int
    layer: str
    rows_digest: str
    conformal: Conformal
    likelihood: LikelihoodRatio
    likelihood_method: LikelihoodMethod
    quality: Mapping[str, float]

    def holds_for(self, *, method: str, k: int, layer: str) -> bool:
        """Whether a vote's scores are the ones this was fitted on."""
        return (self.method, self.k, self.layer) == (method, k, layer)

    def require(self, question: Question) -> None:
        """Raise ``UsageError`` if so few calibration images cannot answer ``question``."""
        self._alpha(question)
        if question.prior is not None:
            probability(0.0, question.prior)

    def _alpha(self, question: Question) -> float:
        self.conformal.require(question.fpr, source=question.source)
        if question.confidence is None:
            return question.fpr
        n = self.conformal.n_real(question.source)
        return confident_alpha(question.fpr, n, confidence=question.confidence)

    def judge(self, score: float, typical: float, question: Question) -> dict[str, Any]:
        """The fields of a ``Verdict`` that a calibration gives. ``score`` : positive = fake."""
        alpha = self._alpha(question)
        p = self.conformal.p_values([score], [typical], source=question.source)
        p_real, p_fake, p_typical = (float(values[0]) for values in (p.real, p.fake, p.typical))
        log10_lr = float(self.likelihood(score))
        n = self.conformal.n_real(question.source)
        return {
            "verdict": verdict(p_real, p_fake, p_typical, alpha=alpha),
            "p_values": {"real": p_real, "fake": p_fake, "typical": p_typical},
            "alpha": {"real": alpha, "fake": BETA},
            "calibration": {
                "photographs": n,
                "sources": 1 if question.source is not None else len(self.conformal.real),
                "as_high": round(p_real * (n + 1)) - 1,
            },
            "log10_lr": log10_lr,
            "prior": question.prior,
            "probability": None if question.prior is None else float(probability(log10_lr, question.prior)),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; floats keep all their digits."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "method": self.method,
            "k": self.k,
            "layer": self.layer,
            "rows_digest": self.rows_digest,
            "real": {name: scores.tolist() for name, scores in self.conformal.real.items()},
            "fake": {name: scores.tolist() for name, scores in self.conformal.fake.items()},
            "typical": self.conformal.typical.tolist(),
            "likelihood": {
                "scores": self.likelihood.scores.tolist(),
                "log10_lr": self.likelihood.log10_lr.tolist(),
                "method": self.likelihood_method,
            },
            "quality": dict(self.quality),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
        if (data["format"], data["version"]) != (FORMAT, VERSION):
            raise ValueError(f"this is {data['format']!r}, version {data['version']!r}")
        conformal = Conformal(
            {str(name): _ascending(scores) for name, scores in data["real"].items()},
            {str(name): _ascending(scores) for name, scores in data["fake"].items()},
            _ascending(data["typical"]),
        )
        knots = data["likelihood"]
        if len(knots["scores"]) != len(knots["log10_lr"]) or not knots["scores"]:
            raise ValueError("a likelihood ratio needs as many ratios as scores")
        return cls(
            method=data["method"],
            k=int(data["k"]),
            layer=str(data["layer"]),
            rows_digest=str(data["rows_digest"]),
            conformal=conformal,
            likelihood=LikelihoodRatio(_ascending(knots["scores"]), _ascending(knots["log10_lr"])),
            likelihood_method=knots["method"],
            quality={str(name): float(value) for name, value in data["quality"].items()},
        )


def _ascending(values: Any) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all() or (np.diff(array) < 0).any():
        raise ValueError("scores must be finite and ascending")
    return array
