"""Heads with a text tower: gradients against the plain way, learning, files, draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval_detect.errors import EncoderMismatch, UsageError, VectorError
from retrieval_detect.heads.adapter import AdapterHead
from retrieval_detect.heads.caption import CaptionHead
from retrieval_detect.heads.prompt import PromptHead, Prompts
from retrieval_detect.heads.registry import read_head
from retrieval_detect.scoring.metrics import auc
from tests.text_towers import D, Spliced, references, saved, theirs, tower
from tests.towers import open_clip, torch

HEADS = [PromptHead, AdapterHead, CaptionHead]
F = torch.nn.functional


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("CRITICAL")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="module")
def text(folder):
    return tower(folder)


def quick(cls, **options):
    return cls(**{"epochs": 8, "lr": 0.02, "patience": 0, **options})


def scores(head, rows):
    return head.decision_function({"proj": rows.as_encoded("proj")})


def measured(head, rows):
    found = scores(head, rows)
    return auc(found[rows.fake], found[~rows.fake])


# ---------------------------------------------------------------- against the plain way


class PlainCoOp:
    """CoOp's own order of things, whole texts through ``encode_text``, no cached or truncated part."""

    def __init__(self, folder, names, n, family="clip"):
        self.model = theirs(saved(family, folder))
        tokenizer = open_clip.get_tokenizer(saved(family, folder))
        self.tokens = tokenizer([" ".join(["X"] * n) + f" {name}." for name in names])
        self.embedded = self.model.token_embedding(self.tokens).detach()
        self.lengths = [len(tokenizer.encode(name)) for name in names]
        self.n, self.model.token_embedding = n, Spliced()

    def loss(self, context, x, y):
        behind = 1 + self.n
        self.model.token_embedding.given = torch.stack(
            [
                torch.cat([words[:1], words[behind : behind + k], context, words[behind + k :]])
                for words, k in zip(self.embedded, self.lengths, strict=True)
            ]
        )
        features = self.model.encode_text(self.tokens, normalize=True)
        return F.cross_entropy(self.model.logit_scale.exp().detach() * x @ features.T, y)


@pytest.mark.parametrize("names", [["real", "fake"], ["real", "sd 1.5", "stable diffusion xl turbo"]])
def test_gradients_of_the_context_are_those_of_the_full_forward(names, folder, text):
    plain, prompts = PlainCoOp(folder, names, 16), Prompts(text, names, 16)
    draw = torch.Generator().manual_seed(3)
    context = (0.02 * torch.randn(16, text.width, generator=draw)).requires_grad_()
    x = F.normalize(torch.randn(96, D, generator=draw), dim=1)
    y = torch.randint(len(names), (96,), generator=draw)
    for batch in range(0, 96, 32):
        part = slice(batch, batch + 32)
        (whole,) = torch.autograd.grad(plain.loss(context, x[part], y[part]), context)
        ours = F.cross_entropy(text.logit_scale * x[part] @ prompts.features(context).T, y[part])
        (found,) = torch.autograd.grad(ours, context)
        assert whole.abs().max() > 1e-4
        assert (found - whole).abs().max() <= 1e-5 * max(1.0, float(whole.abs().max()))


def test_prompt_training_is_coops_step_by_step(folder, text):
    """The same batches, rates, momentum and decay, by hand, through the whole text tower."""
    rows = references(96)
    head = PromptHead(batch=32, epochs=2, lr=0.01, patience=0, context=4).fit(rows, text=text)

    draw = torch.Generator().manual_seed(0)
    context = (0.02 * torch.randn(4, text.width, generator=draw)).requires_grad_()
    plain = PlainCoOp(folder, ["real", "fake"], 4)
    optimizer = torch.optim.SGD([context], lr=0.01, momentum=0.9, weight_decay=5e-4)
    x, y = torch.tensor(rows.vectors["proj"]), torch.tensor(rows.fake.astype(np.int64))
    draw, losses = torch.Generator().manual_seed(0), []
    for epoch in range(2):
        order = torch.randperm(96, generator=draw)
        for step in range(3):
            rate = 0.01 / 200 if epoch == 0 else 0.01 * (1 + math.cos(math.pi * step / 3)) / 2
            optimizer.param_groups[0]["lr"] = rate
            part = order[32 * step : 32 * step + 32]
            optimizer.zero_grad()
            loss = plain.loss(context, x[part], y[part])
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    np.testing.assert_allclose(head.state()["context"], context.detach().numpy(), atol=2e-5)
    assert np.abs(head.state()["context"]).max() > 0.01
    np.testing.assert_allclose(head.facts()["losses"], np.reshape(losses, (2, 3)).mean(axis=1), rtol=1e-4)


def test_gradients_of_the_adapter_are_those_of_a_plain_network(folder, text):
    model = theirs(saved("clip", folder))
    tokens = open_clip.get_tokenizer(saved("clip", folder))(["a real photo.", "a fake photo."])
    rows = references(64)
    x, y = torch.tensor(rows.as_encoded("proj")), torch.tensor(rows.fake.astype(np.int64))
    ours = AdapterHead()._start(text, ["fake"])
    found = torch.autograd.grad(F.cross_entropy(ours.logits(x), y), ours.parameters)

    linear = [torch.nn.Linear(D, D // 2, bias=False), torch.nn.Linear(D // 2, D, bias=False)]
    for layer, parameter in zip(linear, ours.parameters, strict=True):
        layer.weight.data = parameter.detach().clone()
    network = torch.nn.Sequential(linear[0], torch.nn.ReLU(), linear[1], torch.nn.ReLU())
    mixed = F.normalize(0.4 * network(x) + 0.6 * x, dim=1)
    logits = model.logit_scale.exp() * mixed @ model.encode_text(tokens, normalize=True).T
    whole = torch.autograd.grad(F.cross_entropy(logits, y), list(network.parameters()))
    for a, b in zip(found, whole, strict=True):
        assert b.abs().max() > 1e-4
        assert (a - b).abs().max() <= 1e-5 * max(1.0, float(b.abs().max()))


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("cls", HEADS)
def test_the_loss_falls_and_unseen_rows_are_told_apart(cls, text):
    told = []
    head = quick(cls, epochs=60, lr=0.05).fit(references(200), text=text, progress=told.append)
    losses = head.facts()["losses"]
    assert losses[-1] < 0.8 * losses[0]
    assert measured(head, references(100, seed=1)) > 0.8
    assert len(told) == len(losses) == 60
    assert told[1] == f"epoch 2 of 60: loss {losses[1]:.4f}"


@pytest.mark.parametrize("cls", HEADS)
def test_a_head_read_from_its_files_gives_the_same_scores(cls, text):
    head = quick(cls, seed=5).fit(references(), text=text)
    again = read_head(head.to_files(encoder="abc"))
    other = references(40, seed=2)
    assert type(again) is cls
    np.testing.assert_array_equal(scores(again, other), scores(head, other))
    assert again.facts() == head.facts()
    assert again.to_files(encoder="abc") == head.to_files(encoder="abc")
    assert scores(head, other).dtype == np.float64


@pytest.mark.parametrize("cls", HEADS)
def test_the_seed_decides_everything(cls, text):
    files = [quick(cls, seed=seed, epochs=2).fit(references(), text=text).to_files() for seed in (1, 1, 2)]
    assert files[0] == files[1]
    assert files[0]["safetensors"] != files[2]["safetensors"]


@pytest.mark.parametrize("cls", HEADS)
def test_training_stops_where_the_rows_set_aside_say(cls, text):
    rows = references(120, names=("a", "b", "c"), reals=("p", "q", "r"))
    head = quick(cls, epochs=30, patience=2, lr=0.1).fit(rows, text=text)
    aside = head.facts()["trial"]["held_out"]
    best = 1 + int(np.argmin(aside[1:]))  # the warm-up's epoch does not count
    assert len(head.facts()["losses"]) == best + 1
    assert len(aside) == min(best + 3, 30)
    assert len(head.facts()["trial"]["losses"]) == len(aside)


def test_a_held_out_generator_has_no_caption_in_the_trial(text, monkeypatch):
    started = []
    start = CaptionHead._start
    monkeypatch.setattr(
        CaptionHead,
        "_start",
        lambda self, text, classes: (started.append(classes), start(self, text, classes))[1],
    )
    head = quick(CaptionHead, patience=1).fit(references(120, names=("a", "b", "c")), text=text)
    assert [len(classes) for classes in started] == [2, 3]
    assert head.generators == started[1] == ["a", "b", "c"]


def test_large_batches_make_few_steps_and_small_sets_are_still_cut(text):
    head = PromptHead()
    assert [head._steps(n) for n in (100_000, 4096, 200, 20)] == [25, 8, 7, 1]
    assert PromptHead(batch=32)._steps(100_000) == 3125
    assert head._rate(0.5, 32) == pytest.approx(1e-5)
    assert head._rate(1, 64) == pytest.approx(0.004)
    assert head._rate(1, 4096) == pytest.approx(0.064)
    assert head._rate(50, 4096) == pytest.approx(0)
    assert PromptHead(epochs=20, warmup=20)._rate(19.9, 32) == pytest.approx(1e-5)


# ---------------------------------------------------------------- few shots


def test_shots_are_so_many_of_each_class_and_no_two_of_a_group(text):
    rows = references(120)
    rows.groups[:] = np.arange(120) // 4  # four neighbours, two of either label, are one group
    drawn = rows.take(PromptHead(shots=9)._drawn(rows))
    assert (int(drawn.fake.sum()), len(drawn)) == (9, 18)
    for label in (False, True):
        assert len(np.unique(drawn.groups[drawn.fake == label])) == 9
    captions = rows.take(CaptionHead(shots=9)._drawn(rows))
    assert [int((captions.names[captions.fake] == name).sum()) for name in ("flux", "sd_1.5")] == [9, 9]
    assert len(captions) == 27
    assert len(PromptHead(shots=99)._drawn(rows)) == 60
    one, two = (PromptHead(shots=9, seed=seed)._drawn(rows) for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_few_shots_train_on_them_alone_for_all_epochs(text):
    rows = references(120)
    head = quick(PromptHead, shots=5, patience=3).fit(rows, text=text)
    drawn = rows.take(head._drawn(rows))
    assert (head.facts()["rows"], head.facts()["trial"]) == (10, {})
    assert len(head.facts()["losses"]) == 8
    alone = quick(PromptHead).fit(drawn, text=text)
    np.testing.assert_array_equal(scores(head, rows), scores(alone, rows))


# ---------------------------------------------------------------- captions


def test_captions_detect_and_attribute(text):
    rows, other = references(300), references(120, seed=4)
    head = quick(CaptionHead, epochs=80, lr=0.05).fit(rows, text=text)
    vectors = {"proj": other.as_encoded("proj")}
    names, shares = head.attribution(vectors)
    assert names == ["flux", "sd_1.5"]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    right = np.array(names)[shares.argmax(axis=1)] == other.names
    assert right[other.fake].mean() > 0.85
    logits = head.logits(vectors)
    expected = np.log(np.exp(logits[:, 1:]).sum(axis=1)) - logits[:, 0]
    np.testing.assert_allclose(head.decision_function(vectors), expected, rtol=1e-9)


def test_a_generator_with_one_image_and_fakes_without_a_name_are_captions(text):
    rows = references(60)
    rows.names[rows.fake] = ["rare", *[""] * 29]
    head = quick(CaptionHead, patience=2).fit(rows, text=text)
    assert head.generators == ["", "rare"]
    assert head.state()["text"].shape == (3, D)


@pytest.mark.parametrize("names", [("a_b", "a b"), ("Real", "other"), ("", "fake")])
def test_names_that_read_the_same_are_refused(names, text):
    with pytest.raises(UsageError, match="read the same"):
        quick(CaptionHead).fit(references(names=names), text=text)


def test_a_name_that_does_not_fit_is_refused(text):
    with pytest.raises(UsageError, match="do not fit into 40 tokens") as caught:
        quick(CaptionHead).fit(references(names=("very " * 25, "b")), text=text)
    assert "context=" in caught.value.hint
    with pytest.raises(UsageError, match="'real' and its context"):
        quick(PromptHead, context=64).fit(references(), text=text)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("cls", HEADS)
def test_what_cannot_teach_is_refused_and_leaves_the_head_as_it_was(cls, text):
    head = quick(cls)
    rows = references()
    with pytest.raises(UsageError, match="was not fitted"):
        scores(head, rows)
    for label in (False, True):
        with pytest.raises(UsageError, match="references to train on"):
            head.fit(rows.take(rows.fake == label), text=text)
    with pytest.raises(UsageError, match="without the encoder's text tower"):
        head.fit(rows)
    with pytest.raises(EncoderMismatch, match="gives 32 dimensions, layer proj has 16"):
        head.fit(references(d=16), text=text)
    head.fit(rows, text=text)
    before = head.to_files()
    head.lr = 1e30
    with pytest.raises(UsageError, match="loss is not finite after epoch"):
        head.fit(rows, text=text)
    head.lr = 0.02
    assert head.to_files() == before
    with pytest.raises(VectorError, match="of 32 dimensions"):
        scores(head, references(d=16))
    with pytest.raises(VectorError, match="layer 'proj'"):
        head.decision_function({"pre": rows.as_encoded("proj")})


@pytest.mark.parametrize("cls", HEADS)
def test_foreign_arrays_are_no_head(cls, text):
    head = quick(cls, epochs=1).fit(references(), text=text)
    for name, array in head.state().items():
        with pytest.raises(KeyError):
            cls().restore({key: value for key, value in head.state().items() if key != name})
        with pytest.raises(ValueError, match=r"is |finite"):
            cls().restore(head.state() | {name: array[..., None, None]})
        with pytest.raises(ValueError, match="finite"):
            cls().restore(head.state() | {name: array * np.nan})


def test_texts_and_classes_must_agree(text):
    head = quick(CaptionHead, epochs=1).fit(references(), text=text)
    with pytest.raises(ValueError, match="another number of texts"):
        head.restore_facts({"classes": ["one"]})
