"""Metrics against scikit-learn, SciPy and cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate import metrics
from retrieval_detect.scoring.likelihood import cllr


@pytest.fixture(params=[4, 50, 10**6])
def scored(request):
    """Scores with many ties, some, none."""
    rng = np.random.default_rng(request.param)
    fake = rng.random(400) < 0.3
    scores = rng.integers(0, request.param, 400) / request.param + 0.2 * fake - 0.5
    return scores, fake


def test_curves_have_the_area_they_are_named_for():
    rng = np.random.default_rng(0)
    fake = np.arange(2000) % 2 == 0
    scores = rng.normal(fake * 1.5)
    found = metrics.curves(scores, fake)
    for name, metric in (("roc", metrics.auroc), ("pr", metrics.average_precision)):
        assert len(found[name]) == len(metrics.GRID) == 101
        assert np.trapezoid(found[name], metrics.GRID) == pytest.approx(metric(scores, fake), abs=0.005)
    mean = metrics.mean_curves([found, {"roc": np.ones(101), "pr": np.ones(101)}])
    assert mean["roc"][50] == pytest.approx((found["roc"][50] + 1) / 2, abs=1e-4)


def test_curves_by_hand():
    """Two fakes, one above and one below the only photograph."""
    found = metrics.curves([3.0, 2.0, 1.0], [True, False, True])
    assert found["roc"][[0, 50, 100]].tolist() == [0.5, 0.5, 1.0]
    assert found["pr"][[0, 50, 51, 100]].tolist() == pytest.approx([1.0, 1.0, 2 / 3, 2 / 3])


def test_rankings_agree_with_scikit_learn(scored):
    scores, fake = scored
    assert metrics.auroc(scores, fake) == pytest.approx(reference.roc_auc_score(fake, scores))
    assert metrics.average_precision(scores, fake) == pytest.approx(
        reference.average_precision_score(fake, scores)
    )
    fprs, tprs, _ = reference.roc_curve(fake, scores, drop_intermediate=False)
    assert metrics.tpr_at_fpr(scores, fake) == pytest.approx(tprs[fprs <= 0.01].max())


def test_accuracies_agree_with_scikit_learn(scored):
    scores, fake = scored
    found = metrics.accuracy(scores, fake, threshold=0.1, kind="calibrated")
    flagged = scores > 0.1
    assert found.all == pytest.approx(reference.accuracy_score(fake, flagged))
    assert found.balanced == pytest.approx(reference.balanced_accuracy_score(fake, flagged))
    assert found.fake == pytest.approx(reference.recall_score(fake, flagged))
    assert found.real == pytest.approx(reference.recall_score(~fake, ~flagged))
    assert (found.kind, found.threshold) == ("calibrated", 0.1)


def test_no_threshold_beats_the_oracle(scored):
    scores, fake = scored
    best = max(((scores > t) == fake).mean() for t in [-10, *scores])
    at = metrics.oracle_threshold(scores, fake)
    assert ((scores > at) == fake).mean() == pytest.approx(best)


def test_a_score_on_the_threshold_is_no_fake():
    found = metrics.accuracy([0.0, 0.0, 1.0], [False, True, True], threshold=0.0, kind="fixed")
    assert (found.real, found.fake, found.balanced) == (1.0, 0.5, 0.75)


@pytest.mark.parametrize(("labels", "at_least"), [([1, 1, 0], 3), ([0, 0, 1], 2)])
def test_the_oracle_may_call_everything_one_label(labels, at_least):
    scores = [1.0, 1.0, 1.0]
    found = metrics.accuracies(scores, labels)["oracle"]
    assert found.all == pytest.approx(2 / 3)
    assert (found.threshold < 1) == (labels == [1, 1, 0])


def test_the_kinds_of_threshold_are_named():
    row = metrics.measure([0.2, 0.8, 0.6], [False, True, False], fixed=0.5, calibrated=0.7)
    assert (row["acc_fixed"], row["acc_calibrated"], row["acc_oracle"]) == (pytest.approx(2 / 3), 1.0, 1.0)
    assert row["real_acc_fixed"] == 0.5 and row["fake_acc_fixed"] == 1.0
    assert not [key for key in metrics.measure([0, 1], [False, True]) if "calibrated" in key]


# ---------------------------------------------------------------- probabilities


def test_probabilities_agree_with_scikit_learn(scored):
    fake = scored[1]
    stated = np.random.default_rng(0).random(len(fake)) * 0.9 + 0.05
    assert metrics.brier(stated, fake) == pytest.approx(reference.brier_score_loss(fake, stated))
    assert metrics.negative_log_likelihood(stated, fake) == pytest.approx(reference.log_loss(fake, stated))


def test_calibration_error_by_hand():
    """Two bins: 0.5 stated where 1 of 4 is fake, 1.0 stated where 1 of 2 is: (4 × 0.25 + 2 × 0.5) / 6."""
    stated, fake = [0.5] * 4 + [1.0] * 2, [True, False, False, False, True, False]
    assert metrics.expected_calibration_error(stated, fake) == pytest.approx(2 / 6)
    assert metrics.reliability(stated, fake) == [
        (0.5, 0.25, pytest.approx(4 / 6)),
        (1.0, 0.5, pytest.approx(2 / 6)),
    ]


def test_bins_are_fifteenths():
    stated = [0.5 / 15, 1.4 / 15, 14.9 / 15]
    assert len(metrics.reliability(stated, [False, True, True])) == 3
    assert len(metrics.reliability([0.1 / 15, 0.9 / 15, 0.99], [False, True, True])) == 2


def test_true_ratios_are_calibrated_at_any_share_of_fakes():
    """Scores of N(±1, 1): the log odds are 2 s, whatever the prior."""
    rng = np.random.default_rng(3)
    fake = np.arange(40_000) % 10 == 0
    ratios = 2 * rng.normal(np.where(fake, 1, -1)) / np.log(10)
    found = metrics.calibration_metrics(ratios, fake)
    assert found["ece"] < 0.01 and found["cllr"] == pytest.approx(cllr(ratios[fake], ratios[~fake]))
    assert metrics.calibration_metrics(3 * ratios, fake)["ece"] > 0.02
    assert metrics.likelihood_cost(np.zeros(4), [True, False, True, False]) == 1.0


# ---------------------------------------------------------------- quality and attribution


def test_correlations_agree_with_scipy():
    rng = np.random.default_rng(5)
    opinion = rng.integers(1, 6, 60).astype(float)
    predicted = opinion + rng.normal(size=60)
    found = metrics.correlations(predicted, opinion)
    assert found.srcc == pytest.approx(stats.spearmanr(predicted, opinion).statistic)
    assert found.plcc == pytest.approx(np.corrcoef(predicted, opinion)[0, 1])
    assert found.krcc == pytest.approx(stats.kendalltau(predicted, opinion).statistic)
    assert metrics.correlations([1, 2, 3, 4], [1, 4, 9, 16]).srcc == pytest.approx(1)


def test_oscr_by_hand():
    """Known 3 (right), 2 (wrong), 1 (right); unknown 2.5, 0: pairs won by right ones 1 + 1 + 0 + 1 of 6."""
    assert metrics.oscr([True, False, True], [3, 2, 1], [2.5, 0]) == pytest.approx(3 / 6)
    assert metrics.oscr([False, False], [3, 2], [1]) == 0.0
    assert metrics.oscr([True, True], [3, 2], [1]) == 1.0


def test_oscr_is_the_area_under_its_curve():
    rng = np.random.default_rng(7)
    right, known, unknown = rng.random(80) < 0.7, rng.normal(1, 1, 80), rng.normal(0, 1, 60)
    cuts = np.sort(np.r_[known, unknown, np.inf, -np.inf])[::-1]
    ccr = [(right & (known >= t)).mean() for t in cuts]
    fpr = [(unknown >= t).mean() for t in cuts]
    assert metrics.oscr(right, known, unknown) == pytest.approx(np.trapezoid(ccr, fpr))


# ---------------------------------------------------------------- trouble


@pytest.mark.parametrize(
    ("scores", "fake", "says"),
    [
        ([1, 2], [True, True], "no photographs"),
        ([1, 2], [False, False], "no fakes"),
        ([1, np.nan], [True, False], "not a number"),
        ([1, 2, 3], [True, False], "3 scores and 2 labels"),
    ],
)
def test_what_cannot_be_measured_is_said(scores, fake, says):
    for metric in (*metrics.RANKING_METRICS.values(), metrics.oracle_threshold, metrics.brier):
        with pytest.raises(UsageError, match=says):
            metric(scores, fake)


def test_probabilities_are_probabilities():
    with pytest.raises(UsageError, match="between 0 and 1"):
        metrics.brier([1.5, 0], [True, False])


@pytest.mark.parametrize(
    ("predicted", "opinion", "says"),
    [
        ([1, 1, 1], [1, 2, 3], "all equal"),
        ([1, 2], [1, 2], "three images"),
        ([1, 2, np.inf], [1, 2, 3], "number"),
    ],
)
def test_no_correlation_without_variation(predicted, opinion, says):
    with pytest.raises(UsageError, match=says):
        metrics.correlations(predicted, opinion)
