"""Where a score lies among those of known images: geometry for a chart, and the sentence that says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.report.html import strings as t
from retrieval_detect.report.html.records import Distribution, Histogram

if TYPE_CHECKING:
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.types import Float64, Label

_BINS = 36
_TAIL = 0.5
"""Of the scores, in percent at either end, those beyond are drawn at the edge."""


def distribution(score: float, calibration: Calibration | None) -> Distribution | None:
    """The scores of photographs and fakes set aside, with this one among them; needs a calibration."""
    if calibration is None:
        return None
    known = {"real": _all(calibration.conformal.real), "fake": _all(calibration.conformal.fake)}
    if not all(map(len, known.values())):
        return None
    low, high = _ends(np.concatenate(list(known.values())), score)
    edges = np.linspace(low, high, _BINS + 1)
    return Distribution(
        low=low,
        high=high,
        score=score,
        at=(score - low) / (high - low),
        histograms=(_histogram("real", known["real"], edges), _histogram("fake", known["fake"], edges)),
        sentence=t.DISTRIBUTION_NOTE.format(
            n_real=len(known["real"]),
            real=int(np.count_nonzero(known["real"] >= score)),
            n_fake=len(known["fake"]),
            fake=int(np.count_nonzero(known["fake"] <= score)),
        ),
    )


def _all(scores: Mapping[str, Float64]) -> Float64:
    return np.sort(np.concatenate([np.empty(0), *scores.values()]))


def _ends(scores: Float64, score: float) -> tuple[float, float]:
    low, high = np.percentile(scores, [_TAIL, 100 - _TAIL])
    low, high = min(float(low), score), max(float(high), score)
    spread = (high - low) or 1.0
    return low - spread / 50, high + spread / 50


def _histogram(label: Label, scores: Float64, edges: Float64) -> Histogram:
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    heights = tuple(round(float(count / counts.max()), 3) for count in counts)
    return Histogram(label, len(scores), heights)
