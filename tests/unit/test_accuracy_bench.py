"""The accuracy benchmarks: who teaches, who is asked, what is written where."""

from __future__ import annotations

import csv

import pytest

from bench.accuracy import bank_size, clipping, few_shot, robustness, ufd
from bench.accuracy._common import by_method, markdown, split
from retrieval_detect.cli.commands.eval import LAYOUTS, PROTOCOLS
from retrieval_detect.cli.recipes import read_recipe

STUDIES = [module.STUDY for module in (bank_size, clipping, few_shot, robustness, ufd)]


@pytest.fixture
def tree(tmp_path):
    for folder in ("real/camera", "real/phone", "fake/flux", "fake/stylegan2_faces"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "tree" / folder / f"{i}.jpg").touch()
    return tmp_path / "tree"


def references(work):
    sets = read_recipe(work / "recipe.toml").references
    return {(s.facts.label, s.facts.generator or s.facts.source): list(s.paths) for s in sets}


def asked(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_asked_about_never_teaches(tree, tmp_path):
    rows = asked(split(robustness.STUDY, tree, tmp_path))
    taught = references(tmp_path)
    assert len(rows) == 8 and all(len(paths) == 8 for paths in taught.values())
    assert not {row["path"] for row in rows} & {path for paths in taught.values() for path in paths}


def test_one_gan_teaches_and_all_are_asked_about(tree, tmp_path):
    rows = asked(split(ufd.STUDY, tree, tmp_path))
    assert {row["generator"] for row in rows if row["label"] == "fake"} == {"flux", "stylegan2_faces"}
    assert [name for label, name in references(tmp_path) if label == "fake"] == ["stylegan2_faces"]


def test_protocols_that_split_by_themselves_are_given_all(tree, tmp_path):
    assert split(few_shot.STUDY, tree, tmp_path) == tree
    assert sum(map(len, references(tmp_path).values())) == 40
    sets = {s.facts.generator: s.facts.category for s in read_recipe(tmp_path / "recipe.toml").references}
    assert sets["stylegan2_faces"] == "faces" and sets["flux"] == "anything"


def test_a_published_set_needs_an_index(tmp_path):
    with pytest.raises(SystemExit, match="--index"):
        split(ufd.STUDY, tmp_path, tmp_path)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_studies_name_what_there_is(study):
    assert study.layout in LAYOUTS
    for run in study.runs:
        assert "--protocol" not in run or run[run.index("--protocol") + 1] in PROTOCOLS


def test_published_rows_stand_below_ours():
    columns = {name: {"acc_fixed": 0.9, "ap": 0.95} for name in ("progan", "mean")}
    run = {
        "title": "By generator",
        "elapsed_s": 1.0,
        "notes": ["Mind this."],
        "about": {"images": 2, "references": {"real": 1, "fake": 1}, "encoder": "tiny"},
        "detail": {"methods": {"rd": {"columns": columns}, "absent": {"left out": "why"}}},
        "compared": [
            {"column": "progan", "metric": "acc", "rd (ours)": 90.0, "LC": 100.0, "rd less LC": -10.0},
            {"column": "progan", "metric": "ap", "rd (ours)": 95.0, "LC": None, "rd less LC": None},
        ],
    }
    table = by_method(run)
    assert "| rd |  | 90.0, 95.0 | 90.0, 95.0 |" in table
    assert table.splitlines()[-1] == "| published: LC |  |  | 100.0, - |"
    result = {
        "date": "2026-01-01",
        "git_commit": None,
        "machine": {"cpu": "c", "cores": 2},
        "command": "x",
        "elapsed_s": 2.0,
        "cpu_s": 3.0,
        "runs": [run],
        "plots": ["a.svg"],
    }
    said = markdown(ufd.STUDY, result)
    assert "Mind this." in said and "![a.svg](../bench/results/a.svg)" in said and "commit unknown" in said
