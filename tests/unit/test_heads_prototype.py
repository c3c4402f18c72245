"""Prototypes: the densities they stand for, what few references do, and attribution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, vonmises_fisher

from retrieval_detect.errors import UsageError
from retrieval_detect.heads.prototype import PrototypeHead
from tests.heads import encoded, training_set, unit

NAMES = {"a": (True, 30), "b": (True, 12), "s": (False, 25), "t": (False, 25)}


def made_up(**options):
    return training_set(**{"dims": {"proj": 6}, "names": NAMES, "apart": 1.5} | options)


def shares(*counts):
    weights = np.array(counts) / (np.array(counts) + 5)
    return np.log(weights / weights.sum())


def means_of(rows, prior):
    x = rows.vectors["proj"].astype(np.float64)
    means = {name: x[rows.names == name].mean(axis=0) for name in NAMES}
    found = {}
    for name, (fake, n) in NAMES.items():
        label = np.mean([means[other] for other, (is_fake, _) in NAMES.items() if is_fake == fake], axis=0)
        found[name] = (n * means[name] + prior * label) / (n + prior)
    return x, found


def expected(log_p):
    fake = logsumexp(np.stack([log_p["a"], log_p["b"]]) + shares(30, 12)[:, None], axis=0)
    real = logsumexp(np.stack([log_p["s"], log_p["t"]]) + shares(25, 25)[:, None], axis=0)
    return fake - real


def test_vmf_is_the_ratio_of_mixtures_by_scipys_densities():
    rows = made_up()
    head = PrototypeHead(family="vmf", concentration=20.0, prior=3.0).fit(rows)
    x, means = means_of(rows, prior=3.0)
    log_p = {name: vonmises_fisher(unit(mean), 20.0).logpdf(unit(x)) for name, mean in means.items()}
    assert head.decision_function(encoded(rows)) == pytest.approx(expected(log_p), abs=1e-4)


def test_gaussian_is_the_ratio_of_mixtures_by_scipys_densities():
    rows = made_up()
    head = PrototypeHead(shrinkage=0.3, prior=0.0).fit(rows)
    x, means = means_of(rows, prior=0.0)
    scatter = 0
    for name, (_, n) in NAMES.items():
        residuals = x[rows.names == name] - means[name]
        scatter = scatter + residuals.T @ residuals * n / (n - 1)
    covariance = scatter / len(x)
    covariance = 0.7 * covariance + 0.3 * np.trace(covariance) / 6 * np.eye(6)
    log_p = {name: multivariate_normal(mean, covariance).logpdf(x) for name, mean in means.items()}
    assert head.decision_function(encoded(rows)) == pytest.approx(expected(log_p), abs=1e-3)


@pytest.mark.parametrize("kappa", [15.0, 60.0])
def test_the_concentration_is_found(kappa):
    """Whatever the number of images a name: a biased estimate would grow where there are few."""
    rng, d = np.random.default_rng(1), 32
    for n in (3, 40):
        names = {f"g{i}": (True, n) for i in range(12)} | {f"s{i}": (False, n) for i in range(12)}
        rows = training_set(dims={"proj": d}, names=names)
        x = np.concatenate(
            [vonmises_fisher(unit(rng.normal(size=d)), kappa).rvs(n, random_state=rng) for _ in names]
        )
        head = PrototypeHead(family="vmf", prior=0.0).fit(
            replace(rows, vectors={"proj": x.astype(np.float32)})
        )
        assert np.linalg.norm(head.state()["directions"], axis=1) == pytest.approx(kappa, rel=0.2)


@pytest.mark.parametrize("family", ["vmf", "gaussian"])
def test_the_more_images_of_a_generator_the_better_it_is_found(family):
    """Asked about images of it that it has not seen."""
    rows = training_set(dims={"proj": 16}, names=NAMES | {"new": (True, 150)}, apart=1.5)
    new = np.flatnonzero(rows.names == "new")
    found = []
    for n in (1, 5, 50):
        kept = np.setdiff1d(np.arange(len(rows)), new[n:])
        names, shares = PrototypeHead(family=family).fit(rows.take(kept)).attribution(encoded(rows))
        assert names == ["a", "b", "new"]
        found.append(shares[new[50:], 2].mean())
    assert found[0] < 0.9 < found[2] and found[0] < found[1] < found[2]


@pytest.mark.parametrize("family", ["vmf", "gaussian"])
def test_a_single_image_each_is_enough(family):
    names = {f"g{i}": (True, 1) for i in range(8)} | {f"s{i}": (False, 1) for i in range(8)}
    rows = training_set(dims={"proj": 16}, names=names, apart=3.0)
    scores = PrototypeHead(family=family).fit(rows).decision_function(encoded(rows))
    assert scores[rows.fake].min() > scores[~rows.fake].max()


@pytest.mark.parametrize("family", ["vmf", "gaussian"])
def test_attribution_shares_add_up_and_find_the_generator(family):
    rows = made_up(dims={"proj": 24}, apart=2.0)
    names, found = PrototypeHead(family=family).fit(rows).attribution(encoded(rows))
    assert names == ["a", "b"] and found.shape == (len(rows), 2)
    assert found.sum(axis=1) == pytest.approx(1)
    right = np.array(names)[found.argmax(axis=1)] == rows.names
    assert right[rows.fake].mean() > 0.9


def test_a_generator_and_a_source_of_one_name_stay_apart():
    names = {"a": (True, 20), "s": (False, 20)}
    rows = made_up(names=names, dims={"proj": 24}, apart=2.0)
    same = replace(rows, names=np.full(len(rows), "x"))
    one, other = (PrototypeHead().fit(r).decision_function(encoded(rows)) for r in (rows, same))
    assert np.array_equal(one, other)


def test_views_of_one_image_are_no_further_images():
    """Forty views of the first image of b weigh as much in the prior as that image alone."""
    rows = made_up()
    first = int(np.flatnonzero(rows.names == "b")[0])
    one = rows.take(np.r_[np.flatnonzero(rows.names != "b"), first])
    many = rows.take(np.r_[np.flatnonzero(rows.names != "b"), np.full(40, first)])
    heads = [PrototypeHead(family="vmf", concentration=10.0).fit(r) for r in (one, many)]
    assert heads[0].state()["directions"] == pytest.approx(heads[1].state()["directions"], abs=1e-4)
    assert heads[0].state()["offsets"] == pytest.approx(heads[1].state()["offsets"])


def test_images_without_spread_are_refused_by_the_gaussian():
    rows = made_up(names={"a": (True, 3), "s": (False, 3)})
    flat = np.where(rows.fake[:, None], np.eye(6)[0], np.eye(6)[1]).astype(np.float32)
    rows = replace(rows, vectors={"proj": flat}, norms={"proj": np.ones(6, np.float32)})
    with pytest.raises(UsageError, match="spread"):
        PrototypeHead().fit(rows)
    scores = PrototypeHead(family="vmf").fit(rows).decision_function(encoded(rows))
    assert np.isfinite(scores).all() and (np.sign(scores) == np.where(rows.fake, 1, -1)).all()


def test_an_unknown_family_and_a_missing_layer():
    with pytest.raises(UsageError, match="cauchy"):
        PrototypeHead(family="cauchy").fit(made_up())
    with pytest.raises(UsageError, match="pre"):
        PrototypeHead(layer="pre").fit(made_up())


def test_foreign_arrays_are_refused():
    head = PrototypeHead().fit(made_up())
    state = head.state()
    for bad in (
        {"offsets": np.zeros(3)},
        {"fake": np.ones_like(state["fake"])},
        {"directions": np.full_like(state["directions"], np.nan)},
    ):
        with pytest.raises(ValueError, match="prototype"):
            head.restore(state | bad)
