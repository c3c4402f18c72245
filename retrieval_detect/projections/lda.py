"""Directions that part generators from photographs and from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.options import option
from retrieval_detect.projections.base import Fitting, classes, joined, part, require_generators
from retrieval_detect.projections.scatter import LEDOIT_WOLF, Spectrum, parse_shrinkage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.search.projection import Affine
    from retrieval_detect.types import Float32, Int64
    from retrieval_detect.vectors import Rows

    Float64 = NDArray[np.float64]

MAX_DIMS = 64


@dataclass(frozen=True)
class Lda(Fitting):
    """z = unit((x − m) W^-1/2 U): Fisher's discriminant (Rao 1948), shrunk, with labels balanced.

    W : covariance within each generator and each source, shrunk to (1 − g) W + g tr(W)/d I. U : the
    leading right singular vectors of the class means in those coordinates, the classes being all
    photographs (as much as all fakes) and each generator.
    """

    kind: ClassVar[str] = "lda"
    cheap: ClassVar[bool] = True
    shrinkage: str = option(LEDOIT_WOLF, "ledoit-wolf, or a number from 0 to 1.")
    dims: int = option(0, "Dimensions kept; 0: one a generator, 64 at most.", low=0)

    def fit(self, rows: Rows, layers: Sequence[str]) -> Affine:
        """See ``Fitting``."""
        wanted = parse_shrinkage(self.shrinkage, words=(LEDOIT_WOLF,))
        require_generators(rows, self.kind)
        x, names = joined(rows, layers), name_codes(rows)
        n_generators = len(np.unique(rows.names[rows.fake]))
        dims = self.dims or min(n_generators, MAX_DIMS)
        if dims > n_generators:
            raise UsageError(f"{n_generators} generators span {n_generators} dimensions, not {dims}")
        means = class_means(x, names)
        within = Spectrum.of(x - means.astype(np.float32)[names])
        g = within.shrinkage(wanted)
        root = within.inverse_root(g)
        centre, offsets = _between(means, names, rows)
        directions = np.linalg.svd(offsets @ root, full_matrices=False)[2][:dims]
        return self.affine(
            [part(layer, rows) for layer in layers],
            mean=centre,
            matrix=root @ directions.T,
            shrinkage=round(g, 4),
        )


def class_means(x: Float32, codes: Int64) -> Float64:
    """Mean of each code's rows, float64 (largest code + 1, d); zero for a code that has none."""
    order = np.argsort(codes, kind="stable")
    found, starts = np.unique(codes[order], return_index=True)
    means = np.zeros((codes.max() + 1, x.shape[1]))
    for code, members in zip(found, np.split(order, starts[1:]), strict=True):
        means[code] = x[members].mean(axis=0, dtype=np.float64)
    return means


def name_codes(rows: Rows) -> Int64:
    """Codes of generators and sources, int64 (n,): a source may share a generator's name."""
    names = np.unique(rows.names, return_inverse=True)[1]
    codes: Int64 = np.unique(2 * names + rows.fake, return_inverse=True)[1]
    return codes


def _between(means: Float64, names: Int64, rows: Rows) -> tuple[Float64, Float64]:
    """The centre, float64 (d,), and what classes differ from it by, times the root of their weight."""
    of_name = np.zeros(len(means), np.int64)
    of_name[names] = classes(rows)
    photographs = means[of_name == 0].mean(axis=0)
    generators = means[of_name > 0]
    centre = (photographs + generators.mean(axis=0)) / 2
    weighed = np.sqrt(0.5 / len(generators)) * (generators - centre)
    return centre, np.vstack([np.sqrt(0.5) * (photographs - centre), weighed])
