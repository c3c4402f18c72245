"""The accuracy benchmarks: who teaches, who is asked, what is written where."""

from __future__ import annotations

import csv

import pytest

from bench._data import listed
from bench.accuracy import bank_size, clipping, few_shot, known, robustness, ufd
from bench.accuracy._common import by_method, listing, markdown, split
from retrieval_detect.cli.commands.eval import LAYOUTS, PROTOCOLS

STUDIES = [robustness.study(30), *(m.STUDY for m in (bank_size, clipping, few_shot, known, ufd))]


@pytest.fixture
def tree(tmp_path):
    for folder in ("real/camera", "real/phone", "fake/flux", "fake/stylegan2_faces"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "tree" / folder / f"{i}.jpg").touch()
    return tmp_path / "tree"


def test_what_is_asked_about_never_teaches(tree):
    taught, asked = split(robustness.study(30), listed(tree))
    assert len(asked) == 8 and len(taught) == 32
    assert not {image.path for image in asked} & {image.path for image in taught}


def test_one_gan_teaches_and_all_are_asked_about(tree):
    taught, asked = split(ufd.STUDY, listed(tree))
    assert {image.name for image in asked if image.fake} == {"flux", "stylegan2_faces"}
    assert {image.name for image in taught if image.fake} == {"stylegan2_faces"}


def test_protocols_that_split_by_themselves_are_given_all(tree):
    taught, asked = split(few_shot.STUDY, listed(tree))
    assert len(taught) == len(asked) == 40
    shown = {image.name: image.facts.category for image in taught}
    assert shown["stylegan2_faces"] == "faces" and shown["flux"] == "anything"


def test_what_is_asked_about_is_listed_by_its_names(tree, tmp_path):
    with listing(listed(tree, 1), tmp_path).open(newline="") as file:
        rows = [{**row, "path": row["path"].rsplit("/", 3)[1:]} for row in csv.DictReader(file)]
    assert rows[0] == {
        "path": ["real", "camera", "0.jpg"],
        "label": "real",
        "generator": "",
        "source": "camera",
    }
    assert [row["generator"] or row["source"] for row in rows] == [
        "camera",
        "phone",
        "flux",
        "stylegan2_faces",
    ]


def test_a_published_set_needs_an_index(tmp_path):
    with pytest.raises(SystemExit, match="--index"):
        listed(tmp_path)


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
    table = by_method([run])
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


def test_several_encoders_stand_side_by_side_in_one_table():
    def run(encoder, protocol, auroc):
        facts = {"images": 2, "references": {"real": 1, "fake": 1}, "encoder": encoder}
        rows = [{"n": 30, "auroc": auroc}]
        return {"title": protocol, "elapsed_s": 1.0, "notes": ["Mind this."], "about": facts, "rows": rows}

    runs = [
        run("tiny", "One", 0.5),
        run("tiny", "Two", 0.6),
        run("large", "One", 0.7),
        run("large", "Two", 0.8),
    ]
    head = {"date": "2026-01-01", "git_commit": None, "machine": {"cpu": "c", "cores": 2}}
    said = markdown(bank_size.STUDY, {**head, "command": "x", "elapsed_s": 4.0, "cpu_s": 3.0, "runs": runs})
    one, two = said.split("One:")[1].split("Two:")
    assert "encoders `tiny` and `large`" in said and said.count("Mind this.") == 2
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in one.splitlines() if "`" in line]
    assert rows == [["`tiny`", "30", ""], ["`large`", "30", ""]] and "0.7" in one and "0.8" in two
