"""Images that share a search: each gets to the letter what it gets alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from retrieval_detect.ask.banks import Banks
from retrieval_detect.ask.detector import Detector
from retrieval_detect.types import METHODS, Failure
from retrieval_detect.verdicts import Question
from tests.factories import add, embedded, names, new_store

TIED = embedded("tied").vectors["proj"]
COPIED = embedded("copied")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Banks of more than are fetched at first, with references that tie and with near-duplicates."""
    store = new_store(tmp_path_factory.mktemp("together") / "index")
    add(store, names("f", 260), "fake", "gan")
    add(store, [embedded(f"tied {i}", vector=TIED) for i in range(8)], "fake", "flux")
    near = [embedded(f"copy {i}", vector=COPIED.vectors["proj"], phash=COPIED.phash) for i in range(40)]
    add(store, near, "fake", "flux")
    add(store, names("r", 280), "real", "camera")
    add(store, [embedded(f"tied photograph {i}", vector=TIED) for i in range(8)], "real", "phone")
    return store.folder


@pytest.fixture
def detector(folder):
    return Detector.load(folder)


@pytest.fixture
def mixed():
    """New images, a reference of each bank, one whose neighbours tie, one whose copies are references."""
    return [*names("new", 4), *names("f", 1), *names("r", 1), embedded("query", vector=TIED), COPIED]


@pytest.fixture
def searches(monkeypatch):
    asked, search = [], Banks.search_codes

    def counted(self, codes, k, *labels):
        asked.append(len(codes))
        return search(self, codes, k, *labels)

    monkeypatch.setattr(Banks, "search_codes", counted)
    return asked


def said(verdict):
    return replace(verdict, elapsed_s=0.0).to_dict()


def judged(detector, question, images):
    verdicts = detector.judge_all([[image] for image in images], question, started=[0.0] * len(images))
    return [said(verdict) for verdict in verdicts]


@pytest.mark.parametrize(("method", "k"), [*product(METHODS, [None]), ("density", 5), ("mean", 5)])
def test_each_gets_what_it_gets_alone(detector, mixed, method, k):
    question = detector.checked(Question(method=method, k=k))
    alone = [said(detector.judge(image, method=method, k=k)) for image in mixed]
    assert judged(detector, question, mixed) == alone
    assert judged(detector, question, mixed[::-1]) == alone[::-1]
    assert alone[4]["same_image"][0]["rank"] == 1 and len(alone[7]["same_image"]) == 40


def test_influence_too(detector, mixed):
    question = detector.checked(Question(influence=True))
    alone = [said(detector.judge(image, influence=True)) for image in mixed]
    assert judged(detector, question, mixed) == alone


def test_one_search_for_all_and_another_for_those_with_too_few_left(detector, mixed, searches):
    judged(detector, detector.checked(Question()), mixed)
    assert searches == [8, 1]  # all but 40 copies of the last are fewer than vote


def test_those_that_cannot_be_judged_cost_no_other_its_answer(detector, mixed):
    nothing = embedded("nothing", vector=np.zeros_like(TIED))
    broken = Failure("broken.jpg", "truncated", "it ends early")
    images = [[broken], *([image] for image in mixed), [nothing]]
    question = detector.checked(Question())
    first, *found, last = detector.judge_all(images, question, started=[0.0] * len(images))
    assert first == broken and last.reason == "bad-vector"
    assert [said(verdict) for verdict in found] == [said(detector.judge(image)) for image in mixed]
