"""What rd is held against: linear models trained on the very references that vote."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.scoring.weights import reference_weights
from retrieval_detect.teach.build import Index
from retrieval_detect.vectors import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench._data import Sample

    Scores = NDArray[np.float64]

REGRESSION = "logistic regression"
BALANCED = "logistic regression, balanced"
PIXELS = "trivial pixel statistics"
MAJORITY_CLASS = "majority class"


def rivals_of(folder: Path, known: Sequence[Sample], queries: Sequence[Sample]) -> dict[str, Scores]:
    """Scores of each rival for each query, float64 (q,), positive = fake.

    All are standardised logistic regressions trained on the bank rows of the index, those that vote:
    on the stored vectors; on the same, weighted as the density vote weighs its references; and on
    pixel statistics. ``known`` : samples among which every reference is found.
    """
    arrays = Index.open(folder).arrays(split="bank")
    statistics = {sample.embedded.content_id: sample.statistics for sample in known}
    pixels = np.stack([statistics[identity] for identity in _content_ids(folder, arrays.row_ids)])
    vectors = normalise(np.stack([query.embedded.vectors["proj"] for query in queries]))[0]
    asked = vectors.astype(np.float32)
    return {
        REGRESSION: _regression(arrays.X, arrays.y, asked),
        BALANCED: _regression(arrays.X, arrays.y, asked, weights=_balance(arrays)),
        PIXELS: _regression(pixels, arrays.y, np.stack([query.statistics for query in queries])),
    }


def _content_ids(folder: Path, row_ids: Any) -> list[bytes]:
    rows = Index.open(folder).snapshot().take(row_ids.tolist(), ["content_id"])
    return [row["content_id"] for row in rows]


def _balance(arrays: Any) -> Scores:
    """The density vote's weights of each bank, as sample weights with mean one."""
    weights = np.empty(len(arrays.y))
    for label in (0, 1):
        members = arrays.y == label
        names = np.array(arrays.names)[members]
        weights[members] = np.exp(
            reference_weights(names, arrays.row_ids[members], groups=arrays.groups[members])
        )
        weights[members] *= members.sum() / weights[members].sum()
    return weights


def _regression(known: Any, labels: Any, asked: Any, *, weights: Scores | None = None) -> Scores:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    with warnings.catch_warnings():
        # A rival that was stopped half-way would be no rival.
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(known, labels, logisticregression__sample_weight=weights)
    scores: Scores = model.decision_function(asked)
    return scores
