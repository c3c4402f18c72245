"""The unknown: a planted kind is proposed, noise is not, and nothing is ever labelled."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from retrieval_detect import Detector
from retrieval_detect.errors import UsageError
from retrieval_detect.review.unknown import Candidate, discover
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.types import Failure
from retrieval_detect.verdicts import Question
from tests.factories import add, new_store
from tests.kinds import kind, noise

PHOTO, MADE, THIRD, FOURTH = 3, 7, 11, 19


def taught(folder):
    store = new_store(folder / "index")
    for name in ("camera", "phone"):
        add(store, kind(name, 150, axis=PHOTO), "real", name)
    for name in ("sdxl", "flux"):
        add(store, kind(name, 150, axis=MADE), "fake", name)
    return store


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("discover")
        patch.setenv("RD_CACHE", str(folder / "cache"))
        store = taught(folder)
        commit_calibration(store, fit_calibration(store.snapshot()))
        return Detector(store.snapshot())


def members(candidate):
    return {verdict.input for verdict in candidate.images}


def named(images):
    return {image.item.uri for image in images}


def test_a_planted_kind_is_found_among_noise_and_known_images(detector):
    planted, odd = kind("third", 20, axis=THIRD), noise("odd", 15)
    known = [*kind("fresh", 10, axis=PHOTO), *kind("fresh-fake", 10, axis=MADE)]
    found = discover(detector, [*odd, *known, *planted])
    (candidate,) = found.candidates
    assert len(members(candidate) & named(planted)) >= 18
    assert not members(candidate) - named(planted)
    assert found.counts["unknown"] == len(found.unknown) >= 30
    assert sum(found.counts.values()) == 55


def test_a_kind_alone_and_two_kinds(detector):
    third, fourth = kind("third", 20, axis=THIRD), kind("fourth", 12, axis=FOURTH)
    (alone,) = discover(detector, third).candidates
    assert len(alone.images) >= 18
    larger, smaller = discover(detector, [*fourth, *third]).candidates
    assert (larger.number, smaller.number) == (1, 2)
    assert members(larger) <= named(third) and members(smaller) <= named(fourth)


@pytest.mark.parametrize("seed", range(4))
def test_pure_noise_gives_no_candidate(detector, seed):
    found = discover(detector, noise(f"odd{seed}", 40))
    assert found.counts["unknown"] >= 20 and found.candidates == ()


def test_images_are_ordered_from_the_centre(detector):
    pulls = {f"pull{p}": kind(f"pull{p}", 6, axis=THIRD, pull=p) for p in (30.0, 6.0)}
    (candidate,) = discover(detector, [*pulls["pull6.0"], *pulls["pull30.0"]]).candidates
    assert {verdict.input for verdict in candidate.images[:6]} == named(pulls["pull30.0"])
    assert 0.3 < candidate.similarity < 1


def test_what_is_known_nearby_is_named_and_no_label_is_given(detector):
    toward_fakes = kind("third", 20, axis=THIRD)
    for image in toward_fakes:
        image.vectors["proj"][MADE] += 4
    (candidate,) = discover(detector, toward_fakes).candidates
    assert {(k.label, k.name) for k in candidate.known[:2]} == {("fake", "sdxl"), ("fake", "flux")}
    assert sum(k.share for k in candidate.known) <= 1 + 1e-9
    assert all(-1 <= k.similarity < 0.7 for k in candidate.known)
    assert not {"label", "verdict"} & {field.name for field in fields(Candidate)}


def test_copies_of_one_image_are_no_kind(detector):
    (odd,) = kind("third", 1, axis=THIRD)
    copies = [replace(odd, content_id=bytes([i]) * 32) for i in range(8)]
    found = discover(detector, copies)
    assert len(found.unknown) == 8 and found.candidates == ()


def test_too_few_are_not_clustered_and_the_least_size_counts(detector):
    four = kind("third", 4, axis=THIRD)
    assert discover(detector, four).candidates == ()
    six = kind("third", 6, axis=THIRD)
    assert len(discover(detector, six).candidates) == 1
    assert discover(detector, six, min_size=8).candidates == ()
    assert discover(detector, []).unknown == ()


def test_uncertain_images_only_when_asked_for(detector):
    between = kind("between", 12, axis=PHOTO)
    for image in between:
        image.vectors["proj"][MADE] = image.vectors["proj"][PHOTO]
    without, with_them = discover(detector, between), discover(detector, between, include_uncertain=True)
    assert without.counts == with_them.counts
    assert len(with_them.unknown) == without.counts["unknown"] + without.counts["uncertain"]


def test_failures_are_kept_and_stop_nothing(detector):
    broken = Failure("broken.png", "truncated", "the file is cut short")
    found = discover(detector, [broken, *kind("third", 20, axis=THIRD)])
    assert found.failures == (broken,) and len(found.candidates) == 1


def test_without_a_calibration_nothing_is_unknown(tmp_path):
    store = new_store(tmp_path / "bare")
    add(store, kind("camera", 8, axis=PHOTO), "real", "camera")
    add(store, kind("sdxl", 8, axis=MADE), "fake", "sdxl")
    with pytest.raises(UsageError, match="only a calibration") as caught:
        discover(Detector(store.snapshot()), kind("third", 6, axis=THIRD), Question("mean"))
    assert "rd fit calibration --method mean" in caught.value.hint
