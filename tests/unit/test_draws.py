"""Intervals over images, photographs set aside and draws of references: as wide as chance makes them."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.intervals import (
    Redrawn,
    Scored,
    averaged,
    interval,
    over_draws,
    ranked,
    recall_change,
    right_at_zero,
    thresholded,
)
from retrieval_detect.evaluate.metrics import accuracy, auroc
from retrieval_detect.evaluate.rows import averaged_over, stated
from retrieval_detect.evaluate.states import threshold_at
from tests.metrics import at_threshold

NORMAL = NormalDist()
FPR = 0.05


def scored(scores, *, fake, name="", groups=None):
    n = len(scores)
    own = np.arange(n) if groups is None else groups
    return Scored(np.asarray(scores, float), np.full(n, fake), np.asarray(own), np.full(n, name or str(fake)))


def fakes(scores, **more):
    return scored(scores, fake=True, **more)


def photographs(scores, **more):
    return scored(scores, fake=False, **more)


def both(one, other):
    groups = [np.array([f"{prefix}{g}" for g in own.groups]) for prefix, own in (("a", one), ("b", other))]
    parts = [np.concatenate([getattr(own, k) for own in (one, other)]) for k in ("scores", "fake", "names")]
    return Scored(parts[0], parts[1], np.concatenate(groups), parts[2])


def constant(*values, resamples=1000):
    return [Redrawn(value, np.full(resamples, value)) for value in values]


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize("n", [20, 37, 100])
def test_the_value_is_recall_at_the_threshold_that_is_defined(n):
    rng = np.random.default_rng(n)
    asked, calm = rng.normal(1, 1, 50).round(1), rng.normal(-1, 1, n).round(1)
    expected = (asked > threshold_at(calm, FPR)).mean()
    assert thresholded([fakes(asked)], [photographs(calm)], fpr=FPR, resamples=2).value == expected


def test_two_fakes_of_which_one_is_found():
    """The threshold is 1 whatever is redrawn; of two exponentials, the share of one is uniform."""
    found = thresholded([fakes([0, 2])], [photographs(np.ones(20))], fpr=FPR, resamples=4000)
    assert found.value == 0.5
    assert found.low == pytest.approx(0.025, abs=0.01) and found.high == pytest.approx(0.975, abs=0.01)
    assert np.mean(found.drawn) == pytest.approx(0.5, abs=0.02)


def test_the_threshold_is_set_anew_in_every_resample():
    """One photograph of 20 lies above the fakes: with over 1/20 of all weight, a chance of 0.95 ** 19."""
    calm = photographs(np.r_[1.0, np.zeros(19)])
    found = thresholded([fakes([0.5] * 10)], [calm], fpr=FPR, resamples=4000)
    assert found.value == 1 and set(found.drawn.round(9).tolist()) == {0.0, 1.0}
    assert np.mean(found.drawn == 0) == pytest.approx(0.95**19, abs=0.03)


def test_draws_spread_as_another_draw_would():
    """0, 0 and 1: the standard error of their mean is 1/3."""
    found = over_draws(constant(0.0, 0.0, 1.0, resamples=9000))
    assert found.value == pytest.approx(1 / 3) and set(found.drawn.tolist()) == {0.0, 0.5, 1.0}
    assert np.std(found.drawn) == pytest.approx(1 / 3, abs=0.01)


def test_draws_may_differ_in_what_is_set_aside():
    asked = [fakes([1.0, 2.0])] * 2
    found = thresholded(
        asked, [photographs(np.zeros(20)), photographs(np.full(30, 3.0))], fpr=FPR, resamples=200
    )
    assert found.value == 0.5 and set(found.drawn.tolist()) == {0.0, 1.0}


def test_one_draw_leaves_the_chance_of_images():
    one = thresholded([fakes(np.arange(9))], [photographs(np.full(20, 3.5))], fpr=FPR, resamples=500)
    more = thresholded([fakes(np.arange(9))] * 4, [photographs(np.full(20, 3.5))] * 4, fpr=FPR, resamples=500)
    assert one.value == pytest.approx(5 / 9) and one.low < 5 / 9 < one.high
    np.testing.assert_allclose(more.drawn, one.drawn)  # draws that agree add nothing


# ---------------------------------------------------------------- how often the truth is inside


def world(seed, *, shift=0.0, draws=3, spread=0.2):
    """40 fakes and 60 photographs; every draw of references moves the fakes' scores."""
    rng = np.random.default_rng(seed)
    found, calm = rng.normal(2, 1, 40), rng.normal(0, 1, 60)
    moves = spread * rng.normal(size=draws)
    noise = spread * rng.normal(size=draws)
    before = [fakes(found + move) for move in moves], [photographs(calm)] * draws
    after = [fakes(found + shift + move) for move in moves + noise], [photographs(calm)] * draws
    return before, after


def truth(level, *spreads):
    """Chance that a fake exceeds what 5 % of all photographs exceed, over draws."""
    return NORMAL.cdf((level - NORMAL.inv_cdf(1 - FPR)) / float(np.hypot.reduce([1.0, *spreads])))


def test_recall_is_inside_its_interval_as_often_as_is_said():
    recall, fixed = [], []
    for seed in range(300):
        (asked, aside), _ = world(seed)
        found = thresholded(asked, aside, fpr=FPR, resamples=150, seed=seed)
        recall.append(found.low <= truth(2, 0.2) <= found.high)
        if seed < 60:  # what is found if the threshold is taken for known
            metric = at_threshold(threshold_at(aside[0].scores, FPR), "fake")
            naive = interval(metric, both(asked[0], aside[0]), resamples=100, seed=seed)
            fixed.append(naive.low <= truth(2, 0.2) <= naive.high)
    assert 0.90 <= np.mean(recall) <= 0.99
    assert np.mean(fixed) < 0.80


def test_a_change_of_recall_is_inside_its_interval_as_often_as_is_said():
    expected = truth(2.4, 0.2, 0.2) - truth(2, 0.2)
    inside, widths = [], []
    for seed in range(300):
        before, after = world(seed, shift=0.4)
        found = recall_change(before, after, fpr=FPR, resamples=100, seed=seed)
        inside.append(found.low <= expected <= found.high)
        if seed < 20:
            alone = thresholded(*after, fpr=FPR, resamples=100, seed=seed)
            widths.append((found.high - found.low) / (alone.high - alone.low))
    assert 0.90 <= np.mean(inside) <= 0.99
    assert np.mean(widths) < 0.8  # paired


def test_auroc_is_inside_its_interval_as_often_as_is_said():
    expected = NORMAL.cdf(2 / np.sqrt(2 + 0.2**2))
    inside = []
    for seed in range(300):
        (asked, aside), _ = world(seed)
        pairs = zip(asked, aside, strict=True)
        found = over_draws([ranked(both(*pair), resamples=100, seed=seed) for pair in pairs], seed=seed)
        inside.append(found.low <= expected <= found.high)
    assert 0.90 <= np.mean(inside) <= 0.99


# ---------------------------------------------------------------- pairs and means


def test_nothing_changes_where_nothing_changes():
    before, _ = world(0)
    found = recall_change(before, before, fpr=FPR, resamples=100)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    copied = tuple([own.take(np.arange(len(own.fake))[::-1]) for own in part] for part in before)
    found = recall_change(before, copied, fpr=FPR, resamples=100)  # nor by the order of images
    assert abs(found.value) < 1e-12 and np.abs(found.drawn).max() < 1e-12


def test_a_change_is_measured_from_the_one_draw_there_was_before():
    before, after = world(1, shift=5.0)
    found = recall_change((before[0][:1], before[1][:1]), after, fpr=FPR, resamples=200)
    first = thresholded(before[0][:1], before[1][:1], fpr=FPR, resamples=200)
    assert found.value == pytest.approx(1 - first.value) and 0 < found.low < found.high


def test_shared_photographs_move_together_and_others_do_not():
    rng = np.random.default_rng(0)
    calm = rng.normal(0, 1, 60)

    def widths(*, shared):
        columns = []
        for i in range(6):
            groups = None if shared else [f"{i}-{n}" for n in range(60)]
            own = fakes([1.65] * 30, groups=[f"{i}-{n}" for n in range(30)])
            columns.append(thresholded([own], [photographs(calm, groups=groups)], fpr=FPR, resamples=400))
        return averaged(columns), columns[0]

    (joint, one), (apart, _) = widths(shared=True), widths(shared=False)
    assert joint.value == one.value and np.std(joint.drawn) == pytest.approx(np.std(one.drawn))
    assert np.std(apart.drawn) == pytest.approx(np.std(joint.drawn) / np.sqrt(6), rel=0.3)


def test_a_group_is_one_observation_and_so_is_one_of_ten_sources():
    scores = np.repeat(np.random.default_rng(0).normal(0, 1, 12), 10)
    calm = photographs(np.full(20, 0.1))

    def width(**more):
        found = thresholded([fakes(scores, **more)], [calm], fpr=FPR, resamples=400)
        return found.high - found.low

    whole = width(groups=np.repeat(np.arange(12), 10))
    assert width() < 0.5 * whole
    named = Scored(scores, np.ones(120, bool), np.arange(120), np.repeat([f"g{i}" for i in range(12)], 10))
    by_source = thresholded([named], [calm], fpr=FPR, resamples=400)
    assert by_source.high - by_source.low == pytest.approx(whole, rel=0.2)


# ---------------------------------------------------------------- other numbers


def test_ranks_and_shares_are_those_of_metrics():
    rng = np.random.default_rng(3)
    own = both(fakes(rng.normal(1, 1, 70).round(1)), photographs(rng.normal(-1, 1, 90).round(1)))
    found = ranked(own, resamples=800)
    assert found.value == pytest.approx(auroc(own.scores, own.fake), abs=1e-12)
    poisson = interval(auroc, own, resamples=800)
    assert found.high - found.low == pytest.approx(poisson.high - poisson.low, rel=0.2)
    share = right_at_zero(own, resamples=400)
    assert share.value == pytest.approx(accuracy(own.scores, own.fake, threshold=0, kind="fixed").all)
    assert share.low < share.value < share.high


def test_many_images_are_measured_in_parts_alike(monkeypatch):
    own = both(fakes(np.arange(30)), photographs(np.arange(-20, 10)))
    whole = ranked(own, resamples=50)
    monkeypatch.setattr("retrieval_detect.evaluate.intervals._AT_ONCE", 7 * 60)
    np.testing.assert_array_equal(ranked(own, resamples=50).drawn, whole.drawn)


def test_plain_numbers_are_the_same_numbers():
    one = Redrawn(0.5, np.array([0.25, 0.75]))
    again = Redrawn.of(one.plain())
    assert again.value == 0.5 and again.drawn.tolist() == [0.25, 0.75]


# ---------------------------------------------------------------- rows


def told(auroc_value, recall):
    numbers = {"auroc": [auroc_value, auroc_value, auroc_value], "recall": recall}
    row = {"auroc": auroc_value, "recall": recall and recall[0]}
    return {"row": row, "redrawn": numbers, "sources": {"real": {"camera": auroc_value}}}


def test_a_row_states_its_intervals_beside_its_numbers():
    found = stated([told(0.8, [0.5, 0.25, 0.75]), told(0.9, [0.5, 0.25, 0.75])])
    assert list(found["row"]) == [
        *("auroc", "auroc_low", "auroc_high", "auroc_range"),
        *("recall", "recall_low", "recall_high", "recall_range"),
    ]
    row = found["row"]
    assert row["auroc"] == 0.85 and row["auroc_range"] == [0.8, 0.9]
    assert 0.8 <= row["auroc_low"] <= row["auroc_high"] <= 0.9
    assert 0.25 < row["recall_low"] < 0.3 < 0.7 < row["recall_high"] < 0.75
    assert found["sources"] == {"real": {"camera": 0.85}}


def test_a_number_that_a_draw_lacks_has_no_interval():
    row = stated([told(0.8, [0.5, 0.25]), told(0.9, None)])["row"]
    assert row["recall"] == 0.5 and row["recall_low"] is row["recall_high"] is None
    assert averaged_over([[0.5, 0.25], None]) == [0.5, 0.25] and averaged_over([None]) is None


# ---------------------------------------------------------------- trouble


def test_without_fakes_or_photographs_enough_there_is_no_recall():
    enough, few = photographs(np.zeros(20)), photographs(np.zeros(19))
    assert thresholded([fakes([])], [enough], fpr=FPR) is None
    assert thresholded([fakes([1.0])], [few], fpr=FPR) is None
    assert thresholded([fakes([1.0])] * 2, [enough, few], fpr=FPR) is None
    assert thresholded([], [], fpr=FPR) is None
    pair = [fakes([1.0, 2.0])], [enough]
    assert recall_change(pair, ([fakes([])], [enough]), fpr=FPR) is None
    assert recall_change(pair, pair, fpr=FPR, resamples=9).value == 0


def test_one_unit_has_a_value_and_no_interval():
    alone = thresholded([fakes([1.0, 2.0], groups=[0, 0])], [photographs(np.zeros(20))], fpr=FPR)
    assert alone.value == 1 and np.isnan([alone.low, alone.high]).all()
    wide = thresholded([fakes([1.0, 2.0])], [photographs(np.zeros(20))], fpr=FPR)
    assert np.isnan((wide - alone).low) and len(averaged([wide, alone]).drawn) == 0
    assert Redrawn.of(alone.plain()).value == 1 and np.isnan(over_draws([alone, alone]).high)


def test_every_photograph_may_be_flagged():
    found = thresholded([fakes([-5.0, 5.0])], [photographs(np.zeros(20))], fpr=1.0, resamples=10)
    assert found.value == found.low == found.high == 1


def test_every_draw_has_its_photographs():
    with pytest.raises(UsageError, match="2 draws are asked about, 1 have"):
        thresholded([fakes([1.0])] * 2, [photographs(np.zeros(20))], fpr=FPR)
