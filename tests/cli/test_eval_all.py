"""``rd eval --protocol all``: whatever applies, one after the other; what does not is said."""

from __future__ import annotations

import json

import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate import running
from retrieval_detect.evaluate.context import Options, Plan, Result
from retrieval_detect.evaluate.protocols import PROTOCOLS, WEIGHTS
from retrieval_detect.evaluate.robustness import ROBUSTNESS
from tests.building import one_error
from tests.factories import write_set

ALL = ("eval", "set", "--protocol", "all", "--set", "seeds=1", "--n", "0,2", "--cache", "kept")
SKIPPED = {"incremental", "calibration", "quality"}


@pytest.fixture
def data(index, bare_folder):
    return write_set(bare_folder / "set", photographs=8, of_each_generator=6)


@pytest.fixture
def steps(monkeypatch):
    """Names of the steps that are done, in order; what is in ``fatal`` is interrupted."""
    done, fatal = [], set()

    def watched(name, step):
        def carry_out():
            if name in fatal:
                raise KeyboardInterrupt
            done.append(name)
            return step()

        return carry_out

    def planner(protocol, plan_of):
        def plan(context):
            found = plan_of(context)
            names = [(f"{protocol}/{name}", name, step) for name, step in found.steps]
            return Plan([(name, watched(full, step)) for full, name, step in names], found.finish)

        return plan

    monkeypatch.setattr(running, "PROTOCOLS", {name: planner(name, plan) for name, plan in PROTOCOLS.items()})
    done.append(fatal)
    return done


def test_everything_that_applies_is_measured_once_and_written(data, run_rd, embedded, contents, index):
    before = contents(index)
    result = run_rd(*ALL, "--out", "out")
    assert result.exit_code == 0, result.stderr
    out, measured = data.parent / "out", set(PROTOCOLS) - SKIPPED
    for name in SKIPPED:
        assert f"{name} is skipped: " in result.stderr
    assert {p.name for p in out.iterdir() if p.is_dir()} == measured | {"steps"}
    document = json.loads((out / "result.json").read_text())
    assert set(document["results"]) == measured
    assert {row["protocol"]: bool(row["reason"]) for row in document["skipped"]} == dict.fromkeys(
        SKIPPED, True
    )
    page = (out / "page.html").read_text()
    for name, own in document["results"].items():
        alone = json.loads((out / name / "result.json").read_text())
        assert alone == own and own["about"]["images"] == 20
        assert (out / name / "table.csv").stat().st_size and (out / name / "table.md").stat().st_size
        assert f'href="#{name}"' in page and page.count(f'<section id="{name}">') == 1
        assert f"<h2>{own['title']}</h2>" in page and own["title"] in result.stdout
    assert all(name in page for name in SKIPPED)
    assert "http" not in page and "<script" not in page
    # 64 pixels are less than any screenshot: those settings are JPEGs that were embedded already.
    shared = sum(
        "longest-1080" not in chain and "longest" in " ".join(chain) for chain in ROBUSTNESS.values()
    )
    assert sum(embedded) < 20 * (len(ROBUSTNESS) - shared) and shared == 2
    assert contents(index) == before
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_finished_steps_are_not_done_again(data, run_rd, steps):
    fatal = steps.pop(0)
    fatal.add("robustness/blur σ 2")
    assert run_rd(*ALL).exit_code == 130
    first = list(steps)
    assert first[-1] == "robustness/blur σ 1" and "generators/rd" in first
    fatal.clear()
    steps.clear()
    whole = run_rd(*ALL, "--json")
    assert whole.exit_code == 0
    assert steps[0] == "robustness/blur σ 2" and not set(steps) & set(first)
    steps.clear()
    again = run_rd(*ALL, "--json")
    assert again.stdout == whole.stdout  # columns in the same order too
    assert steps == ["calibration/calibration", "quality/quality"]  # these say again why they do not apply
    assert set(json.loads(again.stdout)["results"]) == set(PROTOCOLS) - SKIPPED


def test_one_table_holds_all_where_a_format_has_no_more(data, run_rd):
    lines = run_rd(*ALL, "--set", "at-most=2", "--format", "csv").stdout.splitlines()
    assert lines[0].startswith("protocol,") and len({line.count(",") for line in lines[:4]}) == 1
    assert {line.partition(",")[0] for line in lines[1:]} == set(PROTOCOLS) - SKIPPED


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--order", "sdxl,unheard-of"), "no generator 'unheard-of'"),
        (("--methods", "guess"), "no method 'guess'"),
        (("--per-category",), "no category has references of both labels"),
    ],
)
def test_what_was_asked_for_by_name_is_not_skipped(data, run_rd, args, complaint):
    assert complaint in one_error(run_rd(*ALL, *args), 2)


def test_published_numbers_stand_beside_the_table_they_belong_to(data, run_rd):
    (data / "real").rename(data / "0_real")
    (data / "fake" / "sdxl").rename(data / "1_fake")
    data.rename(data.parent / "progan")
    asked = [arg if arg != "set" else "." for arg in ALL]
    result = run_rd(*asked, "--layout", "ufd", "--compare", "ufd", "--set", "at-most=2", "--json")
    assert result.exit_code == 0, result.stderr
    results = json.loads(result.stdout)["results"]
    assert results["generators"]["compared"][0]["column"] == "progan"
    assert not any("compared" in own for name, own in results.items() if name != "generators")


def test_a_set_that_nothing_applies_to_is_refused(data, run_rd):
    for folder in (data / "fake").iterdir():
        for image in folder.iterdir():
            image.write_bytes(b"no image")
    result = run_rd(*ALL)
    assert "no fakes" in one_error(result, 2)


def test_every_protocol_has_a_weight():
    assert set(WEIGHTS) == set(PROTOCOLS) and min(WEIGHTS.values()) > 0


def test_the_bar_ends_where_it_should_and_kept_steps_come_first():
    class Rest:
        options = Options()
        key = "key"

    def refuse():
        raise UsageError("it does not apply")

    def finish(found):
        return Result("p", "P", ("n",), tuple(found.values()))

    good = Plan([(str(i), lambda i=i: {"n": i}) for i in range(3)], finish)
    late = Plan([("first", dict), ("second", refuse), ("third", dict)], finish)
    planned = running.Programme({"generators": good, "holdout": late}, {}, {"generators": 5, "holdout": 2})
    heard = []
    results, skipped = running.run_all(planned, Rest(), None, progress=heard.append)
    assert planned.work == sum(heard) == 21 and heard == [0, 5, 5, 5, 2, 4]
    assert list(results) == ["generators"] and skipped["holdout"].message == "it does not apply"


def test_kept_steps_are_told_of_at_once(tmp_path):
    plan = Plan([(str(i), lambda i=i: {"n": i}) for i in range(4)], lambda found: list(found))
    first = Plan(plan.steps[:3], plan.finish)
    running.run(first, tmp_path, "key")
    heard = []
    assert running.run(plan, tmp_path, "key", progress=heard.append) == ["0", "1", "2", "3"]
    assert heard == [3, 1]
