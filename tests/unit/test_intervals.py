"""Intervals: as wide as the number of independent things allows, and joint where columns share images."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.intervals import (
    Scored,
    difference,
    interval,
    intervals,
    ranges,
    units_of,
)
from retrieval_detect.evaluate.metrics import auroc
from tests.metrics import at_threshold

FLAGGED = at_threshold(0.0, "real")


def drawn(n=200, *, seed=0, groups=None, names=None, copies=1, prefix=""):
    """n photographs and n fakes; each ``copies`` times, then one group."""
    rng = np.random.default_rng(seed)
    fake = np.repeat(np.arange(2 * n) >= n, copies)
    scores = np.repeat(rng.normal(np.where(np.arange(2 * n) >= n, 1.0, -1.0)), copies)
    own = np.repeat(np.arange(2 * n), copies) if groups is None else groups
    named = np.where(fake, "sdxl", "camera") if names is None else names
    return Scored(scores, fake, np.array([f"{prefix}{group}" for group in own]), named.astype(str))


def width(found):
    return found.high - found.low


def test_the_interval_of_a_share_is_the_normal_one():
    scored = drawn(400)
    found = interval(FLAGGED, scored)
    expected = 2 * 1.96 * np.sqrt(found.value * (1 - found.value) / 400)
    assert found.low < found.value < found.high
    assert width(found) == pytest.approx(expected, rel=0.12)


def test_copies_make_no_interval_narrower():
    alone, copied = (interval(auroc, drawn(60, copies=copies), resamples=500) for copies in (1, 8))
    assert copied.value == alone.value
    assert width(copied) == pytest.approx(width(alone), rel=0.15)
    parted = drawn(60, copies=8)
    ungrouped = Scored(parted.scores, parted.fake, np.arange(len(parted.fake)), parted.names)
    assert width(interval(auroc, ungrouped, resamples=500)) < 0.5 * width(copied)


def test_it_covers_the_truth_about_as_often_as_it_says():
    """P(N(1,1) > N(-1,1)) = Φ(√2) = 0.9214."""
    covered = [
        found.low <= 0.92135 <= found.high
        for found in (interval(auroc, drawn(50, seed=seed), resamples=200, seed=seed) for seed in range(60))
    ]
    assert 0.83 <= np.mean(covered) <= 1.0


def test_from_ten_sources_on_sources_are_redrawn():
    """Every source has its own level: 300 photographs of 12 sources are 12 observations."""
    rng = np.random.default_rng(1)
    level = np.repeat(rng.normal(0, 1, 12), 25)
    fake = np.arange(600) >= 300
    scores = np.r_[level + rng.normal(0, 0.1, 300), rng.normal(3, 1, 300)]
    names = np.r_[np.repeat([f"camera-{i}" for i in range(12)], 25), np.full(300, "sdxl")]
    many = Scored(scores, fake, np.arange(600), names)
    one = Scored(scores, fake, np.arange(600), np.where(fake, "sdxl", "camera"))
    assert units_of(many) == {"real": "source", "fake": "group"} and units_of(one)["real"] == "group"
    by_source, by_group = interval(FLAGGED, many), interval(FLAGGED, one)
    assert by_source.by["real"] == "source" and width(by_source) > 3 * width(by_group)
    assert ranges(FLAGGED, many) == {}


def test_below_ten_sources_each_speaks_for_itself():
    scored = drawn(40)
    names = np.where(scored.fake, "sdxl", np.where(np.arange(80) % 2, "phone", "camera"))
    found = ranges(FLAGGED, Scored(scored.scores, scored.fake, scored.groups, names))
    assert found.keys() == {"real"}
    for name, value in found["real"].items():
        assert value == (scored.scores[names == name] <= 0).mean()


def test_nine_unnamed_are_no_source():
    names = np.r_[[f"camera-{i % 9}" for i in range(100)], np.full(100, "")]
    assert units_of(drawn(100, names=names)) == {"real": "group", "fake": "group"}


# ---------------------------------------------------------------- joint


def sharing(shared: bool):
    """Seven columns with the same photographs and scores, or with as many of their own."""
    columns = {}
    for i in range(7):
        real, fake = drawn(100, seed=0 if shared else i), drawn(100, seed=100 + i, prefix=f"{i}-")
        chosen = real.take(~real.fake)
        own = fake.take(fake.fake)
        groups = chosen.groups if shared else np.array([f"{i}-{group}" for group in chosen.groups])
        columns[str(i)] = Scored(
            np.r_[chosen.scores, own.scores],
            np.r_[chosen.fake, own.fake],
            np.r_[groups, own.groups],
            np.r_[chosen.names, own.names],
        )
    return columns


def test_shared_photographs_make_the_mean_as_uncertain_as_one_column():
    joint, apart = (intervals(FLAGGED, sharing(s), resamples=500, mean="mean")["mean"] for s in (True, False))
    assert width(joint) == pytest.approx(width(interval(FLAGGED, sharing(True)["0"])), rel=0.2)
    assert width(apart) == pytest.approx(width(joint) / np.sqrt(7), rel=0.25)


def test_a_detector_does_not_differ_from_itself():
    scored = drawn(50)
    same = difference(auroc, scored, scored, resamples=100)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_paired_differences_are_narrower_than_their_parts():
    old = drawn(100)
    new = Scored(old.scores + 0.3 * old.fake, old.fake, old.groups, old.names)
    found = difference(auroc, new, old, resamples=300)
    assert 0 < found.low < found.value < found.high
    assert width(found) < 0.5 * width(interval(auroc, old, resamples=300))


def test_the_order_of_images_and_columns_changes_nothing():
    columns = sharing(True)
    forward = intervals(auroc, columns, resamples=50)
    backward = intervals(auroc, dict(reversed(columns.items())), resamples=50)
    assert forward == {name: backward[name] for name in forward}
    shuffled = columns["0"].take(np.random.default_rng(0).permutation(200))
    assert interval(auroc, shuffled, resamples=50) == interval(auroc, columns["0"], resamples=50)


# ---------------------------------------------------------------- trouble


def test_the_share_of_one_label_has_an_interval():
    scored = drawn(200)
    fakes = scored.take(scored.fake)
    found = interval(lambda scores, _: float((scores > 0).mean()), fakes)
    assert width(found) == pytest.approx(2 * 1.96 * np.sqrt(found.value * (1 - found.value) / 200), rel=0.2)
    assert set(found.ends()) == {"low", "high", "by"}


def test_one_unit_has_no_interval():
    scored = drawn(20, groups=np.r_[np.zeros(20, int), np.arange(1, 21)])
    found = interval(auroc, scored, resamples=20)
    assert np.isnan([found.low, found.high]).all() and found.value == auroc(scored.scores, scored.fake)


def test_what_is_given_is_of_one_length():
    with pytest.raises(UsageError, match="one length"):
        Scored(np.zeros(3), np.zeros(3, bool), np.arange(2), np.array(["", "", ""]))
    with pytest.raises(UsageError, match="nothing to measure"):
        intervals(auroc, {})
