"""Every source left out in turn: what is asked is what an index without it would say."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect import Detector
from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.new_sources import MOST_ROWS
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.calibrate import fit_calibration
from retrieval_detect.teach.projections import fit_default
from retrieval_detect.verdicts import Question
from tests.calibrated import calibrate, detector, fakes, images, taught
from tests.factories import add, names, new_store
from tests.layered import add as add_layered
from tests.layered import image as layered_image
from tests.layered import images as layered_images
from tests.layered import layered


def shoes(n, *, since=0):
    """Photographs that look as the generators' images do: of a kind that no other source has."""
    return images("shoes", since + n, shift=2.5, along=3)[since:]


@pytest.fixture
def store(tmp_path):
    """Two ordinary sources and one whose photographs look like the fakes."""
    made = taught(tmp_path)
    add(made, shoes(60), "real", "shoes")
    return made


def test_a_source_unlike_the_others_is_seen_to_be_flagged(store):
    fitted, _ = calibrate(store)
    shares = fitted.shares_flagged(0.05)
    assert next(iter(shares)) == "shoes"
    known, left_out = shares["shoes"]
    assert left_out > 0.5 > known and fitted.new.sources["shoes"].taken_for in ("sdxl", "flux")
    for name in ("camera", "phone"):
        assert shares[name][1] < 0.2
    assert fitted.risk(0.05) == pytest.approx(np.mean([share for _, share in shares.values()]))
    assert not fitted.new.why and set(fitted.new.generators) == {"sdxl", "flux"}


def test_the_nearest_references_named_are_fakes(store):
    fitted, _ = calibrate(store)
    rows = store.snapshot().take(fitted.new.sources["shoes"].nearest, ["label"])
    assert rows and all(row["label"] == "fake" for row in rows)


def test_scores_are_those_of_an_index_without_the_source(tmp_path):
    """Banks, projection and weights: as if its photographs had never been added."""
    store = layered(tmp_path / "whole", each=140)
    fit_default(store, calibrate=False, device="cpu")
    kept = fit_calibration(store.snapshot(), device="cpu").new.sources["press"].scores
    # The same rows in the same splits, less those of the source.
    index = Index(tmp_path / "whole", store)
    source = store.snapshot().scan(["row_id", "source"]).to_pylist()
    index.remove([row["row_id"] for row in source if row["source"] == "press"], calibrate=False, device="cpu")
    judge = Detector(store.snapshot(), device="cpu")
    asked = [judge.judge(one).score for one in layered_images("press", 140)]
    assert len(kept) <= MOST_ROWS
    distance = np.abs(np.sort(asked)[None, :] - kept[:, None]).min(axis=1)
    assert distance.max() < 5e-3  # stored vectors are float16


def test_its_own_near_duplicates_elsewhere_do_not_vote(tmp_path):
    """A copy of a photograph under another source's name would make it known."""
    store = layered(tmp_path / "idx", each=60)
    before = fit_calibration(store.snapshot(), device="cpu").new.sources["press"].scores
    highest = max(layered_images("press", 60), key=lambda one: Detector(store.snapshot()).judge(one).score)
    copy = layered_image("copy", vectors=highest.vectors, phash=highest.phash)
    add_layered(store, [copy], "real", "phone")
    after = fit_calibration(store.snapshot(), device="cpu").new.sources["press"].scores
    assert np.abs(before - after).max() < 0.1


@pytest.mark.parametrize(
    ("photographs", "generators", "why"),
    [(("camera",), ("sdxl", "flux"), "one source alone"), (("camera", "phone"), ("sdxl",), "")],
)
def test_where_there_is_nothing_to_leave_out_it_says_so(tmp_path, photographs, generators, why):
    store = new_store(tmp_path / "idx")
    for name in photographs:
        add(store, images(name, 80), "real", name)
    for name in generators:
        add(store, fakes(name, 80), "fake", name)
    new = fit_calibration(store.snapshot()).new
    assert why in new.why and bool(new.sources) == (not why)
    assert len(new.generators) == (2 if len(generators) == 2 and not why else 0)
    assert new.likelihood is None


def test_a_source_of_one_photograph_counts_as_one(tmp_path):
    store = taught(tmp_path)
    add(store, images("single", 1), "real", "single")
    fitted, _ = calibrate(store)
    assert len(fitted.new.sources["single"].scores) == 1 and fitted.new.smallest == 1 / 4


def test_many_sources_are_left_out_in_few_folds(tmp_path):
    store = new_store(tmp_path / "idx")
    for i in range(14):
        add(store, images(f"s{i}", 26), "real", f"s{i}")
    add(store, fakes("sdxl", 60), "fake", "sdxl")
    told = []
    fitted = fit_calibration(store.snapshot(), progress=told.append)
    assert (
        len(fitted.new.sources) == 14 and sum(len(s.scores) for s in fitted.new.sources.values()) == 14 * 26
    )
    assert len(told) <= 2 + 10 + 1  # blocks of what is set aside, ten folds, no generator to leave out


def test_a_head_that_is_cheap_is_trained_without_it(tmp_path):
    from retrieval_detect.heads.linear import LinearHead
    from retrieval_detect.teach.heads import commit_head, training_set

    store = layered(tmp_path / "idx", each=60)
    head = LinearHead(layer="proj")
    commit_head(store, "lr", head.fit(training_set(store.snapshot(), head)), device="cpu")
    found = fit_calibration(store.snapshot(), Question("lr"), device="cpu").new
    assert set(found.sources) == {"camera", "phone", "press"} and not found.why


def test_a_question_says_whether_the_source_is_known(store):
    calibrate(store)
    judge = detector(store)
    fresh = shoes(20, since=200)
    new, known = ([judge.judge(one, photographs=which) for one in fresh] for which in ("new", "known"))
    for before, after in zip(new, known, strict=True):
        assert before.score == after.score and before.p_values == after.p_values
        if after.verdict == "fake-like":
            assert before.reason == "fake-like-if-known-source" and before.verdict == "uncertain"
    assert judge.judge(fresh[0], source="camera").photographs == "known"
    with pytest.raises(UsageError, match="photographs of known sources alone"):
        judge.judge(fresh[0], fdr=0.2)


def test_three_sources_promise_nothing_at_five_percent_and_something_at_a_quarter(store):
    calibrate(store)
    judge = detector(store)
    like_no_photograph = images("far", 6, shift=9.0, along=3)
    for one in like_no_photograph:
        usual, quarter = judge.judge(one), judge.judge(one, fpr=0.25)
        assert usual.p_values["new"] >= 0.25 and usual.verdict != "fake-like"
        assert quarter.p_values == usual.p_values


def test_small_stores_are_not_calibrated_and_say_how_many_are_missing(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, names("r", 30), "real", "camera")
    add(store, names("f", 30), "fake", "sdxl")
    assert fit_default(store, device="cpu") is None
    verdict = Detector(store.snapshot(), device="cpu").judge(names("q", 1)[0])
    assert (verdict.verdict, verdict.reason, verdict.reach) == ("unknown", "uncalibrated", None)


def test_a_new_index_is_calibrated_with_its_projection(tmp_path):
    store = layered(tmp_path / "idx", each=140)
    manifest = fit_default(store, device="cpu")
    kinds = {(f.kind, f.name) for f in manifest.fitted}
    assert kinds == {
        ("projection", "default"),
        ("calibration", "density--default"),
        ("coverage", "proj"),
    }
    verdict = Detector(store.snapshot(), device="cpu").judge(layered_image("press-999"))
    assert verdict.calibration["new"]["sources"] == 3 and verdict.calibration["provisional"] is not None


def test_removing_the_last_of_a_source_leaves_no_figure_of_it(store):
    calibrate(store)
    rows = store.snapshot().scan(["row_id", "source"]).to_pylist()
    Index(store.folder, store).remove([r["row_id"] for r in rows if r["source"] == "shoes"], device="cpu")
    found = detector(store).calibration(Question()).new
    assert set(found.sources) == {"camera", "phone"}


def test_a_threshold_of_ones_own_stays_and_its_rate_is_stated(store):
    calibrate(store)
    judge = detector(store)
    found = judge.calibration(Question())
    known = np.sort(np.concatenate(list(found.conformal.real.values())))
    asked = [judge.judge(one, photographs="known") for one in [*fakes("asked", 30), *images("fresh", 30)]]
    at = float(np.median([v.score for v in asked]))
    for one, before in zip([*fakes("asked", 30), *images("fresh", 30)], asked, strict=True):
        verdict = judge.judge(one, photographs="known", at=at)
        rate = (1 + np.count_nonzero(known >= at)) / (len(known) + 1)
        assert verdict.alpha["real"] == pytest.approx(rate) and verdict.at == at
        assert verdict.score == before.score and (verdict.verdict != "fake-like" or verdict.score >= at)
        if verdict.score >= at and verdict.p_values["fake"] > 0.05:
            assert verdict.verdict == "fake-like"
    with pytest.raises(UsageError, match="no score"):
        judge.judge(fakes("asked", 1)[0], at=float("nan"))


def test_a_change_of_the_threshold_is_known(store):
    from retrieval_detect.review.thresholds import thresholds
    from retrieval_detect.teach.measure import Reviewer

    _, manifest = calibrate(store)
    before, first = thresholds(store.folder, manifest)
    assert before is None and first.score == detector(store).calibration(Question()).threshold(0.05)
    add_layered(store, images("more", 60), "real", "more", Reviewer(device="cpu", budget=100))
    was, now = thresholds(store.folder, store.snapshot().manifest)
    assert was == first and now.score != first.score and 0 <= now.risk <= 1
