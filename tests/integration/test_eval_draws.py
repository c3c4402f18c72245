"""Protocols that draw references by chance state intervals of both chances, in whatever they write."""

from __future__ import annotations

import csv
import io

import pytest

from retrieval_detect.evaluate.context import Context, Options
from retrieval_detect.evaluate.datasets import EVERY, Dataset, Sample
from retrieval_detect.report.page import result_page
from retrieval_detect.report.tables import result_csv, result_markdown
from retrieval_detect.types import ImageItem
from retrieval_detect.verdicts import Question
from tests.factories import add, new_store
from tests.integration.test_eval import PHOTOGRAPHS, PLAIN, Planted, result
from tests.kinds import kind

FEW, WEAK = 6, 1.0
"""References of a category; the pull of images that lie near neither axis, so that some are taken wrongly."""


def half_hidden(prefix, n):
    """Fakes of which half lie near nothing."""
    return kind(prefix, n // 2, axis=PLAIN) + kind(f"hidden-{prefix}", n // 2, axis=PLAIN, pull=WEAK)


@pytest.fixture
def made(tmp_path):
    def make(**options):
        store = new_store(tmp_path / "index")
        odd = kind("bank-odd", 40, axis=PHOTOGRAPHS, pull=WEAK)
        add(store, kind("bank-camera", 90, axis=PHOTOGRAPHS) + odd, "real", "camera")
        add(store, kind("bank-phone", FEW, axis=PHOTOGRAPHS), "real", "phone", category="a")
        add(store, kind("bank-plain", FEW, axis=PLAIN), "fake", "plain", category="a")
        add(store, kind("bank-other", 60, axis=PLAIN, pull=3.0), "fake", "other")
        images = {
            ("real", "camera"): kind("ask-camera", 40, axis=PHOTOGRAPHS),
            ("real", "phone"): kind("ask-phone", 20, axis=PHOTOGRAPHS, pull=WEAK),
            ("fake", "plain"): half_hidden("ask-plain", 60),
            ("fake", "other"): half_hidden("ask-other", 60),
        }
        samples, embedded = [], []
        for (label, name), own in images.items():
            column = EVERY if label == "real" else name
            samples += [Sample(ImageItem(i.item.uri, bytes), label, name, column) for i in own]
            embedded += own
        ids = [image.content_id for image in embedded]
        items = {identity: s.item for identity, s in zip(ids, samples, strict=True)}
        (work := tmp_path / "work").mkdir()
        return Context(
            *(store.snapshot(), Question(), Dataset("planted", tuple(samples), ("plain", "other"))),
            *(Planted(embedded), items, ids, ("proj",), Options(resamples=60, **options), work),
        )

    return make


def written(found):
    """What a row of the CSV file has, by its names."""
    text = result_csv(found)
    rows = list(csv.DictReader(io.StringIO(text)))
    page, markdown = result_page(found, {}), result_markdown(found, {})
    assert ">auroc low<" in page and "| auroc low | auroc high |" in markdown
    assert found.columns.index("auroc_low") == found.columns.index("auroc") + 1
    return rows


def inside(row, name):
    return row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]


def test_few_references_of_a_generator(made):
    found = result(made(numbers=(0, 5), seeds=2, fpr=0.1), "few-shot")
    for row in found.rows:
        assert inside(row, "auroc") and inside(row, "recall"), row
        assert row["recall_high"] - row["recall_low"] < 1
    by = {(row["generator"], row["method"], row["n"]): row for row in found.rows}
    unknown = by["plain", "rd", 0]
    assert unknown["auroc_low"] < unknown["auroc"] < unknown["auroc_high"]
    assert unknown["recall_low"] < unknown["recall"] < unknown["recall_high"]  # one draw: of images alone
    mean, parts = by["mean", "rd", 0], [by[name, "rd", 0] for name in ("plain", "other")]
    widths = [row["auroc_high"] - row["auroc_low"] for row in (mean, *parts)]
    assert 0 < widths[0] < max(widths[1:])
    assert "over the photographs set aside as well" in " ".join(found.lines)
    sources = {
        (row["generator"], row["method"], row["n"]): row["real"] for row in found.detail["auroc_by_source"]
    }
    assert sources["plain", "rd", 0].keys() == {"camera", "phone"}
    assert written(found)[0]["recall_low"] and "redrawn" not in found.columns


def test_too_few_set_aside_for_recall_leave_the_other_interval(made):
    found = result(made(numbers=(0,), seeds=1, fpr=0.001), "few-shot")
    assert all(row["recall"] is row["recall_low"] is row["recall_high"] is None for row in found.rows)
    assert all(inside(row, "auroc") for row in found.rows)
    assert any("No recall is stated" in line for line in found.lines)


def test_few_references_of_a_category(made):
    found = result(made(numbers=(2, 5), seeds=3, per_category=True), "few-shot")
    assert {row["generator"] for row in found.rows} == {"plain", "other", "mean"}
    assert all(inside(row, "auroc") and inside(row, "acc_fixed") for row in found.rows)
    assert any(row["auroc_low"] < row["auroc"] < row["auroc_high"] for row in found.rows)
    assert {row["generator"] for row in found.detail["auroc_by_source"]} == {"plain", "other"}
    assert written(found)[0]["acc_fixed_high"]


def test_sizes_of_banks(made):
    found = result(made(numbers=(5, 20), seeds=3), "bank-size")
    assert [(row["n"], row["draws"]) for row in found.rows] == [(5, 3), (20, 3), (66, 1)]
    assert all(inside(row, "auroc") for row in found.rows)
    widths = [row["auroc_high"] - row["auroc_low"] for row in found.rows]
    assert widths[0] > widths[2] > 0  # one draw of all there is, and no chance of another
    assert {row["n"] for row in found.detail["auroc_by_source"]} == {5, 20, 66}
    assert len(written(found)) == 3
