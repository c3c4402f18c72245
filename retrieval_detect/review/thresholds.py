"""What a change of an index did to the score that counts as rare: nobody is to learn it from verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval_detect.ask.methods import Methods
from retrieval_detect.scoring.conformal import ALPHA
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.sweep import snapshot_before
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval_detect.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Threshold:
    """Of the default method, at the usual rate; scores, positive = fake.

    ``score`` : the lowest that is rare among photographs of known sources; ``None``: none can be. ``risk`` :
    the share of a new source's photographs that score so, on average, 0…1; ``None``: not measured.
    """

    score: float | None
    risk: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"score": self.score, "risk": self.risk}


def thresholds(folder: Path, manifest: Manifest) -> tuple[Threshold | None, Threshold | None]:
    """Before the change that made a generation, and after it; ``None`` without a calibration that answers."""
    before = snapshot_before(folder, manifest)
    return None if before is None else _threshold(before), _threshold(Snapshot(folder, manifest))


def _threshold(snapshot: Snapshot) -> Threshold | None:
    methods = Methods(snapshot, device="cpu")  # nothing is searched
    found = methods.fitted(methods.checked(Question()))
    if found is None:
        return None
    score, risk = found.threshold(ALPHA), found.risk(ALPHA)
    return Threshold(None if math.isinf(score) else score, risk)
