"""Whether the real bank holds photographs of an image's kind, as verdicts say it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.ask.fitted import PLAIN

if TYPE_CHECKING:
    from retrieval_detect.ask.methods import Answers, Methods
    from retrieval_detect.types import Bool, Float64


def similarities(answers: Answers) -> Float64:
    """Mean cosine of images with the nearest photographs of the real bank, float64 (m,); nan: not known."""
    near = answers.photographs
    if near is None:
        return np.full(len(answers.scores), np.nan)
    there = near.similarities > -np.inf
    total, n = np.where(there, near.similarities, 0.0).sum(axis=1), there.sum(axis=1)
    mean: Float64 = np.where(n, total / np.maximum(n, 1), np.nan)
    return mean


def covered(methods: Methods, answers: Answers) -> Bool:
    """Whether the real bank is as near as it usually is, bool (m,); where that is not known, it is."""
    fitted = methods.coverage
    return np.ones(len(answers.scores), bool) if fitted is None else fitted.covers(similarities(answers))


def coverage_of(methods: Methods, answers: Answers) -> dict[str, Any] | None:
    """What ``Verdict.coverage`` says of one image."""
    (similarity,), near = similarities(answers).tolist(), answers.photographs
    if methods.coverage is None or near is None or np.isnan(similarity):
        return None
    names = methods.banks(PLAIN).references("real").names
    sources = Counter(names[code] for code in near.names[0, : near.n[0]].tolist())
    return {
        "similarity": similarity,
        "threshold": methods.coverage.threshold,
        "nearest": [{"source": name, "photographs": n} for name, n in sources.most_common()],
    }
