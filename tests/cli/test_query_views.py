"""``rd query --stability`` and ``--regions``, ``rd fit calibration --regions``: what they print."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from PIL import Image

from retrieval_detect.report.json import verdict_schema
from retrieval_detect.report.words import full, headline
from retrieval_detect.verdicts import JudgedView, Region, Regions, Stability
from tests.building import build
from tests.factories import write_pictures
from tests.verdicts import CALIBRATED, VERDICT

VALID = jsonschema.Draft202012Validator(verdict_schema())
VIEWS = (
    *(JudgedView(f"jpeg-{quality}", "fake-like", 1.0) for quality in (60, 70, 80)),
    JudgedView("jpeg-50", "real-like", -0.5),
    JudgedView("resize-60", "real-like", -0.25),
)
STABLE = Stability(3, 5, "fake-like", VIEWS)
SCORES = [0.0, 2.0, -1.0, 0.9]
MAP = tuple(Region((32 * (i % 2), 32 * (i // 2), 32, 32), score) for i, score in enumerate(SCORES))
REGIONS = Regions("max", 2.0, 5 / 101, 100, MAP)


def plain(line):
    return "".join(part if isinstance(part, str) else part[0] for part in line)


def shown(**changes):
    return [plain(line) for line in full(replace(VERDICT, **changes))]


def answer(run_rd, *args, exit_code=0):
    result = run_rd("query", *args)
    assert result.exit_code == exit_code, result.stderr
    return result


def csv_rows(result):
    return list(csv.DictReader(io.StringIO(result.stdout)))


def complaint(result):
    assert result.exit_code == 2 and result.stderr.count("Error: ") == 1, result.stderr
    return result.stderr


# ---------------------------------------------------------------- words


def test_what_agrees_and_what_flips_it():
    lines = shown(stability=STABLE)
    assert "  stable   3 of 5 re-encodings agree" in lines
    assert "  flipped by  1 of 4 jpeg, 1 of 1 resize" in lines
    assert any("ask about the original file" in line for line in lines)
    assert plain(headline(replace(CALIBRATED, stability=STABLE))).startswith("FAKE-LIKE: rarer than 99 %")
    assert not any("flipped" in line for line in shown(stability=replace(STABLE, views=VIEWS[:3], of=3)))


def test_a_map_of_the_crops():
    lines = shown(regions=REGIONS)
    at = lines.index("  regions  4 crops, highest +2.00; the highest is at 32,0 (32×32 pixels)")
    assert lines[at + 1].endswith(
        "4 of 100 calibration photographs with as many crops or more have one as high (p 0.05)"
    )
    assert lines[at + 2 : at + 4] == ["           ▒ +0.00   █ +2.00*", "           ░ -1.00   ▓ +0.90"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"p_max": None, "photographs": None}, "(rd fit calibration --regions)"),
        ({"p_max": None, "photographs": 0}, "no calibration photograph has 4 crops or more"),
        ({"pool": "top"}, "mean of the 3 highest"),
        ({"heat_map": MAP[:1], "score": 0.0}, "1 crop, highest +0.00"),
    ],
)
def test_what_is_not_known_is_said(changes, said):
    assert said in "\n".join(shown(regions=replace(REGIONS, **changes)))


@pytest.mark.parametrize("regions", [REGIONS, replace(REGIONS, p_max=None, photographs=None)])
def test_both_are_valid_json(regions):
    data = json.loads(json.dumps(replace(VERDICT, stability=STABLE, regions=regions).to_dict()))
    VALID.validate(data)
    assert data["stability"]["views"][3] == {"view": "jpeg-50", "verdict": "real-like", "score": -0.5}
    assert data["regions"]["heat_map"][1] == {"box": [32, 0, 32, 32], "score": 2.0}
    assert not VALID.is_valid(data | {"stability": data["stability"] | {"agree": None}})
    assert not VALID.is_valid(data | {"regions": data["regions"] | {"heat_map": []}})


# ---------------------------------------------------------------- stability


def test_stability_of_one_image(index, run_rd):
    text = answer(run_rd, "ask/0200.png", "--stability").stdout
    assert "of 16 re-encodings agree" in text
    (data,) = json.loads(answer(run_rd, "--stability", "5", "ask/0200.png", "--json").stdout)
    VALID.validate(data)
    assert data["stability"]["of"] == 5 == len(data["stability"]["views"]) and data["regions"] is None


def test_stability_may_stand_before_an_image(index, run_rd):
    (before,) = json.loads(answer(run_rd, "--stability", "ask/0200.png", "--json").stdout)
    (after,) = json.loads(answer(run_rd, "ask/0200.png", "--stability=16", "--json").stdout)
    assert before["stability"] == after["stability"] and before["stability"]["of"] == 16


def test_stability_of_many_as_csv(index, run_rd):
    rows = csv_rows(answer(run_rd, "ask", "--stability", "4", "--format", "csv"))
    assert len(rows) == 3 and all(float(row["stable"]) in (0, 0.25, 0.5, 0.75, 1) for row in rows)
    assert all(row["regions"] == "" for row in rows)


# ---------------------------------------------------------------- regions


@pytest.fixture
def cropped(pictures, run_rd):
    write_pictures(pictures / "photos" / "camera", range(300, 340))
    assert build(run_rd, "--views", "crops").exit_code == 0
    return pictures


def test_regions_from_the_terminal_to_the_picture(cropped, run_rd):
    text = answer(run_rd, "ask/0200.png", "--regions").stdout
    assert "  regions  4 crops, highest " in text and "(rd fit calibration --regions)" in text and "*" in text
    fitted = run_rd("fit", "calibration", "--regions")
    assert fitted.exit_code == 0 and "generation 2" in fitted.stdout, fitted.stderr
    asked = ("ask/0200.png", "--regions", "--set", "pool=top", "--out", "map.png", "--json")
    (data,) = json.loads(answer(run_rd, *asked).stdout)
    VALID.validate(data)
    found = data["regions"]
    assert found["pool"] == "top" and found["photographs"] > 5 and 0 < found["p_max"] <= 1
    scores = sorted((region["score"] for region in found["heat_map"]), reverse=True)
    assert found["score"] == pytest.approx(np.mean(scores[:3]), abs=1e-5)
    with Image.open(cropped / "map.png") as drawn:
        assert drawn.size == (64, 64)
    (row,) = csv_rows(answer(run_rd, "ask/0200.png", "--regions", "--format=csv"))
    assert float(row["regions"]) == scores[0] and float(row["regions_p_max"]) == found["p_max"]


def test_fitting_regions_can_be_tried(cropped, run_rd):
    result = run_rd("fit", "calibration", "--regions", "--dry-run", "--json")
    record = json.loads(result.stdout)
    assert record["crops"] == 4 * record["photographs"] and "generation" not in record
    assert not (cropped / "index" / "default" / "regions").exists()


def test_without_crops_it_says_what_to_do(index, run_rd):
    for args in (("query", "ask/0200.png", "--regions"), ("fit", "calibration", "--regions")):
        said = complaint(run_rd(*args))
        assert "holds no crops" in said and "--views crops" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--set", "pool=mean"), "pool means nothing without --regions"),
        (("--out", "map.png"), "map.png would show the scores of regions.\n  Ask for them, too: --regions"),
        (("--stability=0",), "0 is not in the range"),
        (("ask/0201.png", "--regions", "--out", "map.png"), "a picture of regions is of one image"),
    ],
)
def test_calls_that_cannot_be_meant(index, pictures, run_rd, args, said):
    assert said in complaint(run_rd("query", "ask/0200.png", *args))
    assert not (pictures / "map.png").exists()
