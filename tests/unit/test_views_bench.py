"""The benchmark of views: who is asked, what counts as turned, what its tables say of aims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench._data import FOLD, Listed
from bench.accuracy.views import (
    ALONE,
    ASKED,
    BESIDE,
    CHAINS,
    OURS,
    REFERENCES,
    TRIVIAL,
    VIEWS,
    WHITENED,
    Outcome,
    chosen,
    interval,
    tables,
)
from retrieval_detect.images.chains import parse_chain
from retrieval_detect.images.laundering import draw_view
from retrieval_detect.types import Facts

FAKE = np.array([True, True, False, False])
CLEAN = ["fake-like", "uncertain", "real-like", "unknown"]
TURNED = ["real-like", "fake-like", "uncertain", "unknown"]


def outcome(*verdicts, scores=((3, 1, 0, 2), (0, 1, 2, 3))):
    return Outcome(np.array(scores, float), np.array(verdicts), FAKE)


def test_the_chains_are_chains_and_none_is_a_view_that_is_stored():
    assert len(CHAINS) == 36 == len(set(CHAINS.values()))
    for chain in CHAINS.values():
        assert parse_chain("+".join(chain)) == chain
    kinds = {step.partition("-")[0] for chain in CHAINS.values() for step in chain}
    assert kinds == {"jpeg", "webp", "avif", "resize", "inset", "blur", "noise", "screenshot"}
    assert {draw_view(view, 256, 256, seed=1).partition("-")[0] for view in VIEWS} <= kinds


def test_references_and_images_asked_about_are_spread_over_folders_and_apart():
    images = [
        Listed(folder / f"{i}", Facts(label, **{key: name}), i)
        for label, key, names in (("real", "source", "abcdef"), ("fake", "generator", "vwxyz"))
        for name in names
        for folder in [Path(label, name)]
        for i in range(300 if name == "a" else 90)
    ]
    known, asked = chosen(images)
    assert [sum(s.fake == label for s in asked) for label in (False, True)] == [ASKED, ASKED]
    assert all(s.held for s in asked) and not any(s.held for s in known)
    own = [s.place for s in known if s.name == "a"]
    assert len(own) == REFERENCES and max(own) > 290
    assert sum(s.name == "b" for s in known) == 90 * (FOLD - 1) // FOLD


def test_only_a_decided_verdict_can_turn_into_its_opposite():
    found = outcome(CLEAN, TURNED)
    assert found.decided.tolist() == [True, False, True, False]
    assert found.turned.tolist() == [[True, False, False, False]]
    everyone = np.ones(4)
    assert found.share_turned(everyone) == 1 / 2
    assert (found.turned_of(True), found.turned_of(False)) == (1.0, 0.0)
    assert found.share_changed(everyone) == 3 / 4
    assert found.called_fake(True) == (0.5, 0.5) and found.called_fake(False) == (0.0, 0.0)


def test_auroc_is_of_the_images_as_they_are_and_of_the_mean_over_chains():
    found = outcome(CLEAN, TURNED, CLEAN, scores=((3, 1, 0, 2), (0, 1, 2, 3), (2, 2, 2, 1)))
    assert found.auroc_after().tolist() == [0.0, 0.75]
    assert found.aurocs(np.ones(4)).tolist() == [0.75, 0.375]
    # The first fake alone: it is above both photographs, then below both, then level with one.
    assert found.aurocs(np.array([2.0, 0.0, 1.0, 1.0])).tolist() == [1.0, 0.375]


def test_an_interval_holds_the_figure_and_redraws_within_labels():
    value, low, high = interval(lambda w: float(w[0] / w[FAKE].sum()), FAKE)
    assert value == 0.5 and (low, high) == (0.0, 1.0)
    assert interval(lambda w: float(w[FAKE].sum()), FAKE) == (2, 2, 2)


@pytest.mark.parametrize(
    ("after", "said"), [(CLEAN, "reached (0.0 %)"), (TURNED, "**not reached** (50.0 %)")]
)
def test_tables_say_whether_aims_are_reached(after, said):
    judged = [
        {"stored": stored, "by": by, "scores": [[3, 1, 0, 2]] * 2, "verdicts": [CLEAN, verdicts]}
        for stored, verdicts in ((ALONE, after), (BESIDE, CLEAN))
        for by in (OURS, f"{TRIVIAL}, proj", WHITENED)
    ]
    one = {
        "encoder": "tiny",
        "fake": FAKE.tolist(),
        "names": list("abcd"),
        "chains": {"JPEG 80": "jpeg-80"},
        "references": {"real": 5, "fake": 6},
        "judged": judged,
    }
    head = {"date": "2026-01-01", "git_commit": None, "machine": {"cpu": "c", "cores": 2}, "command": "x"}
    text = tables({**head, "encoders": [one]})
    assert f"References as they are: at most 2 % turned is {said}" in text
    assert "References with views: at most 2 % turned is reached (0.0 %)" in text
    assert "Mean AUROC over chains: the 1 of these kinds alone 0.750, with views 0.750." in text
    assert "| JPEG 80 (`jpeg-80`) | 0.750 | 0.750 |" in text
