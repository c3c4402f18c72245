"""The benchmark of photographs laid beside an image: who is drawn, who is asked, and its tables."""

from __future__ import annotations

import pytest

from bench._data import Embeddings, Sample
from bench.accuracy.sources import NUMBERS, _Case, tables
from retrieval_detect.types import Facts
from tests.factories import embedded


@pytest.fixture
def case(tmp_path):
    names = [("real", "shoes"), ("real", "coco"), ("fake", "midjourney_shoes"), ("fake", "dalle_mini")]
    samples = [
        Sample(
            tmp_path / f"{name}-{i}.jpg",
            Facts("real", source=name) if label == "real" else Facts("fake", name),
            i,
            embedded(f"{name}-{i}"),
        )
        for label, name in names
        for i in range(100)
    ]
    return _Case(Embeddings(None, ("proj",), samples), "shoes", "dalle_mini")


def test_what_is_asked_about_is_never_laid_beside_or_known(case):
    asked = {image.content_id for images in case.asked.values() for image in images}
    drawn = [s.embedded.content_id for s in case.drawn(30, 0)]
    known = [s.embedded.content_id for s in case.references()]
    assert len(set(drawn)) == 30 and not asked & {*drawn, *known} and not {*drawn} & {*known}
    assert case.drawn(30, 0) == case.drawn(30, 0) != case.drawn(30, 1)
    assert case.drawn(5, 0) == case.drawn(30, 0)[:5]  # more photographs are the same and others


def test_fakes_of_the_same_subject_are_those_of_its_kind(case):
    assert case.same_subject == ["midjourney_shoes"] and len(case.asked["same subject"]) == 20
    assert "dalle_mini" not in {s.name for s in case.references(without="dalle_mini")}


def test_tables_give_shares_by_number_and_their_mean():
    rows = [
        {
            "source": source,
            "unknown": "dalle_mini",
            "n": n,
            "beside": {"scenes": n, "photographs": share, "known": 0.9, "unknown": 0.5},
            "added": {"photographs": share / 2, "known": 0.9},
            "regression": {"photographs": 0.3, "known": 0.8},
        }
        for source, share in (("shoes", 0.8), ("coco", 0.2))
        for n in NUMBERS
    ]
    head = {"machine": {"cpu": "x", "cores": 2}, "date": "2026-12-01", "commit": "abc", "rate": 0.05}
    text = tables({**head, "draws": 3, "encoders": [{"encoder": "clip-vit-b16", "rows": rows}]})
    assert "| shoes | laid beside | 80 % |" in text and "| mean | laid beside | 50 % |" in text
    assert "| mean | added | 25 % |" in text and "| mean | a new generator | 50 % |" in text
    assert "of the same subject" not in text.split("**What that costs")[1].split("\n\n")[1]
