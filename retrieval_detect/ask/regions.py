"""Where in an image: crops at native resolution, each judged by the crops of references alone.

One vector of the whole image says little where only a part of it was made (a changed face, a filled
hole). The highest of many crops is high by chance, too: so it is compared with the highest crops of
photographs that were cut and judged in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.banks import Banks
from retrieval_detect.ask.calibrations import calibration_name
from retrieval_detect.ask.fitted import PLAIN, REGIONS, read
from retrieval_detect.ask.methods import Methods, asked_about
from retrieval_detect.errors import UsageError
from retrieval_detect.images.laundering import CROPS, crop_box, kind_of
from retrieval_detect.types import LABELS
from retrieval_detect.verdicts import POOLS, Question, Region, Regions

if TYPE_CHECKING:
    from retrieval_detect.scoring.highest_crops import HighestCrops
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Embedded, Label, Split
    from retrieval_detect.verdicts import Pool

TOP = 3


def require(snapshot: Snapshot, question: Question) -> None:
    """Raise ``UsageError`` if regions cannot be judged as asked: no crops are stored, or no such pool."""
    if question.regions is None:
        return
    if question.regions not in POOLS:
        raise UsageError(f"there is no pool {question.regions!r}", hint=f"Pools: {', '.join(POOLS)}")
    require_crops(snapshot)


def require_crops(snapshot: Snapshot) -> None:
    """Raise ``UsageError`` where a bank holds no crops."""
    for label in LABELS:
        if not holds_crops(snapshot, label, "bank"):
            raise UsageError(
                f"the {label} bank of index {snapshot.folder.name!r} holds no crops to judge regions by",
                hint=f"Store them beside the references: rd bank add DIR --label {label} --views crops",
            )


def holds_crops(snapshot: Snapshot, label: Label, split: Split) -> bool:
    """Whether any row of a class is a crop."""
    views = snapshot.scan(["view"], label=label, split=split)["view"].unique().to_pylist()
    return any(kind_of(view) == CROPS for view in views)


def pooled(scores: Sequence[float], pool: Pool) -> float:
    """The highest of some scores, their mean, or the mean of the ``TOP`` highest."""
    counted = {"max": 1, "mean": len(scores), "top": TOP}[pool]
    return float(np.mean(sorted(scores, reverse=True)[:counted]))


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
            self._highest[name] = read(self.snapshot, REGIONS, name)
        found = self._highest[name]
        return found if found and (found.k, found.scorer) == (question.k, self.scorer(question)) else None
