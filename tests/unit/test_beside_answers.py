"""What photographs laid beside an image may do to its answer, and how their scenes are counted."""

from __future__ import annotations

from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from retrieval_detect.ask.table import row_of
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.report.words import beside_lines, full, plain
from retrieval_detect.scoring.answers import Answer, PValues
from retrieval_detect.scoring.beside import answer_beside, scene_p
from retrieval_detect.verdicts import Contrast, LaidPicture, Refused, WithBeside
from tests.verdicts import CALIBRATED

FAKE_LIKE = Answer("fake-like", "rare-among-photographs", "known sources")
IF_KNOWN = Answer("uncertain", "fake-like-if-known-source", "known sources")
REAL_LIKE = Answer("real-like", "fits-photographs")
FOUND = WithBeside(
    verdict="uncertain",
    reason="fits-beside",
    score=-0.4,
    p_values={"real": 0.3, "fake": 0.2, "typical": 0.5, "scenes": None},
    scenes=1,
    needed=19,
    contrast=Contrast("sdxl", 18, 2),
    supplier="agency",
    date="2026-11-30",
    digest="ab" * 32,
    pictures=(LaidPicture("a.jpg", "cd" * 32, 1, 2.1, True), LaidPicture("b.jpg", "ce" * 32, 1, 1.1, False)),
    refused=(Refused("c.jpg", "the file says that a generator made it, or parts of it"),),
)


def said(without, *, real, scenes=None, fake=0.5, typical=0.5, clears=False):
    p = PValues(real, None, fake, typical)
    return answer_beside(without, p, scenes, alpha=0.05, clears_fakes=clears)


@pytest.mark.parametrize("accused", [FAKE_LIKE, IF_KNOWN])
def test_few_scenes_withdraw_an_accusation_and_nothing_else(accused):
    assert said(accused, real=0.2) == Answer("uncertain", "fits-beside")
    assert said(accused, real=0.2, fake=0.01) == Answer("uncertain", "fits-beside")  # never real-like
    assert said(accused, real=0.01) == accused
    for other in (
        REAL_LIKE,
        Answer("uncertain", "fits-both"),
        Answer("unknown", "fits-neither", "new sources"),
    ):
        assert said(other, real=0.2) == said(other, real=0.001) == other


def test_enough_scenes_decide_both_ways():
    assert said(IF_KNOWN, real=0.01, scenes=0.05) == Answer("fake-like", "rare-beside")
    assert said(FAKE_LIKE, real=0.01, scenes=0.2) == Answer("uncertain", "fits-beside")
    assert said(FAKE_LIKE, real=0.01, scenes=0.2, fake=0.01).verdict == "real-like"
    assert said(FAKE_LIKE, real=0.01, scenes=0.05, fake=0.01) == Answer("unknown", "fits-neither")
    assert said(FAKE_LIKE, real=0.01, scenes=0.05, typical=0.01) == Answer("unknown", "untypical")


def test_pictures_unlike_the_image_make_no_accusation():
    """Blank pictures score low: every photograph is rare among them."""
    assert said(REAL_LIKE, real=0.6, scenes=0.02).verdict == "uncertain"


def test_nothing_is_real_like_by_pictures_that_clear_known_fakes():
    cleared = said(FAKE_LIKE, real=0.6, scenes=0.6, fake=0.01, clears=True)
    assert cleared == Answer("uncertain", "clears-known-fakes")
    assert not Contrast("g", 10, 5).clears and Contrast("g", 10, 6).clears and not Contrast("g", 0, 0).clears


def test_what_pictures_cannot_answer_stays():
    without = Answer("unknown", "uncalibrated")
    assert said(without, real=0.9, scenes=0.9) == without


def test_a_scene_counts_once_by_its_highest_picture():
    scores, scenes = np.array([0.0, 3.0, 1.0, 2.5, -1.0]), np.array([0, 0, 1, 1, 2])
    assert scene_p(2.6, scores, scenes) == 2 / 4
    assert scene_p(2.5, scores, scenes) == 3 / 4  # ties count
    assert scene_p(9.0, scores, scenes) == 1 / 4


def test_both_answers_stand_side_by_side():
    text = "\n".join(map(plain, beside_lines(replace(CALIBRATED, beside=FOUND))))
    assert (
        "without them  FAKE-LIKE" in text and "with them     UNCERTAIN: with these photographs known" in text
    )
    assert "2 photographs of 1 scene, from agency, 2026-11-30" in text
    assert "1 of the 2 photographs would be fake-like themselves" in text
    assert "of 18 known sdxl images nearest to it, 2 would not be fake-like any more" in text
    assert "clear known fakes" not in text and "not laid: c.jpg" in text
    assert "1 scene can withdraw an accusation and no more; from 19 on" in text
    bought = replace(
        FOUND, contrast=Contrast("sdxl", 18, 17), scenes=20, p_values=FOUND.p_values | {"scenes": 2 / 21}
    )
    text = "\n".join(map(plain, full(replace(CALIBRATED, beside=bought))))
    assert "would clear known fakes as well" in text and "1 of the 20 scenes, each without itself" in text
    assert list(beside_lines(CALIBRATED)) == []


def test_the_schema_knows_it():
    validator = jsonschema.Draft202012Validator(verdict_schema())
    assert row_of(replace(CALIBRATED, beside=FOUND))["verdict_beside"] == FOUND.verdict
    record = replace(CALIBRATED, beside=FOUND).to_dict()
    validator.validate(record)
    assert record["beside"]["pictures"][0]["fake_like"] is True and record["verdict"] == "fake-like"
    record["beside"]["pictures"][0].pop("sha256")
    assert list(validator.iter_errors(record))
