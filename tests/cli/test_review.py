"""``rd bank check`` and ``rd bank discover`` as people and scripts meet them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from retrieval_detect.cli.main import main
from tests.building import one_error
from tests.factories import picture

EACH = 300


RED, GREEN, BLUE = ((200, 60, 60), (60, 200, 60), (60, 60, 250))


def write_tinted(folder, seeds, colour):
    """Pictures whose tint the toy encoder sees better than anything else in them."""
    folder.mkdir(parents=True)
    for seed in seeds:
        tint = Image.new("RGB", (64, 64), colour)
        Image.blend(picture(seed), tint, 0.55).save(folder / f"tinted {seed}.png")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A calibrated index, ``index/default``; four of its "fakes" are photographs of one batch."""
    folder = tmp_path_factory.mktemp("built")
    write_tinted(folder / "photos" / "camera", range(EACH), RED)
    write_tinted(folder / "generated" / "sdxl", range(1000, 1000 + EACH), GREEN)
    write_tinted(folder / "stray", range(5000, 5004), RED)
    write_tinted(folder / "inbox", range(8), BLUE)
    write_tinted(folder / "known", range(3000, 3004), RED)
    (folder / "index").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        built = ["build-index", "--real", "photos", "--fake", "generated", "--encoder", "tiny"]
        assert main([*built, "--no-calibration"]) == 0
        stray = ("stray", "--label", "fake", "--generator", "web", "--fact", "batch=strays")
        assert main(["bank", "add", *stray, "--no-calibration"]) == 0
        shutil.copytree(folder / "index", folder / "bare")
        assert main(["fit", "calibration"]) == 0
    return folder


@pytest.fixture
def here(built, bare_folder):
    for name in ("index", "inbox", "known"):
        shutil.copytree(built / name, bare_folder / name)
    return bare_folder


def done(result, exit_code=0):
    assert result.exit_code == exit_code, result.stderr
    return result


# ---------------------------------------------------------------- check


def test_check_for_people(here, run_rd):
    result = done(run_rd("bank", "check"))
    assert "row id" in result.stdout and "stray/tinted 5000.png" in result.stdout
    assert "fake references disagree with their neighbours" in result.stdout
    assert "batch strays, fake: 4 of 4 disagree" in result.stdout
    assert "no proof of a wrong label" in result.stderr and "rd bank remove --row " in result.stderr
    assert "mislabel" not in (result.stdout + result.stderr).lower()


def test_check_for_programs(here, run_rd):
    found = json.loads(done(run_rd("bank", "check", "--json")).stdout)
    strays = {Path(row["uri"]).name: row for row in found["disagreements"] if row["batch"] == "strays"}
    assert set(strays) == {f"tinted {seed}.png" for seed in range(5000, 5004)}
    for row in strays.values():
        assert row["label"] == "fake" and row["name"] == "web" and row["score"] < 0
        assert row["other_name"] == "camera" and row["others"] >= 8
    (delivery,) = found["deliveries"]
    assert (delivery["name"], delivery["n"], delivery["disagree"]) == ("strays", 4, 4)
    assert found["asked"]["real"] + found["asked"]["fake"] > 2 * EACH * 0.7


def test_check_as_a_table(here, run_rd):
    rows = list(csv.DictReader(io.StringIO(done(run_rd("bank", "check", "--format", "csv")).stdout)))
    assert {"row_id", "uri", "score", "as_far", "expected"} <= set(rows[0])
    assert sum(row["batch"] == "strays" for row in rows) == 4


def test_what_it_proposes_works(here, run_rd):
    rows = json.loads(done(run_rd("bank", "check", "--json")).stdout)["disagreements"]
    remove = [part for row in rows for part in ("--row", str(row["row_id"]))]
    done(run_rd("bank", "remove", *remove, "--yes"))
    left = json.loads(done(run_rd("bank", "check", "--json")).stdout)
    assert left["deliveries"] == [] and len(left["disagreements"]) < len(rows)


def test_check_needs_no_calibration_and_asks_at_most(built, here, run_rd):
    shutil.copytree(built / "bare", here / "bare")
    found = json.loads(done(run_rd("bank", "check", "--home", "bare", "--at-most", "50", "--json")).stdout)
    assert 40 <= sum(found["asked"].values()) <= 52


def test_check_of_nothing_and_by_a_method_that_is_none(here, run_rd):
    assert "has no method 'guess'" in one_error(run_rd("bank", "check", "--method", "guess"), 2)
    assert "elsewhere" in one_error(run_rd("bank", "check", "--index", "elsewhere"), 1)


def test_a_head_is_not_asked_about_what_it_learnt_from(here, run_rd):
    done(run_rd("train", "linear", "--name", "s"))
    assert "has learnt from" in one_error(run_rd("bank", "check", "--method", "s"), 2)


# ---------------------------------------------------------------- discover


def test_discover_for_people(here, run_rd):
    told = done(run_rd("bank", "discover", "inbox", "known")).stdout
    assert "8 of 12 images are unknown" in told and "8 of them form 1 candidate" in told
    assert "Candidate 1: 8 images" in told and "nearest known" in told
    assert "rd bank add 'inbox/tinted " in told and "--label LABEL" in told
    assert "Unknown is no evidence of being generated" in told


def test_discover_for_programs(here, run_rd):
    (here / "known" / "1.dng").write_bytes(b"no picture")
    found = json.loads(done(run_rd("bank", "discover", "inbox", "known", "--json")).stdout)
    assert found["passed_over"] == {".dng": 1}
    (candidate,) = found["candidates"]
    assert candidate["size"] == len(candidate["images"]) == 8 and candidate["cluster"] == 1
    assert all("inbox/tinted" in uri for uri in candidate["images"])
    assert sum(found["counts"].values()) == 12 and "no evidence" in found["note"]
    assert {k["name"] for k in candidate["known"]} <= {"camera", "sdxl", "web"}
    assert "label" not in candidate and "LABEL" in candidate["command"]


@pytest.mark.parametrize("name", ["which.csv", "which.json"])
def test_which_image_is_where(here, run_rd, name):
    done(run_rd("bank", "discover", "inbox", "known", "--out", name))
    text = (here / name).read_text()
    rows = json.loads(text) if name.endswith("json") else list(csv.DictReader(io.StringIO(text)))
    assert [int(row["rank"]) for row in rows if row["cluster"]] == list(range(1, 9))
    assert all(row["verdict"] == "unknown" and len(row["sha256"]) == 64 for row in rows)
    table = done(run_rd("bank", "discover", "inbox", "--format", "csv")).stdout
    assert len(list(csv.DictReader(io.StringIO(table)))) == 8


def test_too_few_unknown_says_so(here, run_rd):
    told = done(run_rd("bank", "discover", "inbox", "--min-size", "9")).stdout
    assert "8 of 8 images are unknown: too few to look for a kind among them, which takes 9" in told
    nothing = json.loads(done(run_rd("bank", "discover", "known", "--json")).stdout)
    assert nothing["candidates"] == []


def test_a_broken_image_is_reported_and_the_rest_is_done(here, run_rd):
    (here / "inbox" / "broken.png").write_bytes(b"no image")
    result = done(run_rd("bank", "discover", "inbox", "--json"), 3)
    found = json.loads(result.stdout)
    assert [failure["input"] for failure in found["failures"]] == ["inbox/broken.png"]
    assert len(found["candidates"]) == 1 and "broken.png" in result.stderr


def test_discover_needs_a_calibration(built, here, run_rd):
    shutil.copytree(built / "bare", here / "bare")
    complaint = one_error(run_rd("bank", "discover", "inbox", "--home", "bare"), 2)
    assert "only a calibration can tell" in complaint and "rd fit calibration" in complaint


@pytest.mark.parametrize("out", ["which.txt", "nowhere/which.csv"])
def test_a_file_that_cannot_be_written_is_refused_first(here, run_rd, out):
    one_error(run_rd("bank", "discover", "inbox", "--out", out), 2)
    assert not (here / out).exists()
