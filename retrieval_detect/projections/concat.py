"""Several layers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.options import option
from retrieval_detect.projections.base import Fitting, parse_weights, part, require_generators
from retrieval_detect.projections.inner import Trial

if TYPE_CHECKING:
    from retrieval_detect.search.projection import Affine
    from retrieval_detect.types import Float32, Label
    from retrieval_detect.vectors import Rows

GRID = (0.0, 0.25, 0.5, 0.71, 1.0, 1.41, 2.0, 4.0)
ROUNDS = 2
MAX_ROWS = 2_000
"""Judged on: one matrix of similarities a layer is held."""


@dataclass(frozen=True)
class Concat(Fitting):
    """z = unit(concat of w_l · x_l): similarities are a mean over layers, weighed by w_l².

    With ``learn``, each weight in turn is set to the value that detects held-out generators and sources
    best (``inner.Trial``), twice over; a layer whose best weight is 0 is left out.
    """

    kind: ClassVar[str] = "concat"
    weights: str = option("", "One weight a layer, as 1,0.5; by default 1 each.")
    learn: bool = option(False, "Learn the weights on generators held out.")
    seed: int = option(0, "Seed of the sample that weights are learnt on.", low=0)

    @property
    def labels(self) -> tuple[Label, ...]:
        """None unless weights are learnt."""
        return ("real", "fake") if self.learn else ()

    def fit(self, rows: Rows, layers: Sequence[str]) -> Affine:
        """See ``Fitting``."""
        weights = parse_weights(self.weights, layers)
        facts = {}
        if self.learn:
            require_generators(rows, "learning weights")
            weights, found = self._learnt(rows, layers, weights)
            facts = {"inner_auc": round(found, 4)}
        parts = [part(name, rows, weight=w) for name, w in zip(layers, weights, strict=True) if w]
        return self.affine(parts, **facts)

    def _learnt(
        self, rows: Rows, layers: Sequence[str], start: tuple[float, ...]
    ) -> tuple[tuple[float, ...], float]:
        if len(layers) < 2:
            raise UsageError("there is one layer: no weights to learn", hint="Name several with --layers.")
        trial = Trial.of(rows, at_most=MAX_ROWS, seed=self.seed)
        each = [x @ x.T for x in (trial.rows.vectors[layer] for layer in layers)]
        best, found = start, trial.auc_of(_mixed(each, start))
        for _ in range(ROUNDS):
            for at in range(len(layers)):
                for value in GRID:
                    tried = (*best[:at], value, *best[at + 1 :])
                    if tried == best or not any(tried):
                        continue
                    score = trial.auc_of(_mixed(each, tried))
                    if score > found:
                        best, found = tried, score
        return best, found


def _mixed(each: Sequence[Float32], weights: Sequence[float]) -> Float32:
    """Cosines of the concatenation: its norm is the same for all rows, as each layer has norm 1."""
    shares = np.square(weights) / np.square(weights).sum()
    total: Float32 = sum(np.float32(s) * x for s, x in zip(shares, each, strict=True) if s)  # type: ignore[assignment]
    return total
