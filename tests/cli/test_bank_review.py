"""``rd bank add`` to a calibrated index: what changes is shown, and too little to tell is said."""

from __future__ import annotations

import json

import pytest

from retrieval_detect.store.snapshot import Snapshot
from tests.factories import write_pictures


@pytest.fixture
def calibrated(bare_folder, run_rd):
    """An index of so many pictures that some are set aside, calibrated."""
    (bare_folder / "index").mkdir()
    write_pictures(bare_folder / "photos" / "camera", range(60))
    write_pictures(bare_folder / "generated" / "sdxl", range(100, 240), fake=True)
    write_pictures(bare_folder / "new", range(300, 306), fake=True)
    assert (
        run_rd("build-index", "--real", "photos", "--fake", "generated", "--encoder", "tiny").exit_code == 0
    )
    assert run_rd("fit", "calibration").exit_code == 0
    return bare_folder / "index" / "default"


ADD = ("bank", "add", "new", "--label", "fake", "--generator", "newgen")


def test_too_few_photographs_to_tell(calibrated, run_rd):
    aside = Snapshot.open(calibrated).manifest.live_rows("real", "calib")
    before = (calibrated / "CURRENT").read_bytes()
    result = run_rd(*ADD)
    assert result.exit_code == 0, result.stderr
    assert (
        f"  {aside} calibration photographs are too few to tell what it does to false alarms" in result.stdout
    )
    assert (calibrated / "CURRENT").read_bytes() != before
    assert run_rd("index", "verify").exit_code == 0


def test_the_calibration_may_be_left_as_it_is(calibrated, run_rd):
    result = run_rd(*ADD, "--no-calibration")
    assert result.exit_code == 0, result.stderr
    assert "of 6" in result.stdout and "fitted anew: calibration" not in result.stdout
    assert "\ncalibration  density (stale)\n" in run_rd("index", "info").stdout
    (query,) = json.loads(run_rd("query", "photos/camera/0001.png", "--json", "--fpr", "0.2").stdout)
    assert any("other references" in warning for warning in query["warnings"])


def test_the_change_is_shown_and_the_calibration_fitted_anew(calibrated, run_rd):
    result = run_rd(*ADD)
    assert result.exit_code == 0, result.stderr
    told = result.stdout
    assert "newgen" in told and "of 6" in told and "photographs flagged" in told
    assert "fitted anew: calibration density" in told
    (query,) = json.loads(run_rd("query", "photos/camera/0001.png", "--json", "--fpr", "0.2").stdout)
    assert query["p_values"] is not None
    assert not any("other references" in warning for warning in query["warnings"])


def test_heads_fitted_along_are_named(calibrated, run_rd):
    assert run_rd("train", "linear", "--name", "lr").exit_code == 0
    told = run_rd(*ADD).stdout
    assert "fitted anew: head lr, calibration density" in told


def test_the_change_as_data(calibrated, run_rd):
    record = json.loads(run_rd(*ADD, "--json").stdout)
    (newcomer,) = record["measured"]["newcomers"]
    assert newcomer["name"] == "newgen" and newcomer["n"] == 6
    assert record["measured"]["alpha"] == 0.05


def test_removing_says_that_the_calibration_is_stale(calibrated, run_rd):
    result = run_rd("bank", "remove", "--among", "generator=sdxl", "--yes")
    assert "calibration density" in result.stdout and "rd fit calibration" in result.stdout
    assert run_rd("bank", "rollback", "2").exit_code == 0
    (query,) = json.loads(run_rd("query", "photos/camera/0001.png", "--json", "--fpr", "0.2").stdout)
    assert query["p_values"]
