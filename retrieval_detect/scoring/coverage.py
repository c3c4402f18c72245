"""Does the real bank hold photographs of an image's kind? How near its nearest photographs usually are.

What is compared are the vectors of the encoder's own last layer as they are stored, in which images of one
subject lie together. Photographs that are much farther from all references than those of a source never seen
usually are show something that no photograph here shows, and their score is of no use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from retrieval_detect.types import Bool, Float64

FORMAT = "retrieval-detect/coverage"
VERSION = 1
NEAREST = 9
"""Photographs whose mean similarity says how near the real bank is."""
UNCOVERED = 0.05
"""The share of photographs of new sources that may count as covered by nothing, sources weighing alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """How near photographs of a source that is not in the real bank lie to those that are.

    ``layer`` : whose stored vectors are compared. ``left_out`` : source → the mean similarity of each of its
    photographs with its nearest ``NEAREST`` of the other sources, float64 (n,), ascending, -1…1.
    ``threshold`` : an image less similar than this is covered by nothing.
    """

    layer: str
    left_out: Mapping[str, Float64]
    threshold: float

    @classmethod
    def of(cls, layer: str, left_out: Mapping[str, Float64], *, share: float = UNCOVERED) -> Coverage:
        """With the threshold that follows: the ``share`` quantile without the strangest source.

        That is the largest of the quantiles that leaving out each source gives: of five sources, one that
        resembles no other would else be a fifth of what is far, and nothing farther than it ever found. With
        two sources, the other's.
        """
        without = ([mine for other, mine in left_out.items() if other != one] for one in left_out)
        return cls(layer, left_out, max(_quantile(others, share) for others in without))

    def covers(self, similarities: Float64) -> Bool:
        """Which of some mean similarities, float64 (q,), are as high as the threshold; nan is."""
        covered: Bool = ~(similarities < self.threshold)
        return covered

    def uncovered(self) -> dict[str, float]:
        """Source → the share of its photographs below the threshold with it left out, the largest first."""
        shares = {name: float(np.mean(mine < self.threshold)) for name, mine in self.left_out.items()}
        return dict(sorted(shares.items(), key=lambda pair: (-pair[1], pair[0])))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; floats keep all their digits."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "layer": self.layer,
            "threshold": self.threshold,
            "left_out": {name: mine.tolist() for name, mine in self.left_out.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Coverage:
        """Inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
        if (data["format"], data["version"]) != (FORMAT, VERSION):
            raise ValueError(f"this is {data['format']!r}, version {data['version']!r}")
        left_out = {str(name): np.asarray(mine, np.float64) for name, mine in data["left_out"].items()}
        threshold = float(data["threshold"])
        known = np.concatenate([[threshold], *left_out.values()])
        if not all(map(len, left_out.values())) or not (np.abs(known) <= _LARGEST).all():
            raise ValueError("similarities must lie between -1 and 1")
        return cls(str(data["layer"]), left_out, threshold)


_LARGEST = 1.001
"""A cosine of vectors that were rounded."""


def _quantile(sources: list[Float64], share: float) -> float:
    """The ``share`` quantile of all, each source weighing alike."""
    values = np.concatenate(sources)
    weights = np.concatenate([np.full(len(mine), 1 / (len(mine) * len(sources))) for mine in sources])
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[order])
    at = int(np.searchsorted(upto, share))
    return float(values[order][min(at, len(values) - 1)])
