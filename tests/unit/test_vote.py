"""Votes by hand: each rule on numbers small enough to check."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.errors import EmptyBank, UsageError
from retrieval_detect.scoring.attribution import attribute
from retrieval_detect.scoring.neighbours import same_image
from retrieval_detect.scoring.vote import densities, few, merged_counts
from retrieval_detect.scoring.weights import reference_weights
from retrieval_detect.types import METHODS, NEAR_COSINE, NEAR_HAMMING
from tests.votes import BankNeighbours, nearest_images, score_of, vote_on


def bank(similarities, *, first=0, content=None, weights=None, names=None, n_bank=None):
    n = len(similarities)
    return BankNeighbours(
        similarities=np.array(similarities, np.float32),
        content=np.arange(n) if content is None else np.array(content, np.uint64),
        log_weights=np.log(np.full(n, 1 / max(n, 1)) if weights is None else np.array(weights)),
        names=np.zeros(n, np.int64) if names is None else np.array(names, np.int64),
        row_ids=np.arange(first, first + n, dtype=np.int64),
        n_bank=n if n_bank is None else n_bank,
    )


FAKE = bank([0.75, 0.5, 0.25], n_bank=10)
REAL = bank([0.5, 0.5, 0.5, 0.125], first=100, n_bank=40)


def k_of(*banks, **options):
    return vote_on(*banks, **options).k.tolist()


def too_few(*banks, method, k):
    near = dict(zip(("fake", "real"), (nearest_images(bank, k) for bank in banks), strict=True))
    return few(near, 0, method=method, k=k)


def counted(*banks, k):
    return [int(n[0]) for n in merged_counts(*(nearest_images(bank, k) for bank in banks), k)]


def test_nearest():
    assert score_of(FAKE, REAL, method="nearest") == 0.25
    assert k_of(FAKE, REAL, method="nearest") == [1] and too_few(FAKE, REAL, method="nearest", k=1) == ()


def test_mean():
    assert score_of(FAKE, REAL, method="mean", k=2) == 0.125
    assert k_of(FAKE, REAL, method="mean", k=2) == [2] and too_few(FAKE, REAL, method="mean", k=2) == ()


def test_mean_counts_as_many_in_either_bank():
    assert score_of(FAKE, REAL, method="mean", k=4) == 0.0 and k_of(FAKE, REAL, method="mean", k=4) == [3]
    assert too_few(FAKE, REAL, method="mean", k=4) == ("k is 4, but only 3 images of the fake bank can vote",)


def test_majority_corrects_for_the_size_of_the_banks():
    # .75 is fake; among the four at .5 the lower row ids win: the fake's 1, then the real's 100.
    assert counted(FAKE, REAL, k=3) == [2, 1] and k_of(FAKE, REAL, method="majority", k=3) == [3]
    share = (2 / 10) / (2 / 10 + 1 / 40) - 1 / 2
    tie = 1e-6 * np.tanh(0.0)
    assert score_of(FAKE, REAL, method="majority", k=3) == pytest.approx(share + tie, abs=1e-15)


def test_majority_goes_by_the_mean_when_both_are_even():
    fake, real = bank([0.75, 0.25]), bank([0.5, 0.25], first=100)
    assert counted(fake, real, k=2) == [1, 1]
    assert score_of(fake, real, method="majority", k=2) == pytest.approx(1e-6 * np.tanh(0.5 - 0.375))


def test_perfect_balance_is_no_fake():
    same = {"content": [0, 1], "weights": [0.5, 0.5]}
    fake, real = bank([0.75, 0.25], **same), bank([0.75, 0.25], first=100, **same)
    for method in METHODS:
        assert not score_of(fake, real, method=method, k=1 if method == "nearest" else 2) > 0


def test_density():
    fake = bank([0.5, 0.25, 0.125], weights=[0.5, 0.25, 0.25])
    real = bank([0.25, 0.125], first=100, weights=[0.5, 0.125], n_bank=9)
    # What is found of the real bank weighs 5/8: so much is counted of the fakes, half of the second.
    d_fake, d_real = (float(d[0]) for d in densities(*(nearest_images(side, 3) for side in (fake, real))))
    assert d_fake == pytest.approx(np.log(0.5 * np.exp(0.5 / 0.2) + 0.125 * np.exp(0.25 / 0.2)), abs=1e-12)
    assert d_real == pytest.approx(np.log(0.5 * np.exp(0.25 / 0.2) + 0.125 * np.exp(0.125 / 0.2)), abs=1e-12)
    assert score_of(fake, real) == d_fake - d_real
    assert k_of(fake, real) == [3] and too_few(fake, real, method="density", k=200) == ()


@pytest.mark.parametrize("weights", [(0.5, 0.25), (0.01, 1.0)])
def test_the_density_of_one_neighbour_compares_the_nearest_whatever_they_weigh(weights):
    fake, real = bank([0.4, 0.0], weights=[weights[0]] * 2), bank([0.2], first=100, weights=[weights[1]])
    assert score_of(fake, real, k=1) == pytest.approx((0.4 - 0.2) / 0.2, abs=1e-6)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def side_of(queries, n, *, names, rng, first=0):
    """The 200 nearest of n directions at random, of names of uneven size, which weigh alike."""
    similarities = queries @ unit(rng.normal(size=(n, queries.shape[1]))).T
    near = np.argsort(-similarities, axis=1)[:, :200]
    named = np.sort((names * rng.random(n) ** 2).astype(int)).astype(str)
    weights = reference_weights(named, np.arange(n))
    nearest = np.take_along_axis(similarities, near, 1).astype(np.float32)
    return BankNeighbours(nearest, near, weights[near], np.zeros_like(near), near + first, n)


@pytest.mark.parametrize(
    ("n_fake", "n_real"), [(200, 1200), (50, 1200), (1200, 200), (150, 300), (3000, 400)]
)
def test_banks_that_nothing_tells_apart_are_even_whatever_their_sizes(n_fake, n_real):
    rng = np.random.default_rng(0)
    queries = unit(rng.normal(size=(300, 12)))
    fake = side_of(queries, n_fake, names=3, rng=rng)
    real = side_of(queries, n_real, names=5, rng=rng, first=10_000)
    assert 0.35 < np.mean(vote_on(fake, real).scores > 0) < 0.65


def test_density_stops_at_k():
    far = bank([0.75, 0.5, 0.25, 0.25, 0.25], weights=[0.2] * 5)
    near = bank([0.75, 0.5], weights=[0.2] * 2)
    real = bank([0.5], first=100)
    assert score_of(far, real, k=2) == score_of(near, real, k=2) != score_of(far, real, k=3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("empty", [bank([]), bank([-np.inf, -np.inf])], ids=["no rows", "none may vote"])
def test_an_empty_bank_is_named(method, empty):
    with pytest.raises(EmptyBank, match="real bank"):
        vote_on(FAKE, empty, method=method)
    with pytest.raises(EmptyBank, match="fake bank"):
        vote_on(empty, REAL, method=method)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"k": 0}, "k is 0"),
        ({"method": "nearest", "k": 3}, "counts one neighbour, not 3"),
        ({"temperature": 0.0}, "not positive"),
        ({"temperature": float("nan")}, "not positive"),
    ],
)
def test_options_that_mean_nothing(options, says):
    with pytest.raises(UsageError, match=says):
        vote_on(FAKE, REAL, **options)


def test_attribution():
    fake = bank([0.75, 0.5, 0.5, 0.25], names=[1, 0, 1, 2], weights=[0.1, 0.3, 0.1, 0.5])
    first, second, third = attribute(nearest_images(fake, 4), names=["a", "b", "c"], of=3)
    parts = np.exp(np.array([0.75, 0.5, 0.5, 0.25]) / 0.2) * [0.1, 0.3, 0.1, 0.5]
    assert [entry.generator for entry in (first, second, third)] == ["b", "a", "c"]
    assert first.share == pytest.approx((parts[0] + parts[2]) / parts.sum())
    assert [entry.of_nearest_fakes for entry in (first, second, third)] == [2, 1, 0]
    assert [entry.generator for entry in attribute(nearest_images(fake, 2), names=["a", "b", "c"])] == [
        "b",
        "a",
    ]


def test_the_querys_own_image_needs_its_bytes_or_both_witnesses():
    cosine, bits = np.float32(NEAR_COSINE), NEAR_HAMMING
    similarities = np.array([0.1, cosine, cosine, np.nextafter(cosine, np.float32(0)), 0.99], np.float32)
    hamming = np.array([64, bits, bits + 1, 0, 30])
    own = same_image(similarities, hamming, same_content=np.array([True, False, False, False, False]))
    assert own.tolist() == [True, True, False, False, False]
