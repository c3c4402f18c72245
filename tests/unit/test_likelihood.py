"""Likelihood ratios: monotone, bounded, honest about their cost."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.likelihood import (
    LIKELIHOOD_METHODS,
    cllr,
    fit_likelihood_ratio,
    probability,
)


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return rng.normal(1, 1, 2000), rng.normal(-1, 1, 3000)


@pytest.mark.parametrize("method", LIKELIHOOD_METHODS)
def test_it_finds_the_true_ratio(method, scores):
    """Two normals, one apart in mean by 2: the log likelihood ratio is 2 s."""
    fit = fit_likelihood_ratio(*scores, method=method)
    at = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert fit(at) == pytest.approx(2 * at / np.log(10), abs=0.25)


@pytest.mark.parametrize("method", LIKELIHOOD_METHODS)
def test_it_is_monotone_and_bounded_by_what_was_seen(method, scores):
    fake, real = scores
    values = fit_likelihood_ratio(fake, real, method=method)(np.linspace(-99, 99, 999))
    assert (np.diff(values) >= 0).all()
    assert values[-1] <= np.log10(len(real) + 1) and values[0] >= -np.log10(len(fake) + 1)


@pytest.mark.parametrize("method", LIKELIHOOD_METHODS)
def test_classes_weigh_alike_whatever_their_sizes(method):
    rng = np.random.default_rng(1)
    fit = fit_likelihood_ratio(rng.normal(1, 1, 200), rng.normal(-1, 1, 20_000), method=method)
    assert fit(0.0) == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("method", LIKELIHOOD_METHODS)
def test_separated_classes_stay_within_the_bounds(method):
    fit = fit_likelihood_ratio(np.full(30, 5.0), np.full(99, -5.0), method=method)
    assert fit(5.0) <= 2.0 and fit(-5.0) >= -np.log10(31)
    assert fit(5.0) > 1 and fit(-5.0) < -1


def test_scores_that_tell_the_wrong_way_tell_nothing():
    rng = np.random.default_rng(2)
    fit = fit_likelihood_ratio(rng.normal(-1, 1, 500), rng.normal(1, 1, 500))
    assert np.abs(fit(np.linspace(-3, 3, 7))).max() == 0


def test_one_class_only():
    with pytest.raises(UsageError, match="fakes and of photographs"):
        fit_likelihood_ratio([1.0], [])


def test_bayes_by_hand():
    assert probability(0.0, 0.5) == pytest.approx(0.5)
    assert probability(1.0, 0.01) == pytest.approx(0.1 / (0.1 + 0.99), rel=1e-9)
    with pytest.raises(UsageError):
        probability(0.0, 1.0)


def test_cost_by_hand(scores):
    assert cllr([0.0], [0.0]) == pytest.approx(1)
    assert cllr([9.0], [-9.0]) == pytest.approx(0, abs=1e-8)
    assert cllr([-9.0], [9.0]) > 20
    fit = fit_likelihood_ratio(*scores)
    assert cllr(fit(scores[0]), fit(scores[1])) < 0.6
