"""Several methods, bank votes and heads alike, combined to one score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.heads.base import Head, Progress, checked, option, quiet, require_both
from retrieval_detect.heads.linear import balanced_weights
from retrieval_detect.scoring.vote import REDEFINED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Bool, Float32, Float64
    from retrieval_detect.vectors import Rows

RULES = ("logit-mean", "soft-or", "weights")
PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001)
"""Of the sum of weights; the largest first, so that ties go to fewer members."""
FOLDS = 5


@dataclass(eq=False)
class EnsembleHead(Head):
    """One score from those of several members; it reads no stored vectors.

    Wherever ``Head`` says vectors, it takes member → score, float32 (n, 1), positive = fake. ``fit`` wants
    scores that each image got without itself and its group among what the member learnt from.

    Each member's score becomes log-odds l_i by a logistic regression in which both labels, and the
    generators within one, count alike. Its slope is never negative: a member that tells the wrong way tells
    nothing. Then:

    - ``logit-mean`` : the mean of l_i.
    - ``soft-or`` : the log-odds of 1 - prod(1 - p_i), p_i the probability that l_i means: fake as soon as one
      member says so (Cozzolino et al. 2024, "Raising the Bar of AI-generated Image Detection with CLIP",
      the fusion of its released code).
    - ``weights`` : sum of w_i l_i and a bias, w_i >= 0, of least log loss with a penalty on the sum
      of w_i, which is chosen on generators and sources left out.

    ``projection`` : the id of that which its votes were through, where the scores are from an index.
    """

    kind = "ensemble"

    rule: str = option("logit-mean", "How scores are combined.", choices=RULES)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.projection: str | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """None: it reads scores."""
        return ()

    @property
    def members(self) -> tuple[str, ...]:
        """The methods it was fitted on, in the order of its weights."""
        return tuple(self._course.get("members", ()))

    def outdated(self) -> tuple[str, ...]:
        """The members whose scores meant something else when it learnt from them (``vote.REDEFINED``)."""
        votes = self._course.get("votes", {})
        return tuple(m for m in self.members if votes.get(m) != REDEFINED.get(m))

    def fit(self, rows: Rows, *, text: Any = None, progress: Progress = quiet) -> Self:  # noqa: ARG002
        """See ``Head``. ``rows.vectors`` : member → score, float32 (n, 1)."""
        if self.rule not in RULES:
            raise UsageError(f"there is no rule {self.rule!r}", hint=f"Choose one of: {', '.join(RULES)}")
        if not rows.vectors:
            raise UsageError("an ensemble needs members")
        require_both(rows)
        members = tuple(rows.vectors)
        scores = np.concatenate([checked(rows.vectors, member, 1) for member in members], axis=1)
        counted = balanced_weights(rows)
        slopes, intercepts = np.transpose([_log_odds(column, rows.fake, counted) for column in scores.T])
        if not slopes.any():
            raise UsageError("no member tells fakes from photographs", hint="Choose other members.")
        penalty, weights, bias = None, np.full(len(members), 1 / len(members)), 0.0
        if self.rule == "weights":
            logits = scores * slopes + intercepts
            penalty = _best_penalty(logits, rows, counted, seed=self.seed)
            weights, bias = _combined(logits, rows.fake, counted, penalty=penalty)
        self._learnt = {
            "slopes": slopes,
            "intercepts": intercepts,
            "weights": weights,
            "bias": np.array([bias]),
        }
        votes = {member: REDEFINED[member] for member in members if member in REDEFINED}
        self._course = {"members": list(members), "penalty": penalty, "votes": votes}
        return self

    def decision_function(self, vectors: Mapping[str, Float32]) -> Float64:
        """See ``Head``. ``vectors`` : member → score, float32 (n, 1). Rises with every member's score."""
        slopes, intercepts = self.learnt("slopes"), self.learnt("intercepts")
        scores = np.concatenate([checked(vectors, member, 1) for member in self.members], axis=1)
        logits = scores.astype(np.float64) * slopes + intercepts
        if self.rule == "soft-or":
            return _soft_or(logits)
        combined: Float64 = logits @ self.learnt("weights") + self.learnt("bias")[0]
        return combined

    @property
    def weights(self) -> dict[str, float]:
        """Member → weight of its log-odds."""
        return dict(zip(self.members, self.learnt("weights").tolist(), strict=True))

    def _fits(self, state: Mapping[str, NDArray[Any]]) -> bool:
        shapes = {state[name].shape for name in ("slopes", "intercepts", "weights")}
        return len(shapes) == 1 and len(shapes.pop()) == 1 and state["bias"].shape == (1,)

    def facts(self) -> dict[str, Any]:
        """The members, in the order of the arrays, the penalty chosen, and what the scores were of."""
        return {**super().facts(), "projection": self.projection}

    def restore_facts(self, facts: Mapping[str, Any]) -> None:
        """See ``Head``."""
        if len(facts["members"]) != len(self.learnt("slopes")):
            raise ValueError(f"{len(facts['members'])} members for {len(self.learnt('slopes'))} weights")
        super().restore_facts({"votes": {}, **facts})
        self.projection = self._course.pop("projection", None)


def _log_odds(scores: Float32, fake: Bool, counted: Float64) -> tuple[float, float]:
    """Slope and intercept of one member's log-odds."""
    from sklearn.linear_model import LogisticRegression

    spread = float(scores.std(dtype=np.float64))
    model = LogisticRegression().fit(scores[:, None] / spread, fake, sample_weight=counted)
    slope = max(float(model.coef_[0, 0]), 0.0) / spread
    return slope, float(model.intercept_[0]) if slope else 0.0


def _soft_or(logits: Float64) -> Float64:
    doubt = np.logaddexp(0, logits).sum(axis=1)  # -log prod(1 - p)
    doubt = np.maximum(doubt, np.finfo(np.float64).tiny)
    odds: Float64 = doubt + np.log(-np.expm1(-doubt))
    return odds


def _combined(logits: Float64, fake: Bool, counted: Float64, *, penalty: float) -> tuple[Float64, float]:
    """Weights, not negative, and bias of least penalised log loss."""
    from scipy.optimize import minimize

    sign = np.where(fake, 1.0, -1.0)
    share = counted / counted.sum()
    inputs = np.column_stack([logits, np.ones(len(logits))])
    cost = np.r_[np.full(logits.shape[1], penalty), 0.0]

    def loss(parameters: Float64) -> tuple[float, Float64]:
        margins = sign * (inputs @ parameters)
        slope = -sign * share * np.exp(-np.logaddexp(0, margins))
        return float(share @ np.logaddexp(0, -margins) + cost @ parameters), slope @ inputs + cost

    start = np.r_[np.full(logits.shape[1], 1 / logits.shape[1]), 0.0]
    bounds = [(0.0, None)] * logits.shape[1] + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:-1], float(found[-1])


def _best_penalty(logits: Float64, rows: Rows, counted: Float64, *, seed: int) -> float:
    """The penalty of least log loss on generators and sources that took no part in the fit."""
    losses = np.zeros(len(PENALTIES))
    for kept, out in _folds(rows, seed=seed):
        sign = np.where(rows.fake[out], 1.0, -1.0)
        for i, penalty in enumerate(PENALTIES):
            weights, bias = _combined(logits[kept], rows.fake[kept], counted[kept], penalty=penalty)
            losses[i] += counted[out] @ np.logaddexp(0, -sign * (logits[out] @ weights + bias))
    return PENALTIES[int(losses.argmin())]


def _folds(rows: Rows, *, seed: int) -> Iterator[tuple[Bool, Bool]]:
    """(kept, out), bool (n,) each: whole generators and sources go out, or groups where there is one name.

    What shares a group with a row that is out is in neither. A fold that would keep one label is skipped.
    """
    rng = np.random.default_rng(seed)
    fold = np.empty(len(rows), np.int64)
    for label in (False, True):
        of = np.flatnonzero(rows.fake == label)
        units = rows.names[of] if len(np.unique(rows.names[of])) > 1 else rows.groups[of].astype(str)
        found, codes = np.unique(units, return_inverse=True)
        fold[of] = (rng.permutation(len(found)) % FOLDS)[codes]
    for number in range(FOLDS):
        out = fold == number
        kept = ~out & ~np.isin(rows.groups, rows.groups[out])
        if out.any() and len(np.unique(rows.fake[kept])) == 2:
            yield kept, out
