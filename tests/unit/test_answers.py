"""p-values → the four answers, their reasons and their reach: every case there is."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from retrieval_detect.scoring.answers import PValues, answer
from retrieval_detect.verdicts import Reason


@pytest.mark.parametrize(
    ("p", "known", "said"),
    [
        (PValues(0.01, 0.03, 0.5, 0.5), False, ("fake-like", "rare-among-photographs", "new sources")),
        (PValues(0.01, 0.30, 0.5, 0.5), True, ("fake-like", "rare-among-photographs", "known sources")),
        (
            PValues(0.01, 0.30, 0.5, 0.5),
            False,
            ("uncertain", "fake-like-if-known-source", "known sources"),
        ),
        (
            PValues(0.01, None, 0.5, 0.5),
            False,
            ("uncertain", "fake-like-if-known-source", "known sources"),
        ),
        (PValues(0.05, 0.05, 0.5, 0.5), False, ("fake-like", "rare-among-photographs", "new sources")),
        (PValues(0.50, 0.60, 0.01, 0.5), False, ("real-like", "fits-photographs", None)),
        (PValues(0.50, 0.60, 0.5, 0.5), False, ("uncertain", "fits-both", None)),
        (PValues(0.50, 0.01, 0.5, 0.5), False, ("uncertain", "fits-both", None)),
        (PValues(0.01, 0.30, 0.01, 0.5), True, ("unknown", "fits-neither", "known sources")),
        (PValues(0.01, 0.01, 0.5, 0.01), True, ("unknown", "untypical", None)),
    ],
)
def test_each_case(p, known, said):
    found = answer(p, known=known)
    assert (found.verdict, found.reason, found.reach) == said


def test_nobody_is_accused_by_a_promise_that_does_not_cover_them():
    """Over a grid of all cases: fake-like rests on the p-value of the photographs that were asked about."""
    grid = (0.01, 0.05, 0.06, 0.5)
    for real, new, fake, typical in product(grid, (None, *grid), grid, grid):
        for known in (False, True):
            found = answer(PValues(real, new, fake, typical), known=known)
            assert found.reason in get_args(Reason)
            if found.verdict == "fake-like":
                assert real <= 0.05 and fake > 0.05 and typical > 0.01
                assert known or (new is not None and new <= 0.05)
            if found.verdict == "real-like":
                assert real > 0.05 and found.reach is None


def test_where_nothing_is_comparable_no_score_counts():
    """Not even a rare one, unless the image is said to be of a known source; what is odd stays odd."""
    for p in (PValues(0.01, 0.01, 0.5, 0.5), PValues(0.5, 0.6, 0.01, 0.5), PValues(0.01, 0.3, 0.01, 0.5)):
        found = answer(p, covered=False)
        assert (found.verdict, found.reason, found.reach) == ("unknown", "nothing-comparable", None)
        assert answer(p, covered=False, known=True) == answer(p, known=True)
    assert answer(PValues(0.01, 0.01, 0.5, 0.01), covered=False).reason == "untypical"


def test_new_sources_are_held_against_a_rate_of_their_own():
    p = PValues(0.01, 0.15, 0.5, 0.5)
    assert answer(p, alpha=0.2).verdict == "fake-like"
    assert answer(p, alpha=0.2, alpha_new=0.1).reason == "fake-like-if-known-source"
