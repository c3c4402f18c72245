"""What references show: said at build time, so that few-shot can draw by it."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from retrieval_detect.store.manifest import read_current
from retrieval_detect.store.snapshot import Snapshot
from tests.building import TINY, one_error
from tests.factories import write_pictures, write_set

SHOWN = ("cat", "dog")
FEW_SHOT = (
    "eval",
    "set",
    "--protocol",
    "few-shot",
    "--per-category",
    "--n",
    "1,4",
    "--set",
    "seeds=1",
    "--json",
)


@pytest.fixture
def sorted_pictures(bare_folder):
    """``photos/camera/CATEGORY`` and ``generated/sdxl/CATEGORY``, and a set to measure on."""
    (bare_folder / "index").mkdir()
    for number, name in enumerate(SHOWN):
        start = 100 * number
        write_pictures(bare_folder / "photos" / "camera" / name, range(start, start + 8))
        write_pictures(bare_folder / "generated" / "sdxl" / name, range(start + 50, start + 58), fake=True)
    write_set(bare_folder / "set", photographs=8, of_each_generator=6)
    return bare_folder


def stored(folder, name="default"):
    """How many references there are of each name and category."""
    rows = Snapshot.open(folder / "index" / name).scan(["generator", "source", "category"]).to_pylist()
    return Counter((row["generator"] or row["source"], row["category"]) for row in rows)


def measured(run_rd):
    result = run_rd(*FEW_SHOT)
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    return {(row["generator"], row["method"], row["n"]) for row in rows}


def test_folders_name_what_images_show(sorted_pictures, run_rd):
    built = ("build-index", "--real", "photos", "--fake", "generated", "--category-folders", *TINY)
    assert run_rd(*built).exit_code == 0
    assert stored(sorted_pictures) == {(name, shown): 8 for name in ("camera", "sdxl") for shown in SHOWN}
    assert {("flux", "rd", 1), ("sdxl", "rd", 4), ("mean", "LogisticRegression", 4)} <= measured(run_rd)


def test_one_category_after_another(sorted_pictures, run_rd):
    for shown in SHOWN:
        places = ("--real", f"photos/camera/{shown}", "--fake", f"generated/sdxl/{shown}")
        assert run_rd("build-index", *places, "--fact", f"category={shown}", *TINY).exit_code == 0
    assert stored(sorted_pictures) == {("", shown): 16 for shown in SHOWN}
    assert ("mean", "rd", 4) in measured(run_rd)


def test_folders_mean_what_they_meant_unless_that_is_said(sorted_pictures, run_rd):
    assert run_rd("build-index", "--real", "photos", "--fake", "generated", *TINY).exit_code == 0
    assert set(stored(sorted_pictures)) == {("camera", ""), ("sdxl", "")}
    assert "--category-folders" in one_error(run_rd(*FEW_SHOT), 2)


def test_where_the_name_is_given_the_first_folder_says_what_images_show(sorted_pictures, run_rd):
    """As in the training set of CNNDetection: CATEGORY/1_fake."""
    (sorted_pictures / "recipe.toml").write_text(
        """
encoder = "tiny"
[[references]]
label = "fake"
generator = "progan"
family = "GAN"
category_folders = true
paths = ["generated/sdxl/*/*.png"]
"""
    )
    assert run_rd("build-index", "recipe.toml").exit_code == 0
    assert stored(sorted_pictures) == {("progan", shown): 8 for shown in SHOWN}
    assert read_current(sorted_pictures / "index" / "default").generators["progan"].family == "GAN"
    more = ("bank", "add", "photos/camera", "--label", "real", "--source", "lsun", "--category-folders")
    assert run_rd(*more).exit_code == 0
    assert stored(sorted_pictures)["lsun", "dog"] == 8


def test_a_category_is_given_once(sorted_pictures, run_rd):
    both = ("--fact", "category=cat", "--category-folders")
    said = one_error(run_rd("build-index", "--real", "photos", *both, *TINY), 2)
    assert "all images show 'cat'" in said
    said = one_error(run_rd("build-index", "default", "--fact", "category=cat"), 2)
    assert "a recipe already says" in said
    for line, complaint in (("category = 'cat'", "not both"), ("", "")):
        text = f"[[references]]\nlabel = 'real'\npaths = ['photos']\n{line}\ncategory_folders = "
        (sorted_pictures / "r.toml").write_text(text + ("true" if line else "'yes'"))
        said = one_error(run_rd("build-index", "r.toml"), 2)
        assert "r.toml, references 1" in said and (complaint or "true or false") in said
