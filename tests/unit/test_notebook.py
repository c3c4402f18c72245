"""A verdict in a notebook: all of it in one frame, whose text is text and in which nothing runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

import retrieval_detect
from retrieval_detect.images.content_id import content_id
from retrieval_detect.report.html import strings as t
from tests.factories import png
from tests.html_views import FULL, HOSTILE, STABILITY, reference
from tests.unit.test_html_report import Elements
from tests.verdicts import CALIBRATED, VERDICT


@pytest.fixture(autouse=True)
def as_imported():
    assert retrieval_detect.Detector is not None  # asking for it is what tells verdicts


def shown(verdict) -> tuple[dict[str, str | None], Elements]:
    """The frame's attributes, and the page inside."""
    ((tag, frame),) = Elements(verdict._repr_html_()).found
    assert tag == "iframe"
    return frame, Elements(frame["srcdoc"])


@pytest.mark.parametrize("verdict", [VERDICT, CALIBRATED, FULL, replace(FULL, stability=STABILITY)])
def test_the_frame_says_what_may_be_concluded_and_shows_both_banks(verdict):
    frame, page = shown(verdict)
    assert "sandbox" in frame and not page.tags("script") and not page.tags("link")
    assert t.REFERENCES_REAL in page.text and t.REFERENCES_FAKE in page.text and t.VERDICT in page.text
    assert "sdxl" in page.text and "camera" in page.text and t.GONE in page.text
    if verdict.calibration:
        assert "of 1,250 calibration photographs" in page.text and "of 6 sources left out" in page.text


def test_pictures_are_of_files_that_are_what_they_were(here):
    for name, seed in (("asked.png", 1), ("kept.png", 2), ("changed.png", 3)):
        (here / name).write_bytes(png(seed))
    known = {name: content_id((here / name).read_bytes()).hex() for name in ("asked.png", "kept.png")}
    fakes = tuple(
        reference(n, name, content_id=known.get(name, "ab" * 32))
        for n, name in enumerate(("kept.png", "changed.png"))
    )
    verdict = replace(
        VERDICT, input="asked.png", sha256=known["asked.png"], by_bank={"fake": fakes, "real": ()}
    )
    _, page = shown(verdict)
    assert [image["class"] for image in page.tags("img")] == ["query", "thumb"]
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.tags("img"))
    assert t.CHANGED in page.text and "64 × 64 pixels" in page.text


def test_hostile_names_stay_text():
    verdict = replace(FULL, input=HOSTILE, by_bank={"fake": (reference(1, HOSTILE),), "real": ()})
    _, page = shown(verdict)
    assert verdict._repr_html_().count("<") == 2 and page.text.count(HOSTILE) == 2
    assert not page.tags("script") and not page.tags("img")


def test_what_is_printed_is_one_line():
    assert repr(VERDICT) == (
        "<photo.jpg: unknown (uncalibrated), score +1.74, nearest fake 0.912, nearest real 0.800>"
    )
    assert "among photographs of known sources" in repr(CALIBRATED)
    assert repr(VERDICT.evidence) == (
        "(<fake reference of sdxl, similarity 0.912: fake/sdxl/17.png>, "
        "<real reference of camera, similarity 0.800: real/7.jpg>)"
    )
