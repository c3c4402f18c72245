"""``rd query --case`` and ``rd report``: what is kept, asked again, and said when it does not stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval_detect.report.case import LOG
from tests.building import one_error

ASK = "ask/0200.png"


@pytest.fixture
def case(index, run_rd):
    result = run_rd("query", ASK, "--case", "case", "--set", "examiner=A. Reader")
    assert result.exit_code == 0, result.stderr
    return index


def entries():
    return [json.loads(line) for line in (Path("case") / LOG).read_text().splitlines()]


def test_a_verdict_is_kept_and_stands(case, run_rd):
    (entry,) = entries()
    assert entry["who"] == "A. Reader" and entry["judged_before"] is None
    result = run_rd("report", "case", "--verify")
    assert result.exit_code == 0 and "stands" in result.stdout
    assert "1 of 1 verdict stand" in result.stderr


def by_an_earlier_definition(case, *, score_moved=0.0):
    """The log as an rd wrote it whose verdicts went by the sign of the score: JSON schema 1."""
    (entry,) = entries()
    said = entry["verdict"]
    for name in ("reason", "reach", "photographs", "log10_lr_interval"):
        del said[name]
        entry["asked"].pop(name, None)
    said |= {"schema": 1, "verdict": "fake-like" if said["score"] > 0 else "real-like"}
    said["score"] += score_moved
    (case / LOG).write_text(json.dumps(entry, ensure_ascii=False) + "\n")
    return said["verdict"]


def test_a_verdict_by_an_earlier_definition_is_called_so(case, run_rd, bare_folder):
    name = by_an_earlier_definition(bare_folder / "case")
    result = run_rd("report", "case", "--verify")
    assert result.exit_code == 0, result.stderr
    assert f"judged by an earlier definition  {name}  {ASK}" in result.stdout
    assert "stand" not in result.stdout.lower() and " then, " not in result.stdout
    assert (
        "0 of 1 verdict stand. 1 verdict judged by an earlier definition: scores alone were" in result.stderr
    )
    (found,) = json.loads(run_rd("report", "case", "--verify", "--json").stdout)
    assert (found["verdict"], found["stands"], found["earlier_definition"]) == (name, None, True)
    assert (found["again"]["verdict"], found["again"]["reason"]) == ("unknown", "uncalibrated")


def test_a_score_by_an_earlier_definition_that_moved_is_told(case, run_rd, bare_folder):
    by_an_earlier_definition(bare_folder / "case", score_moved=0.5)
    result = run_rd("report", "case", "--verify")
    assert "judged by an earlier definition" in result.stdout
    assert len([line for line in result.stdout.splitlines() if "score " in line and " then, " in line]) == 1


def test_the_report_goes_with_its_verdict(case, run_rd, tmp_path):
    assert run_rd("query", ASK, "--case", "case", "--report", "out.html").exit_code == 0
    assert entries()[1]["report"]["path"].endswith("out.html")
    found = json.loads(run_rd("report", "case", "--verify", "--entry", "2", "--json").stdout)
    assert found[0]["report_intact"] is True
    Path("out.html").write_text(Path("out.html").read_text() + " ")
    result = run_rd("report", "case", "--verify")
    assert result.exit_code == 4 and "is not what was written" in result.stdout


def test_an_image_that_is_gone_is_no_finding_against_it(case, run_rd, bare_folder):
    image = bare_folder / ASK
    image.rename(bare_folder / "moved.png")
    assert run_rd("report", "case", "--verify").exit_code == 3
    assert run_rd("report", "case", "--verify", "--image", "moved.png").exit_code == 0


def test_an_index_that_was_moved_is_asked_where_it_lies_now(case, run_rd, bare_folder):
    moved = bare_folder / "archive"
    case.rename(moved)
    gone = run_rd("report", "case", "--verify")
    assert gone.exit_code == 3 and "--index" in gone.stdout
    assert run_rd("report", "case", "--verify", "--index", "./archive").exit_code == 0


def test_an_entry_is_not_asked_of_another_index(case, run_rd, monkeypatch):
    other = ("build-index", "--real", "photos", "--fake", "new", "--encoder", "tiny", "--index", "other")
    assert run_rd(*other).exit_code == 0
    result = run_rd("report", "case", "--verify", "--index", "other")
    assert result.exit_code == 3 and "is not the index that judged" in result.stdout
    # Which index is asked next is no word about where this one lies.
    monkeypatch.setenv("RD_INDEX", "other")
    assert run_rd("report", "case", "--verify").exit_code == 0


def test_cases_are_listed(case, run_rd):
    assert run_rd("query", "ask", "--case", "case").exit_code == 0
    rows = json.loads(run_rd("report", "case", "--json").stdout)
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) > 2
    assert rows[0]["who"] == "A. Reader"


def test_a_changed_log_stops_everything_before_an_image_is_judged(case, run_rd, embedded, bare_folder):
    assert run_rd("query", ASK, "--case", "case", "--set", "examiner=B. Reader").exit_code == 0
    log = bare_folder / "case" / LOG
    log.write_bytes(log.read_bytes().replace(b"A. Reader", b"C. Reader"))
    embedded.clear()
    assert "was written after line" in one_error(run_rd("query", ASK, "--case", "case"), 1)
    assert "was written after line" in one_error(run_rd("report", "case", "--verify"), 1)
    assert embedded == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--set", "examiner=X"], "examiner means nothing without --case"),
        (["--case", "ask/0200.png"], "is a file"),
    ],
)
def test_what_cannot_be_meant(index, run_rd, args, says):
    assert says in one_error(run_rd("query", ASK, *args), 2)


def test_a_blind_page_has_the_verdict_behind_the_evidence(index, run_rd, bare_folder):
    assert run_rd("query", ASK, "--evidence", "blind", "--report", "blind.html").exit_code == 0
    assert run_rd("query", ASK, "--report", "open.html").exit_code == 0
    blind, plain = ((bare_folder / f"{name}.html").read_text() for name in ("blind", "open"))
    verdict, nearest = "nearer to the", "Nearest"
    assert plain.index(verdict) < plain.index(nearest) and blind.index(nearest) < blind.rindex(verdict)


def test_what_is_said_beside_a_blind_page_tells_no_verdict(index, run_rd):
    for asked in (ASK, "ask"):
        result = run_rd("query", asked, "--evidence", "blind", "--report", "blind.html")
        assert result.exit_code == 0 and "behind the evidence" in result.stdout
        assert "the nearest references" in result.stdout
        for telling in ("nearer to the", "UNKNOWN", "uncalibrated", "score", "fake-like", "FAKE-LIKE"):
            assert telling not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("also", "said"),
    [
        ([], "here is no terminal to ask at"),
        (["--case", "case"], "here is no terminal to ask at"),
        (["--json"], "--format json tells verdicts at once"),
        (["--report", "blind.html", "-q"], "--format quiet tells verdicts at once"),
    ],
)
def test_blind_is_refused_where_it_would_tell_the_verdict(index, run_rd, bare_folder, also, said, embedded):
    complaint = one_error(run_rd("query", ASK, "--evidence", "blind", *also), 2)
    assert said in complaint
    assert not embedded and not (bare_folder / "case").exists() and not (bare_folder / "blind.html").exists()


def test_blind_on_a_terminal_asks_before_it_tells(index, run_rd, monkeypatch):
    from retrieval_detect.cli import case

    monkeypatch.setattr(case.sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(case.sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(case.click, "prompt", lambda *args, **kwargs: "undecided")
    result = run_rd("query", ASK, "--case", "case", "--evidence", "blind")
    assert result.stdout.index("the nearest references") < result.stdout.index(
        "UNKNOWN: uncalibrated; nearer to"
    )
    assert entries()[0]["judged_before"] == "undecided"
