"""What every registered kind of head must do, whatever its method."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.heads.base import Head
from retrieval_detect.heads.registry import KINDS, head_class, read_head
from tests.heads import encoded, training_set
from tests.towers import TEXT, VIT

D = 32
"""Dimension of ``proj``, as of the text tower below."""


def on_labels(head, rows, text):
    return head.fit(rows, text=text)


def on_opinions(head, rows, text):
    """People like fakes, say: so what is learnt has a sign that can be tested."""
    return head.fit_scores(rows, np.where(rows.fake, 1.0, -1.0), text=text)


@dataclass(frozen=True)
class Case:
    """How a kind is tested: with these options, on layers of these widths, trained this way.

    ``split_at_zero`` : whether so little training already puts the two labels on two sides of zero.
    """

    options: dict[str, Any] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=lambda: {"proj": D})
    train: Callable[..., Head] = on_labels
    split_at_zero: bool = True


CASES: dict[str, list[Case]] = {
    "linear": [Case(), Case({"normalise": False, "balanced": False}), Case({"optimizer": "adamw"})],
    "svm": [Case(dims={"pre": 48}), Case({"layer": "proj", "shots": 12})],
    "prototype": [Case(), Case({"family": "vmf"})],
    "ensemble": [Case({"rule": rule}, {"a": 1, "b": 1}) for rule in ("logit-mean", "soft-or", "weights")],
    "layers": [Case({"width": 16, "epochs": 40, "lr": 0.01, "dropout": 0.0}, {"block01": 16, "block02": 24})],
    "quality": [Case({"context": 2, "epochs": 10}, train=on_opinions)],
    "adapter": [Case({"lr": 0.05, "patience": 0})],
    "prompt": [Case({"lr": 0.2, "patience": 0})],
    "caption": [Case({"lr": 0.2, "patience": 0}, split_at_zero=False)],
}
PARAMETERS = [
    pytest.param(kind, case, id="-".join([kind, *(str(value) for value in case.options.values())]))
    for kind, cases in CASES.items()
    for case in cases
]


@pytest.fixture(scope="module")
def text():
    """A text tower of random weights, whose 60 words are told apart by a checksum."""
    import open_clip
    import torch

    from retrieval_detect.encoders.text import TextTower

    torch.manual_seed(3)
    text_config = open_clip.CLIPTextCfg(**{**TEXT, "context_length": 77})
    model = open_clip.CLIP(D, open_clip.CLIPVisionCfg(**VIT), text_config)

    def tokenizer(texts, context_length=77):
        ids = torch.zeros(len(texts), context_length, dtype=torch.int64)
        for row, words in zip(ids, texts, strict=True):
            found = [1, *(2 + zlib.crc32(word.encode()) % 60 for word in words.split()), 63]
            row[: len(found)] = torch.tensor(found)
        return ids

    return TextTower("made-up", model, tokenizer)


@pytest.fixture(scope="module")
def trained(text):
    """Heads that were trained in this process already, by kind and case: they are not to be changed."""
    kept: dict[int, Head] = {}

    def get(kind, case):
        if id(case) not in kept:
            kept[id(case)] = fresh(kind, case, text)
        return kept[id(case)]

    return get


def fresh(kind, case, text, rows=None):
    rows = training_set(dims=case.dims, apart=2.0) if rows is None else rows
    return case.train(head_class(kind)(**case.options), rows, text)


def test_every_registered_kind_is_tested():
    assert set(CASES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_called_what_it_is(kind):
    assert head_class(kind).kind == kind


@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_it_finds_fakes_and_says_so_with_a_positive_sign(kind, case, trained):
    rows = training_set(dims=case.dims, apart=2.0)
    scores = trained(kind, case).decision_function(encoded(rows))
    assert scores.shape == (len(rows),) and scores.dtype == np.float64
    above = scores[rows.fake][:, None] > scores[~rows.fake][None, :]
    assert above.mean() > 0.9
    if case.split_at_zero:
        assert scores[rows.fake].mean() > 0 > scores[~rows.fake].mean()


@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_files_give_the_same_scores_to_the_bit(kind, case, trained):
    head, asked = trained(kind, case), encoded(training_set(dims=case.dims, seed=5))
    files = head.to_files(fingerprint="f")
    read = read_head(files)
    assert type(read) is type(head) and read.layers == head.layers
    assert json.loads(files["json"])["about"] == {"fingerprint": "f"}
    np.testing.assert_array_equal(read.decision_function(asked), head.decision_function(asked))
    assert read.to_files(fingerprint="f") == files


@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_the_same_seed_gives_the_same_scores(kind, case, trained, text):
    asked = encoded(training_set(dims=case.dims, seed=5))
    again = fresh(kind, case, text)
    np.testing.assert_array_equal(
        again.decision_function(asked), trained(kind, case).decision_function(asked)
    )


@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_a_row_is_scored_alone(kind, case, trained):
    head, asked = trained(kind, case), encoded(training_set(dims=case.dims, seed=5))
    one = {layer: x[3:4] for layer, x in asked.items()}
    assert head.decision_function(one)[0] == pytest.approx(
        head.decision_function(asked)[3], rel=1e-4, abs=1e-5
    )


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_one_class_is_refused(kind, case, label, text):
    rows = training_set(dims=case.dims)
    with pytest.raises(UsageError):
        fresh(kind, case, text, rows.take(rows.fake == label))


@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_equal_vectors_are_refused(kind, case, text):
    rows = training_set(dims=case.dims)
    equal = {layer: np.repeat(x[:1], len(x), axis=0) for layer, x in rows.vectors.items()}
    even = {layer: np.ones_like(norms) for layer, norms in rows.norms.items()}
    with pytest.raises(UsageError):
        fresh(kind, case, text, replace(rows, vectors=equal, norms=even))


@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_a_vector_that_is_not_finite_is_refused_in_training(kind, case, text):
    rows = training_set(dims=case.dims)
    next(iter(rows.vectors.values()))[4, 0] = np.nan
    with pytest.raises(VectorError):
        fresh(kind, case, text, rows)


@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_what_cannot_be_scored_is_refused(kind, case, trained):
    head, asked = trained(kind, case), encoded(training_set(dims=case.dims))
    layer = (head.layers or head.members)[0]
    hole = asked[layer].copy()
    hole[0, 0] = np.nan
    for bad in ({}, asked | {layer: np.ones((2, 7), np.float32)}, asked | {layer: hole}):
        with pytest.raises(VectorError):
            head.decision_function(bad)


@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_an_untrained_head_says_so(kind, case):
    with pytest.raises(UsageError):
        head_class(kind)(**case.options).decision_function(encoded(training_set(dims=case.dims)))


@pytest.mark.parametrize(("kind", "case"), PARAMETERS)
def test_foreign_files_are_refused(kind, case, trained):
    files = trained(kind, case).to_files()
    document = json.loads(files["json"])
    foreign = [
        files | {"json": json.dumps(document | {"version": 99}).encode()},
        files | {"safetensors": b"no such file"},
        {"json": files["json"]},
    ]
    for bad in foreign:
        with pytest.raises((KeyError, TypeError, ValueError)):
            read_head(bad)
