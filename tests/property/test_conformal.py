"""The promises of conformal p-values, on data that keep their side of the bargain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.conformal import (
    Conformal,
    at_least,
    at_most,
    confident_alpha,
    verdict,
)


def conformal(rng, n_real=400, n_fake=100):
    real = {f"s{i}": np.sort(rng.normal(size=n_real // 4)) for i in range(4)}
    fake = {f"g{i}": np.sort(rng.normal(2, 1, size=n_fake // 2)) for i in range(2)}
    return Conformal(real, fake, np.sort(rng.normal(size=n_real + n_fake)))


def test_counting_by_hand():
    calibration = np.array([0.0, 1.0, 1.0, 2.0])
    assert at_least(calibration, [-1, 0, 1, 1.5, 3]).tolist() == [1.0, 1.0, 0.8, 0.4, 0.2]
    assert at_most(calibration, [-1, 0, 1, 1.5, 3]).tolist() == [0.2, 0.4, 0.8, 0.8, 1.0]


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
def test_false_alarms_are_beta_binomial(alpha):
    """Over 200 independent splits: the exact law of the count, and its mean within 4 standard errors."""
    rng = np.random.default_rng(round(alpha * 1000))
    n, m, splits = 499, 300, 200
    r = int(alpha * (n + 1))
    law = stats.betabinom(m, r, n + 1 - r)
    counts = np.array(
        [(at_least(np.sort(rng.normal(size=n)), rng.normal(size=m)) <= alpha).sum() for _ in range(splits)]
    )
    pit = law.cdf(counts - 1) + rng.uniform(size=splits) * law.pmf(counts)
    assert stats.kstest(pit, "uniform").pvalue > 1e-3
    standard_error = law.std() / m / np.sqrt(splits)
    assert abs(counts.mean() / m - r / (n + 1)) < 4 * standard_error


def test_ties_never_cost_the_promise():
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(100):
        calibration, queries = rng.integers(0, 4, 199), rng.integers(0, 4, 200)
        rates.append((at_least(np.sort(calibration).astype(float), queries) <= 0.05).mean())
    assert np.mean(rates) <= 0.05


def test_confidence_holds_over_calibration_sets():
    rng = np.random.default_rng(2)
    used = confident_alpha(0.05, 400, confidence=0.9)
    assert used < 0.05
    true_rates = [
        1 - stats.norm.cdf(np.sort(rng.normal(size=400))[::-1][round(used * 401) - 1]) for _ in range(400)
    ]
    assert np.mean(np.array(true_rates) <= 0.05) >= 0.9 - 0.05
    with pytest.raises(UsageError, match="needs 299"):
        confident_alpha(0.01, 100, confidence=0.95)


def test_the_four_verdicts():
    assert verdict(0.01, 0.5, 0.5) == "fake-like"
    assert verdict(0.5, 0.01, 0.5) == "real-like"
    assert verdict(0.5, 0.5, 0.5) == "uncertain"
    assert verdict(0.01, 0.01, 0.5) == "unknown"
    assert verdict(0.01, 0.5, 0.01) == "unknown"
    assert verdict(0.05, 0.5, 0.5) == "fake-like"  # "at most alpha" includes alpha


def test_too_few_photographs_says_how_many():
    few = conformal(np.random.default_rng(0), n_real=40)
    with pytest.raises(UsageError, match="needs 99 calibration photographs, there are 40"):
        few.require(0.01)
    few.require(0.05)
    with pytest.raises(UsageError, match="no generator has 19"):
        conformal(np.random.default_rng(0), n_fake=8).require(0.05)


def test_small_generators_are_pooled_and_a_lone_small_one_decides_nothing():
    rng = np.random.default_rng(0)
    real, typical = {"s": np.sort(rng.normal(size=100))}, np.sort(rng.normal(size=150))
    small = {f"g{i}": np.sort(rng.normal(2, 1, 10)) for i in range(2)}
    pooled = Conformal(real, small, typical).p_values([-9.0], [0.0]).fake[0]
    assert pooled == pytest.approx(1 / 21)
    large = {"big": np.sort(rng.normal(2, 1, 99))}
    with_small = Conformal(real, large | {"tiny": np.zeros(3)}, typical)
    assert with_small.p_values([-9.0], [0.0]).fake[0] == pytest.approx(0.01)


def test_a_declared_source_is_judged_by_its_own():
    rng = np.random.default_rng(0)
    strict = Conformal(
        {"day": np.zeros(99), "night": np.full(99, 5.0)}, {"g": np.ones(50)}, rng.normal(size=9)
    )
    assert strict.p_values([3.0], [0.0], source="night").real[0] == 1.0
    assert strict.p_values([3.0], [0.0], source="day").real[0] == 0.01
    with pytest.raises(UsageError, match="no calibration photographs of source 'dusk'"):
        strict.p_values([3.0], [0.0], source="dusk")
