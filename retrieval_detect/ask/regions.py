"""Where in an image: crops at native resolution, each judged by the crops of references alone.

One vector of the whole image says little where only a part of it was made (a changed face, a filled
hole). The highest of many crops is high by chance, too: so it is compared with the highest crops of
photographs that were cut and judged in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.ask.banks import Banks
from retrieval_detect.ask.calibrations import calibration_name
from retrieval_detect.ask.fitted import PLAIN
from retrieval_detect.ask.methods import Methods, asked_about
from retrieval_detect.errors import UsageError
from retrieval_detect.images.laundering import CROPS, crop_box, kind_of
from retrieval_detect.scoring.conformal import at_least
from retrieval_detect.store.shards import damaged
from retrieval_detect.types import LABELS
from retrieval_detect.verdicts import POOLS, Question, Region, Regions

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Embedded
    from retrieval_detect.verdicts import Pool

TOP = 3
FORMAT = "retrieval-detect/regions"
VERSION = 1


def require(snapshot: Snapshot, question: Question) -> None:
    """Raise ``UsageError`` if regions cannot be judged as asked: no crops are stored, or no such pool."""
    if question.regions is None:
        return
    if question.regions not in POOLS:
        raise UsageError(f"there is no pool {question.regions!r}", hint=f"Pools: {', '.join(POOLS)}")
    _require_crops(snapshot)


def _require_crops(snapshot: Snapshot) -> None:
    for label in LABELS:
        views = snapshot.scan(["view"], label=label, split="bank")["view"].unique().to_pylist()
        if not any(kind_of(view) == CROPS for view in views):
            raise UsageError(
                f"the {label} bank of index {snapshot.folder.name!r} holds no crops to judge regions by",
                hint=f"Store them beside the references: rd bank add DIR --label {label} --views crops",
            )


def pooled(scores: Sequence[float], pool: Pool) -> float:
    """The highest of some scores, their mean, or the mean of the ``TOP`` highest."""
    counted = {"max": 1, "mean": len(scores), "top": TOP}[pool]
    return float(np.mean(sorted(scores, reverse=True)[:counted]))


# ---------------------------------------------------------------- photographs judged the same way


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


# ---------------------------------------------------------------- asking


class CropMethods(Methods):
    """The methods of one generation over banks that hold nothing but the crops of references."""

    def __init__(self, snapshot: Snapshot, *, device: str = "auto") -> None:
        super().__init__(snapshot, device=device)
        self._highest: dict[str, HighestCrops | None] = {}

    def banks(self, projection: str | None = None) -> Banks:
        """Both banks, their crops alone, through a projection; ``None`` is the index's default."""
        name = self.snapshot.manifest.projection if projection is None else projection
        if name not in self._banks:
            self._banks[name] = Banks(self.snapshot, projection=name, device=self._device, view_kind=CROPS)
        return self._banks[name]

    def regions(self, crops: Sequence[Embedded], question: Question, *, own_groups: set[int]) -> Regions:
        """Judge each crop of one image by itself; whole-image evidence has no part in it.

        ``crops`` : its views of kind ``crops``, one at least. ``question`` : ``checked``, with a pool.
        ``own_groups`` : groups of the image and its near-duplicates, which do not vote.
        """
        answers = self.ask(asked_about(crops, self.layers(question), own_groups=own_groups), question)
        heat_map = tuple(
            Region(crop_box(crop.view), float(answers.one(i).scores[0])) for i, crop in enumerate(crops)
        )
        scores = [region.score for region in heat_map]
        pool = question.regions or "max"
        fitted = self.highest_crops(question)
        p_max, n = fitted.p_value(len(scores), max(scores)) if fitted else (None, None)
        return Regions(pool, pooled(scores, pool), p_max, n, heat_map)

    def highest_crops(self, question: Question) -> HighestCrops | None:
        """What photographs' crops come to by the method of a ``checked`` question, if that was fitted."""
        name = calibration_name(question.method, question.projection or PLAIN)
        if name not in self._highest:
            self._highest[name] = read_regions(self.snapshot, name)
        found = self._highest[name]
        return found if found and (found.k, found.scorer) == (question.k, self.scorer(question)) else None


def read_regions(snapshot: Snapshot, name: str) -> HighestCrops | None:
    """What was kept under ``name``, if anything; ``IndexCorrupt`` if its file is none."""
    record = snapshot.fitted("regions", name)
    if record is None:
        return None
    path = snapshot.fitted_path(record, "json")
    try:
        return HighestCrops.from_json(json.loads(snapshot.read(path)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path) from error


# ---------------------------------------------------------------- fitting
