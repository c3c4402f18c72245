"""``rd query --beside``: both answers, what is refused, and what a case keeps of every attempt."""

from __future__ import annotations

import json

import pytest

from retrieval_detect.report.html import strings as t
from tests.building import one_error
from tests.factories import png, write_pictures

EACH = 140


@pytest.fixture
def calibrated(bare_folder, run_rd):
    """An index large enough to be calibrated when it is built; the folder it lies in."""
    (bare_folder / "index").mkdir()
    write_pictures(bare_folder / "photos" / "camera", range(EACH))
    write_pictures(bare_folder / "photos" / "phone", range(1000, 1000 + EACH))
    write_pictures(bare_folder / "generated" / "sdxl", range(2000, 2000 + EACH), fake=True)
    write_pictures(bare_folder / "lent", range(3000, 3004))
    write_pictures(bare_folder / "ask", range(4000, 4001), fake=True)
    args = ("--real", "photos", "--fake", "generated", "--encoder", "tiny")
    assert run_rd("build-index", *args).exit_code == 0
    return bare_folder


def entries(folder):
    return [json.loads(line) for line in (folder / "case" / "log.jsonl").read_text().splitlines()]


def test_both_answers_are_shown_and_every_attempt_is_kept(calibrated, run_rd, contents):
    (calibrated / "lent" / "broken.png").write_bytes(b"no image")
    before = contents(calibrated / "index")
    result = run_rd(
        *("query", "ask/4000.png", "--photographs", "known", "--case", "case", "--report", "out.html"),
        *("--beside", "lent,supplier=agency,date=2026-11-30"),
    )
    assert result.exit_code == 0, result.stderr
    assert "without them  " in result.stdout and "with them     " in result.stdout
    assert "from agency, 2026-11-30; they are in no bank" in result.stdout
    assert "not laid: lent/broken.png" in result.stdout
    after = {path: data for path, data in contents(calibrated / "index").items() if "pin" not in path}
    assert {path: after[path] for path in before} == before
    attempt, judged = entries(calibrated)
    assert "verdict" not in attempt and len(attempt["beside"]["pictures"]) == 4
    assert attempt["beside"]["supplier"] == "agency" and len(attempt["beside"]["vectors_sha256"]) == 64
    assert judged["verdict"]["beside"]["digest"] == attempt["beside"]["vectors_sha256"]
    assert [p["sha256"] for p in judged["beside"]] == [p["sha256"] for p in attempt["beside"]["pictures"]]
    page = (calibrated / "out.html").read_text()
    assert t.BESIDE in page and t.BESIDE_WITHOUT in page and "Supplied by agency, 2026-11-30." in page
    listed = run_rd("report", "case", "--json").stdout
    assert [row["input"] for row in json.loads(listed)] == ["4 pictures laid beside", "ask/4000.png"]
    assert run_rd("report", "case", "--verify").exit_code == 0
    (calibrated / "lent" / "3000.png").write_bytes(png(1))
    again = run_rd("report", "case", "--verify")
    assert again.exit_code == 0 and "pictures laid beside it some are gone or changed" in again.stdout


def test_an_attempt_whose_pictures_are_all_refused_is_kept_too(calibrated, run_rd):
    one_error(run_rd("query", "ask/4000.png", "--case", "case", "--beside", "generated/sdxl/2000.png"), 2)
    (attempt,) = entries(calibrated)
    assert len(attempt["beside"]["pictures"]) == 1


def test_the_exit_code_goes_by_the_answer_with_them(calibrated, run_rd):
    args = ("query", "ask/4000.png", "--photographs", "known", "--exit-code", "--json")
    without = run_rd(*args)
    found = run_rd(*args, "--beside", "lent")
    (record,), (alone,) = json.loads(found.stdout), json.loads(without.stdout)
    assert record["verdict"] == alone["verdict"]
    codes = {"fake-like": 10, "uncertain": 11, "unknown": 11, "real-like": 0}
    assert found.exit_code == codes[record["beside"]["verdict"]]


def test_it_is_for_one_image_or_a_few(calibrated, run_rd):
    assert "one image or a few" in one_error(run_rd("query", "photos", "--beside", "lent"), 2)


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ("empty", "empty"),
        ("nowhere", "does not exist"),
        ("supplier=agency", "--beside names no pictures"),
        ("ask/4000.png", "rd bank add"),
    ],
)
def test_what_cannot_be_laid_beside_is_refused(calibrated, run_rd, beside, said):
    (calibrated / "empty").mkdir()
    if beside == "ask/4000.png":  # the image itself: laid beside nothing, and said
        result = run_rd("query", "ask/4000.png", "--beside", beside)
        assert result.exit_code == 0 and "none of the pictures could be laid beside it" in result.stdout
        return
    result = run_rd("query", "ask/4000.png", "--beside", beside)
    assert result.exit_code in (1, 2) and said in result.stderr and not result.stdout


def test_an_index_without_calibration_says_so(index, run_rd):
    said = one_error(run_rd("query", "ask/0200.png", "--beside", "photos/camera"), 2)
    assert "without a calibration" in said


def test_heads_are_refused(index, run_rd):
    assert run_rd("train", "linear", "--name", "lr").exit_code == 0
    said = one_error(run_rd("query", "ask/0200.png", "--method", "lr", "--beside", "photos/camera"), 2)
    assert "trained again" in said
