"""``rd bank mistake``, and what the commands that change an index say of mistakes."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from tests.building import one_error
from tests.factories import png

MINE = ("bank", "mistake", "ask/0200.png", "--label", "real", "--because", "I took it")


def done(run_rd, *args):
    result = run_rd(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_kept_listed_and_forgotten(index, run_rd):
    kept = run_rd(*MINE)
    assert kept.exit_code == 0, kept.stderr
    name = sha256(png(200)).hexdigest()
    assert f"ask/0200.png kept: {name[:12]} is real (I took it); rd says " in kept.stdout
    assert "  of 1 mistake kept (before: 0), " in kept.stdout and "rd bank rollback 1" in kept.stdout
    (row,) = json.loads(run_rd("bank", "list", "--by", "mistake", "--json").stdout)
    (asked,) = json.loads(run_rd("query", "ask/0200.png", "--json").stdout)
    assert row["content_id"] == name and row["because"] == "I took it" and row["label"] == "real"
    assert (row["score"], row["right"]) == (pytest.approx(asked["score"], abs=1e-4), asked["score"] <= 0)
    assert "mistakes     1 kept" in run_rd("index", "info").stdout
    assert run_rd("index", "verify").exit_code == 0
    assert "mistakes kept +1" in run_rd("bank", "list", "--by", "generation").stdout
    gone = done(run_rd, "bank", "mistake", name, "--forget")
    assert gone == {"forgotten": 1, "kept": 0, "generation": 3}
    assert json.loads(run_rd("bank", "list", "--by", "mistake", "--json").stdout) == []


def test_given_again(index, run_rd):
    assert done(run_rd, *MINE)["new"] == 1
    again = done(run_rd, *MINE)
    assert (again["known"], again["new"], again["generation"]) == (1, 0, 2)
    said = run_rd(*MINE[:-1], "raw file kept").stdout
    assert "kept before, label and reason replaced" in said and "is real (raw file kept)" in said


def test_changes_say_how_many_are_right(index, run_rd):
    done(run_rd, "bank", "mistake", "new", "--label", "fake", "--because", "made with newgen")
    before = {row["content_id"]: row["right"] for row in done(run_rd, "bank", "list", "--by", "mistake")}
    assert len(before) == 4
    record = done(run_rd, "bank", "add", "new", "--label", "fake", "--generator", "newgen")
    after = {row["content_id"]: row["right"] for row in done(run_rd, "bank", "list", "--by", "mistake")}
    told = record["mistakes"]
    assert (told["kept"], told["right"]) == (4, sum(after.values()))
    assert told["better"] == sum(after[i] and not before[i] for i in after)
    assert {m["content_id"] for m in told["worse"]} == {i for i in after if before[i] and not after[i]}
    removed = run_rd("bank", "remove", "--among", "generator=newgen", "--yes")
    assert f"of 4 mistakes kept, {sum(before.values())} " in removed.stdout
    fitted = run_rd("fit", "projection", "white", "--kind", "whiten")
    assert "of 4 mistakes kept, " in fitted.stdout, fitted.stderr
    back = run_rd("bank", "rollback", "1")
    assert "0 mistakes kept (before: 4)" in back.stdout


def test_a_reference_is_kept_and_said_to_be_one(index, run_rd):
    said = run_rd("bank", "mistake", "photos/camera/0001.png", "--label", "real", "--because", "its bank")
    assert said.exit_code == 0 and "It is a reference itself" in said.stdout


@pytest.mark.parametrize(
    ("args", "exit_code", "message"),
    [
        (("ask/0200.png",), 2, "kept with what it is"),
        (("ask/0200.png", "--label", "real"), 2, "kept with how you know"),
        (("ask/0200.png", "--label", "maybe", "--because", "x"), 2, "is not one of 'real', 'fake'"),
        (("ask/0200.png", "--label", "real", "--because", "a\nb"), 2, "invisible character"),
        (("gone.png", "--label", "real", "--because", "x"), 2, "gone.png"),
        (("photos/camera/0001.png", "--label", "fake", "--because", "x"), 1, "a stored reference (real)"),
        (("ask/0200.png", "--forget"), 2, "no mistake is kept of"),
        (("ask/0200.png", "--forget", "--label", "real"), 2, "mean nothing with --forget"),
        (("0" * 64, "--forget"), 2, "no mistake is kept of 0000"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(index, run_rd, contents, args, exit_code, message):
    before = contents(index)
    result = run_rd("bank", "mistake", *args)
    assert message in result.stderr and "Traceback" not in result.stderr
    assert result.exit_code == exit_code and contents(index) == before


def test_what_is_no_image_is_passed_over(index, run_rd, contents, pictures):
    (pictures / "broken.png").write_bytes(b"no picture")
    before = contents(index)
    alone = run_rd("bank", "mistake", "broken.png", "--label", "real", "--because", "x")
    assert alone.exit_code == 3 and "nothing was kept" in alone.stderr and contents(index) == before
    beside = run_rd("bank", "mistake", "broken.png", *MINE[2:])
    assert beside.exit_code == 3 and "of 1 mistake kept" in beside.stdout


def test_an_empty_bank_has_judged_nothing(pictures, run_rd):
    run_rd("build-index", "--real", "photos", "--encoder", "tiny")
    assert "the fake bank of index 'default' is empty" in one_error(run_rd(*MINE), 1)


def test_they_are_handed_on_only_if_asked_for(index, run_rd):
    run_rd(*MINE)
    out = run_rd("index", "export", "banks.tar")
    assert "without paths and contributors and mistakes and pictures" in out.stdout
    run_rd("index", "export", "all.tar", "--with-mistakes")
    run_rd("index", "import", "all.tar", "--name", "theirs")
    (row,) = json.loads(run_rd("bank", "list", "--by", "mistake", "--index", "theirs", "--json").stdout)
    assert row["because"] == "I took it"
