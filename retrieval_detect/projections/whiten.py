"""Directions in which photographs vary least count most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from retrieval_detect.options import option
from retrieval_detect.projections.base import Fitting, parse_weights, unit_rows
from retrieval_detect.projections.inner import Trial
from retrieval_detect.projections.scatter import CHOOSE, LEDOIT_WOLF, Spectrum, parse_shrinkage
from retrieval_detect.search.projection import Part

if TYPE_CHECKING:
    from retrieval_detect.search.projection import Affine
    from retrieval_detect.types import Float32, Label
    from retrieval_detect.vectors import Rows

CANDIDATES: tuple[str | float, ...] = (LEDOIT_WOLF, 0.2, 0.5, 0.8)
MAX_ROWS = 2_000


@dataclass(frozen=True)
class Whiten(Fitting):
    """z = unit(C^-1/2 (x − μ)), μ and C = (1 − g) S + g tr(S)/d I of bank photographs (design §9).

    Several layers are whitened one by one and put side by side with ``weights``. g is fixed, or that of
    ``CANDIDATES`` which detects generators and sources held out best, the whitening being fitted anew
    without each source: fitted with the queries inside it looks far better than it is. Where there is
    nothing to hold out, g is Ledoit and Wolf's. The references fitted on are photographs alone; fakes
    take part in the choice of one number.
    """

    kind: ClassVar[str] = "whiten"
    cheap: ClassVar[bool] = True
    shrinkage: str = option(CHOOSE, "choose, ledoit-wolf, or a number from 0 to 1.")
    weights: str = option("", "One weight a layer, as 1,0.5; by default 1 each.")
    seed: int = option(0, "Seed of the sample that shrinkage is chosen on.", low=0)

    @property
    def labels(self) -> tuple[Label, ...]:
        """Photographs alone."""
        return ("real",)

    def fit(self, rows: Rows, layers: Sequence[str]) -> Affine:
        """See ``Fitting``."""
        weights = parse_weights(self.weights, layers)
        wanted = parse_shrinkage(self.shrinkage, words=(CHOOSE, LEDOIT_WOLF))
        facts: dict[str, Any] = {}
        if wanted == CHOOSE:
            wanted, facts = self._chosen(rows, layers, weights)
        fitted = [_Whitening.of(layer, rows.vectors[layer][~rows.fake]) for layer in layers]
        parts = [one.part(wanted, weight) for one, weight in zip(fitted, weights, strict=True)]
        g = {one.layer: round(one.spectrum.shrinkage(wanted), 4) for one in fitted}
        return self.affine(parts, shrinkage=g, **facts)

    def _chosen(
        self, rows: Rows, layers: Sequence[str], weights: Sequence[float]
    ) -> tuple[str | float, dict[str, Any]]:
        trial = Trial.of(rows, at_most=MAX_ROWS, seed=self.seed)
        if not trial.possible:
            return LEDOIT_WOLF, {}
        found: dict[str | float, list[float]] = {wanted: [] for wanted in CANDIDATES}
        for fold in trial.folds_of("real"):
            kept = ~rows.fake & (trial.folds != fold)
            fitted = [_Whitening.of(layer, rows.vectors[layer][kept]) for layer in layers]
            rotated = [one.rotated(trial.rows.vectors[one.layer]) for one in fitted]
            for wanted, scores in found.items():
                pieces = [
                    weight * unit_rows(x * one.scales(wanted))
                    for one, x, weight in zip(fitted, rotated, weights, strict=True)
                ]
                scores.append(trial.auc(unit_rows(np.concatenate(pieces, axis=1)), real=fold))
        means = {wanted: float(np.mean(scores)) for wanted, scores in found.items()}
        best = max(means, key=lambda wanted: means[wanted])
        return best, {"inner_auc": {str(wanted): round(mean, 4) for wanted, mean in means.items()}}


@dataclass(frozen=True, slots=True, eq=False)
class _Whitening:
    """One layer's; ``mean`` : float32 (d,)."""

    layer: str
    mean: Float32
    spectrum: Spectrum

    @classmethod
    def of(cls, layer: str, photographs: Float32) -> _Whitening:
        mean = photographs.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(layer, mean, Spectrum.of(photographs - mean))

    def rotated(self, x: Float32) -> Float32:
        """In the basis of S, where whitening is a scale a column; the rotation left out changes no cosine."""
        return (x - self.mean) @ self.spectrum.vectors.astype(np.float32)

    def scales(self, wanted: str | float) -> Float32:
        return self.spectrum.scales(self.spectrum.shrinkage(wanted)).astype(np.float32)

    def part(self, wanted: str | float, weight: float) -> Part:
        root = self.spectrum.inverse_root(self.spectrum.shrinkage(wanted))
        return Part(self.layer, len(self.mean), self.mean, root.astype(np.float32), weight)
