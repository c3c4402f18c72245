"""``rd eval``: what is printed and written; the index is only read."""

from __future__ import annotations

import csv
import json

import pytest

from retrieval_detect.cli.commands.eval import LAYOUTS, PROTOCOLS
from retrieval_detect.evaluate import datasets, protocols
from tests.building import one_error
from tests.factories import write_set


@pytest.fixture
def data(index, bare_folder):
    """A set to measure on; its broken image cannot be used."""
    return write_set(bare_folder / "set", photographs=12, of_each_generator=10)


def test_help_offers_every_protocol_and_layout():
    assert set(PROTOCOLS) == set(protocols.PROTOCOLS)
    assert LAYOUTS == datasets.NAMES


def test_a_table_is_printed_and_written(data, run_rd, contents, index):
    before = contents(index)
    result = run_rd("eval", "set", "--out", "out", "--cache", "kept")
    assert result.exit_code == 0, result.stderr
    assert "By generator" in result.stdout and "sdxl" in result.stdout and "mean" in result.stdout
    assert "Trivial pixel statistics" in result.stderr
    document = json.loads((data.parent / "out" / "result.json").read_text())
    assert document["about"]["encoder"] == "tiny" and document["about"]["images"] == 32
    with (data.parent / "out" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["column"] for row in rows] == ["flux", "sdxl", "mean"]
    assert (data.parent / "out" / "table.md").read_text().startswith("## By generator")
    page = (data.parent / "out" / "page.html").read_text()
    assert page.count("<svg") == 2 and "ROC" in page and f"rd ({float(rows[-1]['auroc']):.3f})" in page
    assert contents(index) == before


def test_curves_are_drawn_without_any_other_file(data, run_rd):
    """Names come from folders, and folders from anybody."""
    (data / "fake" / "flux").rename(data / "fake" / "<b>flux")
    result = run_rd("eval", "set", "--protocol", "few-shot", "--n", "0,1", "--set", "seeds=1", "--out", "out")
    assert result.exit_code == 0, result.stderr
    page = (data.parent / "out" / "page.html").read_text()
    assert page.count("<svg") == page.count("</svg>") >= 2
    assert "&lt;b&gt;flux" in page and "<b>" not in page
    assert "http" not in page and "<script" not in page


def test_json_and_csv_hold_the_rows(data, run_rd):
    as_json = run_rd("eval", "set", "--json")
    assert [row["column"] for row in json.loads(as_json.stdout)["rows"]] == ["flux", "sdxl", "mean"]
    as_csv = run_rd("eval", "set", "--format", "csv")
    assert as_csv.stdout.splitlines()[0].startswith("column,real,fake,auroc")


def test_nothing_is_embedded_twice(data, run_rd, embedded):
    run_rd("eval", "set", "--cache", "kept")
    first = sum(embedded)
    result = run_rd("eval", "set", "--cache", "kept", "--protocol", "attribution")
    assert result.exit_code == 0, result.stderr
    assert sum(embedded) == first == 32


def test_unified_images_are_embedded_anew(data, run_rd, embedded):
    for more in ((), ("--unified",)):
        result = run_rd("eval", "set", "--protocol", "attribution", "--cache", "kept", "--json", *more)
        assert json.loads(result.stdout)["about"]["unified"] is bool(more)
    assert sum(embedded) == 64
    assert len(list((data.parent / "kept").rglob("side-256+jpeg-96/*.parquet"))) == 1


def test_what_cannot_be_used_is_said_and_left_out(data, run_rd):
    (data / "fake" / "flux" / "broken.png").write_bytes(b"no image")
    result = run_rd("eval", "set", "--json")
    assert result.exit_code == 3
    assert "broken.png" in result.stderr
    assert json.loads(result.stdout)["about"]["failures"] == 1


@pytest.mark.parametrize("protocol", ["generators", "calibration", "all"])
def test_an_image_under_both_labels_is_named_and_nothing_measured(data, run_rd, embedded, protocol):
    fake = next((data / "fake" / "flux").iterdir())
    (data / "real" / "camera" / "copy.png").write_bytes(fake.read_bytes())
    complaint = one_error(run_rd("eval", "set", "--protocol", protocol), 1)
    assert "1 image has both labels, nothing was measured" in complaint
    assert "copy.png (real)" in complaint and f"{fake.name} (fake)" in complaint
    assert not embedded


def test_an_image_that_is_stored_under_the_other_label_is_named(data, run_rd, embedded):
    photograph = data.parent / "photos" / "camera" / "0003.png"
    (data / "fake" / "flux" / "copy.png").write_bytes(photograph.read_bytes())
    complaint = one_error(run_rd("eval", "set"), 1)
    assert "copy.png (fake) and a stored reference (real)" in complaint
    assert not embedded


def test_an_image_that_is_listed_again_counts_once(data, run_rd):
    """Under one generator, under another, and among the photographs."""
    before = json.loads(run_rd("eval", "set", "--json", "--cache", "kept").stdout)["rows"]
    for copied, to in (("fake/flux", "fake/flux"), ("fake/flux", "fake/sdxl"), ("real/camera", "real/phone")):
        (data / to).mkdir(exist_ok=True)
        (data / to / "zz-copy.png").write_bytes(min((data / copied).iterdir()).read_bytes())
    result = run_rd("eval", "set", "--json", "--cache", "kept")
    assert "3 listings of images that were listed before" in result.stderr
    assert json.loads(result.stdout)["rows"] == before


def test_a_published_set_counts_what_it_lists(data, run_rd):
    data.rename(data.parent / "progan")
    folder = data.parent / "progan"
    (folder / "real").rename(folder / "0_real")
    (folder / "fake" / "sdxl").rename(folder / "1_fake")
    (folder / "1_fake" / "zz-copy.png").write_bytes(min((folder / "1_fake").iterdir()).read_bytes())
    result = run_rd("eval", ".", "--layout", "ufd", "--json")
    assert json.loads(result.stdout)["rows"][0]["fake"] == 21


def test_missing_sets_are_listed_and_published_numbers_shown(data, run_rd):
    (data / "real").rename(data / "0_real")
    (data / "fake" / "sdxl").rename(data / "1_fake")
    data.rename(data.parent / "progan")
    result = run_rd("eval", ".", "--layout", "ufd", "--compare", "ufd", "--json")
    assert result.exit_code == 0, result.stderr
    absent = "19 parts of ufd are not there: cyclegan, biggan, …; numbers are of the rest"
    assert absent in result.stderr
    document = json.loads(result.stdout)
    assert document["about"]["missing"][:2] == ["cyclegan", "biggan"]
    row = document["compared"][0]
    assert row["column"] == "progan" and row["NN k=9"] == 99.54
    assert row["majority:9 less NN k=9"] == pytest.approx(row["majority:9 (ours)"] - 99.54, abs=0.01)


def test_people_read_methods_and_papers_under_one_another(data, run_rd):
    (data / "real").rename(data / "0_real")
    (data / "fake" / "sdxl").rename(data / "1_fake")
    data.rename(data.parent / "progan")
    result = run_rd("eval", ".", "--layout", "ufd", "--compare", "ufd,differences", "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert max(map(len, (result.stdout + result.stderr).splitlines())) <= 100
    rows = {line.split("  ")[0]: line.split()[-1] for line in result.stdout.splitlines() if line}
    assert rows["rd"] and "majority:9" in rows and rows["NN k=9"] == "90.14"  # of AP the mean alone is stated
    assert "Ours less the published, in points of acc" in result.stdout
    assert "| NN k=9 | published | 84.250 | 99.540 |" in (data.parent / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--protocol", "calibration"), "set aside"),
        (("--protocol", "incremental"), "--order"),
        (("--protocol", "quality"), "no quality head"),
        (("--protocol", "few-shot", "--n", "some"), "whole numbers"),
        (("--protocol", "robustness", "--compare", "ufd"), "generators"),
        (("--methods", "guess"), "no method 'guess'"),
        (("--per-category",), "few-shot"),
        (("--protocol", "few-shot", "--per-category"), "no category has references of both labels"),
    ],
)
def test_what_cannot_be_measured_is_said(data, run_rd, args, complaint):
    result = run_rd("eval", "set", *args)
    assert complaint in one_error(result, 2)
