"""AUC and recall against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.metrics import auc, recall_at_fpr

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference here")


@pytest.mark.parametrize("levels", [3, 20, 10**6])
def test_both_agree_with_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    fake = rng.integers(0, levels, 300) / levels + 0.1
    real = rng.integers(0, levels, 170) / levels
    labels, scores = np.r_[np.ones(300), np.zeros(170)], np.r_[fake, real]
    assert auc(fake, real) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    fprs, recalls, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    for fpr in (0.0, 0.01, 0.05, 0.1, 0.5, 1.0):
        assert recall_at_fpr(fake, real, fpr=fpr) == pytest.approx(recalls[fprs <= fpr].max())


def test_auc_by_hand():
    assert auc([3, 1], [2, 1]) == (1 + 1 + 0 + 0.5) / 4
    assert auc([1], [1]) == 0.5
    assert auc([2, 2], [1]) == 1.0


def test_the_false_alarms_allowed_are_counted_exactly():
    real = np.arange(100)
    assert recall_at_fpr([70, 70.5, 71], real, fpr=0.29) == pytest.approx(2 / 3)
    assert recall_at_fpr([99], real, fpr=0.0) == 0.0
    assert recall_at_fpr([99.5], real, fpr=0.0) == 1.0


@pytest.mark.parametrize(
    ("fake", "real", "says"), [([], [1], "no fake"), ([1], [], "no real"), ([np.nan], [1], "not a number")]
)
def test_what_cannot_be_measured(fake, real, says):
    with pytest.raises(UsageError, match=says):
        auc(fake, real)
    with pytest.raises(UsageError, match=says):
        recall_at_fpr(fake, real, fpr=0.1)


def test_a_rate_is_a_rate():
    with pytest.raises(UsageError, match="5"):
        recall_at_fpr([1], [0], fpr=5)
