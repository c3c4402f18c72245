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
    benjamini_hochberg,
    confident_alpha,
    size_class,
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


def test_too_few_photographs_says_how_many():
    few = conformal(np.random.default_rng(0), n_real=40)
    with pytest.raises(UsageError, match="needs 99 calibration photographs, there are 40"):
        few.require(0.01)
    few.require(0.05)
    with pytest.raises(UsageError, match=r"no generator has 19 .* together, 8: 11 too few"):
        conformal(np.random.default_rng(0), n_fake=8).require(0.05)


def test_small_generators_are_pooled_and_a_lone_small_one_decides_nothing():
    rng = np.random.default_rng(0)
    real, typical = {"s": np.sort(rng.normal(size=100))}, np.sort(rng.normal(size=150))
    small = {f"g{i}": np.sort(rng.normal(2, 1, 10)) for i in range(2)}
    pooled = Conformal(real, small, typical).p_fake([-9.0])[0]
    assert pooled == pytest.approx(1 / 21)
    large = {"big": np.sort(rng.normal(2, 1, 99))}
    with_small = Conformal(real, large | {"tiny": np.zeros(3)}, typical)
    assert with_small.p_fake([-9.0])[0] == pytest.approx(0.01)


def test_a_declared_source_is_judged_by_its_own():
    rng = np.random.default_rng(0)
    strict = Conformal(
        {"day": np.zeros(99), "night": np.full(99, 5.0)}, {"g": np.ones(50)}, rng.normal(size=9)
    )

    def p_real(source):
        (photographs,) = strict.compared(0.05, within=None, source=source, traits={}).values()
        return at_least(photographs, 3.0)

    assert (p_real("night"), p_real("day")) == (1.0, 0.01)
    with pytest.raises(UsageError, match="no calibration photographs of source 'dusk'"):
        p_real("dusk")


# ---------------------------------------------------------------- sets of photographs, batches


def test_within_sources_the_rate_holds_in_each_of_them():
    rng = np.random.default_rng(7)
    real = {"day": np.sort(rng.normal(0, 1, 500)), "night": np.sort(rng.normal(2, 1, 500))}
    both = Conformal(real, {"sdxl": np.sort(rng.normal(4, 1, 99))}, np.sort(rng.normal(size=99)))
    night = rng.normal(2, 1, 4000)
    pooled = both.compared(0.05, within=None, source=None, traits={})
    each = both.compared(0.05, within="source", source=None, traits={})
    flagged = {
        name: np.mean(np.max([at_least(s, night) for s in sets.values()], axis=0) <= 0.05)
        for name, sets in (("pooled", pooled), ("each", each))
    }
    assert flagged["pooled"] > 0.08 and flagged["each"] < 0.07


def test_an_image_is_compared_with_its_like_where_there_are_enough():
    base = conformal(np.random.default_rng(0))
    traits = {"format": {"JPEG": np.sort(np.arange(100.0)), "PNG": np.zeros(5)}}
    some = Conformal(base.real, base.fake, base.typical, traits)
    asked = {"within": "format", "source": None}
    assert list(some.compared(0.05, **asked, traits={"format": "JPEG"})) == ["JPEG"]
    assert list(some.compared(0.05, **asked, traits={"format": "PNG"})) == ["JPEG"]  # five PNGs say nothing
    assert list(some.compared(0.2, **asked, traits={"format": "PNG"})) == ["PNG"]
    with pytest.raises(UsageError, match="in one set, there are 100"):
        some.compared(0.001, **asked, traits={"format": "JPEG"})
    with pytest.raises(UsageError, match="does not know the size"):
        some.compared(0.05, within="size", source=None, traits={})
    with pytest.raises(UsageError, match="not told apart by 'colour'"):
        some.compared(0.05, within="colour", source=None, traits={})


def test_a_batch_keeps_to_its_share_of_false_discoveries():
    rng = np.random.default_rng(3)
    shares, found = [], 0
    for _ in range(200):
        photographs = np.sort(rng.normal(size=300))
        scores = np.concatenate([rng.normal(size=90), rng.normal(3.5, 1, 30)])
        p = at_least(photographs, scores)
        called = p <= benjamini_hochberg(p, 0.2)
        shares.append(called[:90].sum() / max(called.sum(), 1))
        found += called[90:].sum()
    assert np.mean(shares) < 0.2 * 90 / 120 + 4 * np.std(shares) / np.sqrt(200)
    assert found > 0.5 * 30 * 200
    assert benjamini_hochberg([0.5, 0.9], 0.1) == 0.0 and benjamini_hochberg([], 0.1) == 0.0
    assert benjamini_hochberg([0.01, 0.02, 0.9], 0.1) == pytest.approx(0.1 * 2 / 3)


@pytest.mark.parametrize(("size", "said"), [((255, 900), "below 256"), ((4000, 3000), "2048 and more")])
def test_sizes_are_told_by_the_shorter_side(size, said):
    assert size_class(*size) == said
