"""False alarms of the whole way, projection fitted as in production, are as many as theory says."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import stats

from retrieval_detect.projections.inner import Trial, Vote
from retrieval_detect.projections.registry import fit_projection
from retrieval_detect.scoring.conformal import at_least
from retrieval_detect.scoring.weights import reference_weights
from tests.fitting import made_up
from tests.votes import BankNeighbours, vote_on

SPLITS, CALIB, ASKED, EACH = 200, 99, 200, 20
D = 8


def bank(rows, z, asked, *, fake):
    members = np.flatnonzero(rows.fake == fake)
    shape = (len(asked), len(members))
    weights = reference_weights(rows.names[members], members)
    columns = [np.broadcast_to(c, shape) for c in (members, weights, np.zeros_like(members), members)]
    return BankNeighbours((asked @ z[members].T).astype(np.float32), *columns, n_bank=len(members))


@cache
def draw(seed, *, leak=False):
    """p-values of photographs never seen, from one draw of references, calibration and test images.

    ``leak`` : the calibration images vote too.
    """
    world = made_up(
        seed=seed, d=D, generators=2, sources=1, each=2 * EACH + CALIB + ASKED, signal=1.0, content=0.5
    )
    rng = np.random.default_rng(seed)
    photographs = rng.permutation(np.flatnonzero(~world.fake))
    fakes = [np.flatnonzero(world.names == name)[:EACH] for name in ("g0", "g1")]
    references = np.concatenate([photographs[: 2 * EACH + leak * CALIB], *fakes])
    rows = world.take(references)
    # One source is enough for exchangeability; two names in the bank, for something to hold out.
    names = rows.names.copy()
    names[np.flatnonzero(~rows.fake)[:EACH]] = "s1"
    rows = type(rows)(**{f: getattr(rows, f) for f in rows.__slots__} | {"names": names})
    projection = fit_projection("whiten", rows, layers=("proj",))
    z = projection.apply(rows.vectors["proj"])
    trial = Trial.of(rows)
    inner = {t: trial.auc(z[trial.positions], vote=Vote(temperature=t)) for t in (0.05, 0.1, 0.2)}
    temperature = max(inner, key=inner.__getitem__)

    def scores(chosen):
        asked = projection.apply(world.vectors["proj"][chosen])
        sides = [bank(rows, z, asked, fake=label) for label in (True, False)]
        return vote_on(*sides, temperature=temperature).scores

    rest = photographs[2 * EACH :]
    return at_least(np.sort(scores(rest[:CALIB])), scores(rest[CALIB : CALIB + ASKED]))


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
def test_false_alarms_a_split_are_beta_binomial(alpha):
    r = int(np.floor(alpha * (CALIB + 1) + 1e-9))
    counts = np.array([(draw(seed) <= alpha + 1e-12).sum() for seed in range(SPLITS)])
    law = stats.betabinom(ASKED, r, CALIB + 1 - r)
    u = np.random.default_rng(0).random(SPLITS)
    pit = law.cdf(counts - 1) + u * law.pmf(counts)
    assert stats.kstest(pit, "uniform").pvalue > 1e-3
    standard_error = law.std() / ASKED / np.sqrt(SPLITS)
    assert abs(counts.mean() / ASKED - r / (CALIB + 1)) < 4 * standard_error


def test_calibration_images_in_the_banks_break_the_law():
    """The law can fail: images that vote on themselves look less fake than any that come later."""
    rates = [(draw(seed, leak=True) <= 0.05).mean() for seed in range(20)]
    assert np.mean(rates) > 0.1
