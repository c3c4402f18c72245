"""Calibrations with too few images: never worse than none, and open about what is missing."""

from __future__ import annotations

import jsonschema
import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.report.words import calibration_lines
from retrieval_detect.verdicts import Question
from tests.calibrated import calibrate, detector, images, taught

VALID = jsonschema.Draft202012Validator(verdict_schema())


@pytest.fixture
def store(tmp_path):
    return taught(tmp_path)


@pytest.fixture
def calibrated(store):
    calibrate(store)
    return store


def shrunk(store, *, photographs=None, fakes=None):
    """``store`` with so many references left that are set aside, calibrated."""
    with store.writer() as writer:
        for label, left in (("real", photographs), ("fake", fakes)):
            rows = store.snapshot().scan(["row_id"], label=label, split="calib")["row_id"].to_pylist()
            if left is not None:
                writer.remove(rows[left:], reason="", detail={})
    return calibrate(store)[0]


@pytest.mark.parametrize(
    ("few", "said"),
    [
        ({"photographs": 18}, "5.000% needs 19 calibration photographs, there are 18, 1 too few"),
        ({"fakes": 12}, "has 19 calibration images, nor have all of them together, 12: 7 too few"),
    ],
)
def test_one_too_small_for_the_usual_rate_leaves_answers_uncalibrated(store, few, said):
    """A calibration must never be worse than none."""
    (image,) = images("fresh", 1)
    plain = detector(store).judge(image)
    fitted = shrunk(store, **few)
    judge = detector(store)
    verdict = judge.judge(image)
    assert said in fitted.lacking(Question())
    assert verdict.p_values is verdict.log10_lr is verdict.calibration is None
    assert (verdict.verdict, verdict.score) == (plain.verdict, plain.score)
    assert [warning for warning in verdict.warnings if said in warning and "no rate of false" in warning]
    VALID.validate(verdict.to_dict())
    with pytest.raises(UsageError, match="too few"):
        judge.judge(image, fpr=0.04)
    with pytest.raises(UsageError, match="too few"):
        judge.judge(image, confidence=0.9)


def test_what_no_rate_can_mend_is_said_so(store):
    """A higher rate needs fewer photographs; it brings no fakes."""
    fitted = shrunk(store, fakes=12)
    assert "fakes" in fitted.lacking(Question())
    assert not [line for line in calibration_lines(fitted) if "can be asked for" in line]
    with pytest.raises(UsageError, match="too few") as caught:
        detector(store).judge(*images("fresh", 1), fpr=0.4)
    assert "--fpr" not in caught.value.hint and "fakes" in caught.value.hint


def test_one_too_small_for_the_usual_rate_answers_at_a_rate_it_can_keep(store):
    shrunk(store, photographs=18)
    (image,) = images("fresh", 1)
    verdict = detector(store).judge(image, fpr=0.1)
    assert verdict.calibration["photographs"] == 18 and not any("no rate of" in w for w in verdict.warnings)


def test_enough_is_enough(store):
    assert shrunk(store, photographs=19, fakes=19).lacking(Question()) == ""
    assert detector(store).judge(*images("fresh", 1)).p_values is not None


def test_photographs_of_one_format_are_of_sources_that_nobody_counted(calibrated):
    judge = detector(calibrated)
    (image,) = images("fresh", 1)
    for within, sources in ((None, 2), ("source", 1), ("format", None), ("size", None)):
        verdict = judge.judge(image, fpr=0.1, within=within)
        assert verdict.calibration["sources"] == sources
        VALID.validate(verdict.to_dict())
