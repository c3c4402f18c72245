"""How high the highest of a photograph's crops scores by chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_detect.scoring.conformal import at_least
from retrieval_detect.verdicts import Question

FORMAT = "retrieval-detect/regions"
VERSION = 1


@dataclass(frozen=True, slots=True)
class HighestCrops:
    """What the crops of photographs set aside come to.

    ``photographs`` : of each, how many crops it has and the score of the highest. ``k`` and ``scorer`` : see
    ``Calibration``.
    """

    method: str
    k: int
    projection: str
    scorer: str
    rows_digest: str
    photographs: tuple[tuple[int, float], ...]

    @property
    def question(self) -> Question:
        """What was asked about each crop."""
        return Question(self.method, self.k, self.projection)

    def p_value(self, n_crops: int, highest: float) -> tuple[float | None, int]:
        """(1 + number of photographs >= ``highest``) / (n + 1), and n; no p-value where n is 0.

        The more crops, the higher their highest: compared are the n photographs that have ``n_crops``
        or more, so that p is too large rather than too small. It holds for an image exchangeable with
        those of them that have as many crops.
        """
        compared = np.sort([score for n, score in self.photographs if n >= n_crops])
        return (float(at_least(compared, highest)) if len(compared) else None), len(compared)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; floats keep all their digits."""
        facts = {name: getattr(self, name) for name in self.__slots__}
        return {"format": FORMAT, "version": VERSION} | facts

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HighestCrops:
        """Inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
        if (data["format"], data["version"]) != (FORMAT, VERSION):
            raise ValueError(f"this is {data['format']!r}, version {data['version']!r}")
        photographs = tuple((int(n), float(score)) for n, score in data["photographs"])
        facts = {name: str(data[name]) for name in ("method", "projection", "scorer", "rows_digest")}
        return cls(**facts, k=int(data["k"]), photographs=photographs)
