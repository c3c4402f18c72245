"""Paired changes: intervals that have a width and stay within bounds, a test that is never too sure."""

from __future__ import annotations

from itertools import product
from math import comb

import pytest

from retrieval_detect.scoring.paired import rise_interval, rise_p

N = 24
RESULTS = [(b, c) for b, c in product(range(N + 1), repeat=2) if b + c <= N]


def test_the_published_interval():
    """Newcombe 1998, method 10: airways before and after a transplantation (1, 1, 7, 12 children of 21)."""
    low, high = rise_interval(gained=1, lost=7, before=8, n=21)
    assert (round(low, 3), round(high, 3)) == (-0.507, -0.026)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_an_interval_has_a_width_and_stays_within_bounds(n):
    for both, gained, lost in product(range(n + 1), repeat=3):
        if both + gained + lost > n:
            continue
        low, high = rise_interval(gained, lost, both + lost, n)
        assert -1 <= low <= (gained - lost) / n <= high <= 1 and high - low > 0.01
        back = rise_interval(lost, gained, both + gained, n)
        assert back == pytest.approx((-high, -low))  # before and after change places


def test_without_a_budget_it_is_the_exact_test_of_mcnemar():
    for b, c in ((5, 0), (9, 2), (40, 25)):
        tail = sum(comb(b + c, k) for k in range(b, b + c + 1)) / 2 ** (b + c)
        assert rise_p(b, c, 1000) == pytest.approx(tail)
    assert rise_p(3, 3, 1000) == rise_p(0, 0, 5, allowed=0.01) == 1


@pytest.mark.parametrize("allowed", [0.0, 0.01, 0.05, 0.2])
def test_chance_alone_is_seldom_called_a_rise(allowed):
    """Exactly, over all results: wherever the true rise is what is allowed, however many change."""
    called = [(b, c) for b, c in RESULTS if rise_p(b, c, N, allowed=allowed) <= 0.05]
    assert called
    for falling in (0.0, 0.005, 0.02, 0.1, 0.25, 0.39):
        rising = falling + allowed
        chance = sum(
            comb(N, b) * comb(N - b, c) * rising**b * falling**c * (1 - rising - falling) ** (N - b - c)
            for b, c in called
        )
        assert chance <= 0.05


def test_a_few_images_prove_nothing_and_many_do():
    assert rise_p(1, 0, 1, allowed=0.01) > 0.5
    assert rise_p(3, 0, 144, allowed=0.01) > 0.05  # + 2.1 points
    assert rise_p(40, 10, 1000, allowed=0.01) < 0.05  # + 3 points
    assert rise_p(150, 10, 1000, allowed=0.2) == 1
