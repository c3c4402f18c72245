"""A map learnt so that nearest neighbours are of one's own kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from retrieval_detect.options import option
from retrieval_detect.projections.base import Fitting, classes, joined, part, require_generators
from retrieval_detect.projections.inner import spread
from retrieval_detect.projections.scatter import LEDOIT_WOLF, Spectrum, parse_shrinkage

if TYPE_CHECKING:
    from retrieval_detect.search.projection import Affine
    from retrieval_detect.vectors import Rows


@dataclass(frozen=True)
class Nca(Fitting):
    """z = unit((x − m) P Lᵀ): Goldberger et al. 2004, "Neighbourhood components analysis", §2.

    P : the leading principal directions, scaled to shrunk unit variance. L maximises the chance that a
    random neighbour, near ones likelier, is of the same generator, or a photograph too. It is regularised
    by P, and by stopping after few iterations. Time and memory grow with the square of ``sample``.
    """

    kind: ClassVar[str] = "nca"
    dims: int = option(32, "Dimensions kept.", low=1)
    principal: int = option(64, "Principal directions it is learnt on.", low=1)
    shrinkage: str = option(LEDOIT_WOLF, "ledoit-wolf, or a number from 0 to 1.")
    iterations: int = option(50, "Iterations at most.", low=1)
    sample: int = option(2_000, "References it is learnt on.", low=10, high=5_000)
    seed: int = option(0, "Seed of the sample.", low=0)

    def fit(self, rows: Rows, layers: Sequence[str]) -> Affine:
        """See ``Fitting``."""
        from sklearn.neighbors import NeighborhoodComponentsAnalysis

        wanted = parse_shrinkage(self.shrinkage, words=(LEDOIT_WOLF,))
        require_generators(rows, self.kind)
        chosen = rows.take(spread(rows, self.sample, seed=self.seed))
        x = joined(chosen, layers)
        mean = x.mean(axis=0)
        spectrum = Spectrum.of(x - mean)
        scales = spectrum.scales(spectrum.shrinkage(wanted))
        # No more directions than rows can span.
        leading = slice(-min(self.principal, len(x) - 1, x.shape[1]), None)
        principal = spectrum.vectors[:, leading] * scales[leading]
        learner = NeighborhoodComponentsAnalysis(
            min(self.dims, principal.shape[1]),
            init="pca",
            max_iter=self.iterations,
            random_state=self.seed,
        )
        learner.fit((x - mean) @ principal, classes(chosen))
        matrix = principal @ learner.components_.T
        # The scale is free: cosines do not see it.
        matrix /= np.linalg.norm(matrix, 2)
        parts = [part(layer, rows) for layer in layers]
        return self.affine(parts, mean=mean, matrix=matrix, learnt_on=len(chosen))
