"""An index of format 1, written once and kept: every later rd must read it and give the same answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.report.json import verdict_json
from retrieval_detect.store.store import Store
from retrieval_detect.store.verify import findings
from tests.factories import png

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def old_index(tmp_path):
    """A copy: derived files are written beside the store, and the original must stay as it is."""
    return Path(shutil.copytree(DATA / "index-v1", tmp_path / "index-v1"))


def test_it_is_whole(old_index):
    snapshot = Store(old_index).snapshot()
    assert list(findings(snapshot)) == []
    assert (snapshot.manifest.generation, snapshot.manifest.live_rows("fake")) == (3, 33)


def test_it_answers_as_it_did(old_index):
    verdict = Detector.load(old_index, encoder=TinyEncoder()).query(png(999, fake=True))
    answer = verdict_json(verdict)
    expected = json.loads((DATA / "index-v1.verdict.json").read_text())
    assert answer["provenance"]["claims"] == []  # it was not looked for then
    for told in (answer, expected):
        told.pop("provenance")
        told.pop("elapsed_s")
        told.pop("engine")
    assert answer["score"] == pytest.approx(expected.pop("score"), abs=1e-5)
    answer.pop("score")
    for side, similarity in answer.pop("nearest").items():
        assert similarity == pytest.approx(expected["nearest"][side], abs=1e-5)
    expected.pop("nearest")
    assert [e["row_id"] for e in answer.pop("evidence")] == [e["row_id"] for e in expected.pop("evidence")]
    assert [a["generator"] for a in answer.pop("attribution")] == [
        a["generator"] for a in expected.pop("attribution")
    ]
    later = set(answer) - set(expected)
    assert all(answer.pop(name) is None for name in later)  # what later versions say, this index cannot
    assert answer == expected


def test_it_can_be_taught(old_index):
    with Store(old_index).writer() as writer:
        manifest = writer.remove([0], reason="", detail={})
    assert manifest.generation == 4
    assert list(findings(Store(old_index).snapshot())) == []
