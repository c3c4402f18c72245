"""What images show is projected away, so that how they were made remains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.options import option
from retrieval_detect.projections.base import Fitting, joined, part
from retrieval_detect.projections.lda import class_means, name_codes
from retrieval_detect.projections.scatter import second_moment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.search.projection import Affine
    from retrieval_detect.types import Float32
    from retrieval_detect.vectors import Rows

    Float64 = NDArray[np.float64]

_NOTHING = 1e-8
ALIKE = 200
"""Images with which a generator counts half of what it ever will."""
CONTENTS = ("known", "categories", "pairs", "within")

_NOT_KNOWN = {
    "categories": ("no two categories of one label are known", "References have none, or all one."),
    "pairs": ("no two groups hold images of both labels", "A pair is a fake and a photograph of one group."),
}


@dataclass(frozen=True)
class Nullspace(Fitting):
    """z = unit((I − V Vᵀ)(x − m)): the null space of content, after NS-Net (arXiv 2508.01248).

    There V comes from text features; here, without training, from the references. V holds the leading
    directions of the first of these that is known:

    - ``categories`` : means of each label's categories, every image less its generator's or source's mean;
    - ``pairs`` : midpoints of fakes and photographs of one group, in which what they share remains;
    - ``within`` : photographs less their mean, and fakes less their generator's, for what one generator
      varies in is not what gives it away. Of n images the mean is drawn to that of all fakes, n/(n +
      ``trusted``) being its own, or what few images show by chance would be kept; and they count as
      n/(n + 200), so that generators with thousands count alike. The two covariances, scaled to trace 1,
      are added.
    """

    kind: ClassVar[str] = "nullspace"
    cheap: ClassVar[bool] = True
    directions: int = option(8, "Directions removed.", low=1)
    content: str = option("known", "What tells content.", choices=CONTENTS)
    trusted: int = option(20, "Images of a generator whose mean is half its own (within).", low=0)

    def fit(self, rows: Rows, layers: Sequence[str]) -> Affine:
        """See ``Fitting``."""
        x = joined(rows, layers)
        means = class_means(x, rows.fake.astype(np.int64))
        content, variation = self._variation(rows, x)
        v = self._leading(variation)
        return self.affine(
            [part(layer, rows) for layer in layers],
            mean=means.mean(axis=0),
            matrix=np.eye(len(v)) - v @ v.T,
            content=content,
            removed=v.shape[1],
        )

    def _leading(self, variation: Float64) -> Float64:
        """The directions to remove, float64 (d, r), orthonormal."""
        values, vectors = np.linalg.eigh(variation)
        removed = min(self.directions, int((values > values[-1] * 1e-7).sum()))
        if removed >= len(values):
            raise UsageError(
                f"removing {removed} of {len(values)} dimensions leaves nothing",
                hint="Set fewer directions.",
            )
        leading: Float64 = vectors[:, -removed:]
        return leading

    def _variation(self, rows: Rows, x: Float32) -> tuple[str, Float64]:
        """Which content was found, and its covariance, float64 (d, d)."""
        asked = ("categories", "pairs", "within") if self.content == "known" else (self.content,)
        for name in asked:
            if name == "within":
                return name, _within(rows, x, self.trusted)
            points = _categories(rows, x) if name == "categories" else _pairs(rows, x)
            # Where each generator shows one category alone, what is left of it is rounding.
            if points is not None and np.square(points).sum() > _NOTHING * _spread(rows, x):
                return name, points.T @ points
        what, hint = _NOT_KNOWN[asked[0]]
        raise UsageError(what, hint=hint)


def _spread(rows: Rows, x: Float32) -> float:
    """Squared distances of all images to their label's mean, summed."""
    labels = rows.fake.astype(np.int64)
    return float(np.square(x - class_means(x, labels).astype(np.float32)[labels]).sum())


def _categories(rows: Rows, x: Float32) -> Float64 | None:
    """Mean of each category of each label, times the root of its size, float64 (c, d)."""
    known = np.flatnonzero(rows.categories != "")
    if not known.size:
        return None
    names = name_codes(rows)[known]
    centred = x[known] - class_means(x[known], names).astype(np.float32)[names]
    codes = 2 * np.unique(rows.categories[known], return_inverse=True)[1] + rows.fake[known]
    found, codes, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if not (np.bincount(found % 2, minlength=2) > 1).any():
        return None
    means: Float64 = class_means(centred, codes) * np.sqrt(counts)[:, None]
    return means


def _pairs(rows: Rows, x: Float32) -> Float64 | None:
    """Midpoints of the groups that have both labels, less their mean, float64 (p, d)."""
    both = np.intersect1d(rows.groups[rows.fake], rows.groups[~rows.fake])
    if len(both) < 2:
        return None
    sides = []
    for label in (False, True):
        members = np.flatnonzero(np.isin(rows.groups, both) & (rows.fake == label))
        sides.append(class_means(x[members], np.searchsorted(both, rows.groups[members])))
    midpoints = (sides[0] + sides[1]) / 2
    offsets: Float64 = midpoints - midpoints.mean(axis=0)
    return offsets


def _within(rows: Rows, x: Float32, trusted: int) -> Float64:
    photographs, fakes = x[~rows.fake], x[rows.fake]
    names = np.unique(rows.names[rows.fake], return_inverse=True)[1]
    counts = np.bincount(names)
    weights, trust = counts / (counts + ALIKE), counts / (counts + trusted)
    means = class_means(fakes, names)
    overall = np.average(means, axis=0, weights=weights)
    centres = overall + trust[:, None] * (means - overall)
    each = weights / np.maximum(counts - 1, 1)
    fakes = (fakes - centres.astype(np.float32)[names]) * np.sqrt(each).astype(np.float32)[names, None]
    moments = [second_moment(photographs - photographs.mean(axis=0)), second_moment(fakes)]
    varying = [m / np.trace(m) for m in moments if np.trace(m) > 0]
    if not varying:
        raise UsageError("all vectors of each label are equal: there is nothing to learn")
    total: Float64 = np.sum(varying, axis=0)
    return total
