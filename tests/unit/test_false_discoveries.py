"""A batch judged by its share of false discoveries: what is promised holds of those that are called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect.ask.detector import at_fdr
from retrieval_detect.scoring.conformal import at_least, at_most
from retrieval_detect.types import Failure
from tests.verdicts import CALIBRATED, VERDICT

Q, ROUNDS = 0.1, 120
PHOTOGRAPHS = 80


def batch(rng, *, fakes, strangers, misfits):
    """Verdicts of one draw: photographs first, then fakes, then what no bank is like, then what no fake is.

    p-values are conformal, from one calibration set each; the last two score higher than photographs.
    """
    real, fake, typical = (np.sort(rng.normal(mean, 1, 400)) for mean in (0, 4, 0))
    n = PHOTOGRAPHS + fakes + strangers + misfits
    scores = rng.normal(0, 1, n)
    scores[PHOTOGRAPHS:] += 4
    typicality = rng.normal(0, 1, n)
    typicality[PHOTOGRAPHS + fakes : n - misfits] -= 9
    p_real, p_fake = at_least(real, scores), at_most(fake, scores)
    p_fake[n - misfits :] = 0.01
    columns = (p_real, p_fake, at_most(typical, typicality))
    return [
        replace(CALIBRATED, p_values=dict(zip(("real", "fake", "typical"), map(float, p), strict=True)))
        for p in zip(*columns, strict=True)
    ]


@pytest.mark.parametrize(
    "others",
    [
        {"fakes": 0, "strangers": 0, "misfits": 0},
        {"fakes": 0, "strangers": 60, "misfits": 0},
        {"fakes": 0, "strangers": 0, "misfits": 60},
        {"fakes": 20, "strangers": 40, "misfits": 40},
    ],
    ids=["photographs", "strangers", "misfits", "all kinds"],
)
def test_of_those_called_few_are_photographs(others):
    rng, shares, found = np.random.default_rng(0), [], 0
    for _ in range(ROUNDS):
        judged = list(at_fdr(batch(rng, **others), Q))
        called = [i for i, verdict in enumerate(judged) if verdict.verdict == "fake-like"]
        shares.append(sum(i < PHOTOGRAPHS for i in called) / max(len(called), 1))
        found += sum(i >= PHOTOGRAPHS for i in called)
    assert np.mean(shares) <= Q + 2 * np.std(shares) / np.sqrt(ROUNDS)
    assert found >= 0.6 * others["fakes"] * ROUNDS


def test_what_has_no_p_values_is_passed_on():
    plain, failed = VERDICT, Failure("x.png", "not-an-image", "no")
    assert list(at_fdr([plain, failed], Q)) == [plain, failed]
