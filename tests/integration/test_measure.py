"""What an addition to a calibrated index changes: measured first, refused where photographs would suffer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from retrieval_detect.ask.methods import Methods, calibrations
from retrieval_detect.errors import UsageError
from retrieval_detect.report.additions import regression_lines
from retrieval_detect.scoring.conformal import at_least
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.writer import Addition
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.measure import Change, Regression, Reviewer, change, pooled
from retrieval_detect.types import Facts
from tests.factories import D, add, embedded, new_store

REAL, OLD, OWN = np.eye(D, dtype=np.float32)[:3] * 3
NEW = REAL + 1.5 * OWN
"""A generator whose images resemble photographs, and one another more."""


def cloud(prefix, n, centre):
    """Made-up images about a centre; each follows from its name."""
    return [
        embedded(f"{prefix}-{i}", vector=centre + embedded(f"{prefix}-{i}").vectors["proj"] * 0.6)
        for i in range(n)
    ]


def build(folder, n_photographs):
    store = new_store(folder)
    half = n_photographs // 2
    add(store, cloud("day", half, REAL), "real", "day")
    add(store, cloud("night", half, REAL), "real", "night")
    add(store, cloud("old", 200, OLD), "fake", "old")
    commit_calibration(store, fit_calibration(store.snapshot(), device="cpu"))
    return store


@pytest.fixture
def store(tmp_path):
    return build(tmp_path / "idx", 700)


def add_reviewed(store, images, name, review):
    with store.writer() as writer:
        staging = writer.staging()
        staging.add(images)
        rows = [NewRow(image.content_id, image.item.uri, Facts("fake", generator=name)) for image in images]
        return writer.add(Addition(rows), staging, review=partial(review, writer))


def test_a_new_generator_is_found_and_the_calibration_is_fitted_along(store):
    review = Reviewer(device="cpu", budget=100)
    manifest = add_reviewed(store, cloud("new", 30, NEW), "new", review)
    (newcomer,) = review.report.newcomers
    assert (newcomer.name, newcomer.n) == ("new", 30)
    assert newcomer.before <= 15 and newcomer.after >= 25
    assert review.report.photographs.n == sum(c.n for c in review.report.sources) > 100
    assert {c.name for c in review.report.generators} == {"old"}
    assert manifest.generation == store.snapshot().manifest.generation
    assert store.snapshot().stale() == []  # fitted anew in the same commit


def test_photographs_passed_off_as_fakes_are_refused(store):
    before = store.snapshot().manifest
    review = Reviewer(device="cpu")
    with pytest.raises(UsageError, match=r"photographs flagged rise by .* nothing was added") as error:
        add_reviewed(store, cloud("mislabelled", 60, REAL), "mislabelled", review)
    assert "--fpr-budget" in error.value.hint
    assert review.report.photographs.points > 1 and review.report.nearest.points > 1
    assert store.snapshot().manifest == before
    allowed = add_reviewed(
        store, cloud("mislabelled", 60, REAL), "mislabelled", Reviewer(device="cpu", budget=100)
    )
    assert allowed.generation == before.generation + 1


def test_an_old_calibration_is_of_other_scores_and_sets_no_threshold(store):
    today = fit_calibration(store.snapshot(), device="cpu")
    shifted = {name: scores + 100 for name, scores in today.conformal.real.items()}
    once = replace(today, scorer="once", conformal=replace(today.conformal, real=shifted))
    commit_calibration(store, once)
    review = Reviewer(device="cpu", budget=100)
    add_reviewed(store, cloud("new", 30, NEW), "new", review)
    assert review.report.newcomers[0].after >= 25 and review.report.photographs.before > 0
    assert [found.scorer for found in calibrations(store.snapshot())] == [today.scorer]


def test_a_few_new_images_are_judged_without_their_group(store):
    review = Reviewer(device="cpu", budget=100)
    add_reviewed(store, cloud("trio", 3, NEW), "trio", review)
    assert review.report.newcomers[0].n == 3


def test_too_few_photographs_to_tell_are_said_and_hold_nothing_up(tmp_path):
    """Indexes are calibrated as they are built: a small one must not refuse all that would make it larger."""
    store = build(tmp_path / "few", 200)
    review = Reviewer(device="cpu")
    add_reviewed(store, cloud("new", 5, NEW), "new", review)
    assert store.snapshot().manifest.generation == 5 and not review.report.tells
    told = "\n".join(regression_lines(review.report, budget=1.0))
    assert "too few to tell what it does to false alarms: nothing is refused" in told


def test_an_uncalibrated_index_is_not_held_up(tmp_path):
    store = new_store(tmp_path / "plain")
    add(store, cloud("day", 30, REAL), "real", "day")
    review = Reviewer(device="cpu")
    add_reviewed(store, cloud("new", 5, NEW), "new", review)
    assert review.report is None


def test_changes_by_hand():
    before, after = np.array([1, 0, 0, 0], bool), np.array([1, 1, 0, 0], bool)
    one = change("a", before, after)
    assert (one.n, one.before, one.after, one.points) == (4, 1, 2, 25.0)
    assert one.interval[0] < 0 < 25 < one.interval[1]
    back = change("b", after, before)
    assert (back.gained, back.lost, back.points) == (0, 1, -25.0)
    both = pooled("both", [one, back])
    assert both == Change("both", 8, before=3, gained=1, lost=1) and both.points == 0


def found(*sources, nearest=None, coming=None):
    """A report of photographs alone."""
    return Regression(0.05, (), (), sources, nearest or Change("nearest", 7, 0, 0, 0), coming)


def test_few_photographs_that_move_are_no_reason_to_refuse():
    assert list(found(Change("camera", 144, before=7, gained=3, lost=0)).refusals(1)) == []  # +2.1 points
    alone = Change("phone", 1, before=0, gained=1, lost=0)
    calm = Change("camera", 300, before=15, gained=2, lost=1)
    assert list(found(alone, calm, nearest=Change("nearest", 2, 0, 2, 0)).refusals(1)) == []


def test_a_large_rise_is_refused_though_one_photograph_alone_rises_more():
    alone = Change("phone", 1, before=0, gained=1, lost=0)
    bad = Change("camera", 300, before=15, gained=40, lost=2)
    calm = Change("drone", 3000, before=150, gained=5, lost=20)
    assert list(found(alone, bad, calm).refusals(1)) == [
        "photographs from camera flagged rise by 12.7 points"
    ]
    assert list(found(alone, bad, calm).refusals(15)) == []


def test_of_many_sources_one_rises_by_chance():
    lucky, calm = Change("lucky", 60, 2, 9, 0), [Change(f"camera-{i}", 60, 3, 0, 0) for i in range(19)]
    assert list(found(lucky).refusals(1))
    assert list(found(lucky, *calm).refusals(1)) == []


def test_what_will_be_flagged_from_then_on_is_refused_too():
    calm, bad = Change("camera", 300, 15, 1, 1), Change("camera", 300, 15, 40, 2)
    assert list(found(calm, coming=found(bad)).refusals(1)) == [
        "photographs flagged rise by 12.7 points at the threshold to come",
        "photographs from camera flagged rise by 12.7 points at the threshold to come",
    ]


def test_the_threshold_to_come_is_that_of_what_is_committed(store):
    review = Reviewer(device="cpu", budget=100)
    add_reviewed(store, cloud("new", 30, NEW), "new", review)
    (fitted,) = calibrations(store.snapshot())
    coming, photographs = review.report.coming, np.sort(np.concatenate([*fitted.conformal.real.values()]))
    for moved, scores in (
        *zip(coming.sources, fitted.conformal.real.values(), strict=True),
        *zip(coming.generators, [fitted.conformal.fake["old"]], strict=True),
    ):
        assert moved.after == np.count_nonzero(at_least(photographs, scores) <= 0.05)
    assert coming.photographs.after <= 0.05 * (coming.photographs.n + 1)
    assert coming.photographs.before == review.report.photographs.before
    assert coming.photographs.after != review.report.photographs.after  # the banks moved, and it with them
    assert coming.coming is None and review.report.to_json()["coming"]["nearest"]["n"] == coming.nearest.n


@pytest.mark.parametrize("outdated", [False, True], ids=["of today", "of an earlier vote"])
def test_each_row_is_asked_about_once_before_and_once_after(store, monkeypatch, outdated):
    if outdated:
        today = fit_calibration(store.snapshot(), device="cpu")
        commit_calibration(store, replace(today, scorer="once"))
    first, asked, ask = store.snapshot().manifest.next_row_id, Counter(), Methods.ask

    def counting(self, block, question):
        side = "after" if self.snapshot.manifest.next_row_id > first else "before"
        if not self.snapshot.dead.size:  # with no name left out
            asked.update((side, content_id) for content_id in block.content_ids)
        return ask(self, block, question)

    monkeypatch.setattr(Methods, "ask", counting)
    add_reviewed(store, cloud("new", 60, NEW), "new", Reviewer(device="cpu", budget=100))
    assert store.snapshot().n_rows([("fake", "calib")]) > 40  # some of the new are set aside
    held = sum(store.snapshot().n_rows([(label, "calib")]) for label in ("real", "fake"))
    assert len(asked) > 2 * held and set(asked.values()) == {1}
    monkeypatch.undo()
    fitted, again = calibrations(store.snapshot())[0], fit_calibration(store.snapshot(), device="cpu")
    assert fitted.to_json() == again.to_json()  # to the bit


def test_the_report_in_words(store):
    review = Reviewer(device="cpu", budget=100)
    add_reviewed(store, cloud("new", 30, NEW), "new", review)
    told = "\n".join(regression_lines(review.report, budget=1.0))
    assert "30 of 30" in told and "old generators" in told and "rise by 1.0 points more than chance" in told
    assert "recalibrated" in told and "  most like the new " in told
    assert max(map(len, told.splitlines())) <= 110
    low, high = review.report.worst_generator.interval
    (worst,) = (line for line in told.splitlines() if line.startswith("  old "))
    assert f"({low:+.1f}…{high:+.1f})" in worst
    assert all(-100 <= float(number) <= 100 for number in re.findall(r"[+-]\d+\.\d", told))


def test_a_calibration_that_lost_its_photographs_does_not_bar_the_way_back(store):
    photographs = store.snapshot().scan(["row_id"], label="real")["row_id"].to_pylist()
    with store.writer() as writer:
        writer.remove(photographs, reason="", detail={})
    review = Reviewer(device="cpu")
    add_reviewed(store, cloud("new", 5, NEW), "new", review)
    assert review.report is None
    assert [record.kind for record in store.snapshot().stale()] == ["calibration", "coverage"]
