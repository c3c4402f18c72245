"""``rd index fitted list | remove``, as people and scripts meet them."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.building import one_error
from tests.cli.layered import build


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """With a head, an ensemble, three calibrations of each of two projections, ``white`` in force."""
    folder = build(tmp_path_factory.mktemp("built"))
    from retrieval_detect.cli.main import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        for line in (
            "train linear --name lr",
            "train linear --name other",
            "train ensemble --members density,other --name both",
            "fit calibration --method lr",
            "fit projection white --kind whiten",
        ):
            assert main(line.split()) == 0
    return folder


@pytest.fixture
def index(built, bare_folder):
    for name in ("ask", "new", "index"):
        shutil.copytree(built / name, bare_folder / name)
    return bare_folder / "index" / "default"


def done(result):
    assert result.exit_code == 0, result.stderr
    return result


def listed(run_rd):
    found = json.loads(done(run_rd("index", "fitted", "list", "--json")).stdout)
    return {(row["kind"], row["name"]): row for row in found}


def remove(run_rd, *args):
    return run_rd("index", "fitted", "remove", *args)


WHITE = {("projection", "white"), ("calibration", "density--white"), ("calibration", "lr--white")}
LR = {("head", "lr"), ("calibration", "lr"), ("calibration", "lr--white")}
ALL = WHITE | LR | {("head", "other"), ("head", "both"), ("calibration", "density"), ("coverage", "proj")}


def test_the_list_says_how_on_how_many_and_what_fits_it_again(index, run_rd):
    found = listed(run_rd)
    assert set(found) == ALL
    info = json.loads(run_rd("index", "info", "--json").stdout)["references"]
    in_banks = sum(counts["bank"] for counts in info.values())
    set_aside = sum(counts["calib"] for counts in info.values())
    said = {name: (row["method"], row["rows"], row["stale"], row["again"]) for name, row in found.items()}
    assert said["head", "lr"] == ("linear", in_banks, False, "rd train linear --name lr")
    again = "rd train ensemble --name both --members density,other"
    assert said["head", "both"] == ("ensemble", in_banks, False, again)
    again = "rd fit calibration --set projection=identity"
    assert said["calibration", "density"] == ("conformal", set_aside, False, again)
    again = "rd fit calibration --method lr"
    assert said["calibration", "lr--white"] == ("conformal", set_aside, False, again)
    assert said["coverage", "proj"] == ("nearest", sum(info["real"].values()), False, "rd fit calibration")
    again = "rd fit projection white --kind whiten --layers proj"
    assert said["projection", "white"] == ("whiten", info["real"]["bank"], False, again)
    result = done(run_rd("index", "fitted", "list"))
    assert "searched through white" in result.stderr
    assert result.stdout.splitlines()[1].split()[:4] == [
        "projection",
        "white",
        "whiten",
        f"{info['real']['bank']}",
    ]


def test_what_is_stale_is_named(index, run_rd):
    lines = done(run_rd("bank", "remove", "--among", "generator=flux", "--yes")).stdout.splitlines()
    said = [line for line in lines if "other references" in line]
    assert len(said) == 2 and "head both was fitted" in said[0]
    assert said[1] == (
        "  calibration density, calibration lr are of other references than these, through projections that "
        "are not in force. See: rd index fitted list"
    )
    stale = {name for name, row in listed(run_rd).items() if row["stale"]}
    assert stale == {("head", "both"), ("calibration", "density"), ("calibration", "lr")}


def test_nothing_fitted_yet(index, run_rd):
    done(run_rd("bank", "rollback", "1"))
    result = done(run_rd("index", "fitted", "list"))
    assert "Nothing is fitted yet" in result.stderr and listed(run_rd) == {}


@pytest.mark.parametrize(
    ("named", "gone"),
    [
        (("head", "lr"), LR),
        (("projection", "white"), WHITE),
        (("calibration", "density--white"), {("calibration", "density--white")}),
    ],
)
def test_removing_takes_along_what_rests_on_it_and_a_rollback_brings_it_back(
    index, run_rd, contents, named, gone
):
    if named[0] == "projection":
        done(run_rd("fit", "projection", "identity"))
    before, was = contents(index), listed(run_rd)
    generation = json.loads(run_rd("index", "info", "--json").stdout)["generation"]
    dry = json.loads(done(remove(run_rd, *named, "--dry-run", "--json")).stdout)
    assert contents(index) == before
    assert "Nothing was written." in done(remove(run_rd, *named, "--dry-run")).stdout
    record = json.loads(done(remove(run_rd, *named, "--json")).stdout)
    assert record == dry | {"generation": generation + 1}
    assert {named, *((one["kind"], one["name"]) for one in record["along"])} == gone
    assert set(listed(run_rd)) == ALL - gone
    done(run_rd("bank", "rollback", str(generation)))
    assert listed(run_rd) == was
    verdicts = json.loads(done(run_rd("query", "ask", "--method", "lr", "--json")).stdout)
    assert all(verdict["p_values"] for verdict in verdicts)


def test_what_is_said(index, run_rd):
    generation = json.loads(run_rd("index", "info", "--json").stdout)["generation"]
    assert done(remove(run_rd, "head", "lr")).stdout == (
        "Removed head lr and, with it, calibration lr, calibration lr--white.\n"
        f"  Committed as generation {generation + 1}. Undo: rd bank rollback {generation}\n"
    )
    said = one_error(run_rd("query", "ask", "--method", "lr"), 2)
    assert "has no method 'lr'" in said


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("projection", "white"), "rd fit projection identity"),
        (("projection", "identity"), "there is no projection 'identity' that was fitted"),
        (("head", "other"), "rd index fitted remove head both"),
        (("head", "nope"), "there is no head 'nope'"),
        (("calibration", "other"), "there is no calibration 'other'"),
        (("regions", "density"), "there is no regions 'density'"),
        (("bank", "real"), "'bank' is not one of"),
    ],
)
def test_what_cannot_be_removed(index, run_rd, contents, named, said):
    before = contents(index)
    for dry in ((), ("--dry-run",)):
        assert said in one_error(remove(run_rd, *named, *dry), 2)
    assert contents(index) == before
