"""CLIP-AGIQA on made-up vectors and a text tower of a dozen numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.heads.quality import CATEGORIES, QualityHead, regress
from retrieval_detect.vectors import Rows

torch = pytest.importorskip("torch")

D, WIDTH, LENGTH, END = 8, 6, 24, 63


class Tower:
    """Words → vectors, a causal running mean, a projection: all that prompts need."""

    d, width, context_length, logit_scale = D, WIDTH, LENGTH, 100.0

    def __init__(self, d=D, length=LENGTH):
        draw = torch.Generator().manual_seed(0)
        self.d, self.context_length = d, length
        self._table = torch.randn(64, WIDTH, generator=draw)
        self._positions = torch.randn(length, WIDTH, generator=draw) * 0.3
        self._matrix = torch.randn(WIDTH, d, generator=draw)

    def tokens(self, texts):
        ids = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for i, text in enumerate(texts):
            ids[i, :4] = torch.tensor([1, 2 + sum(map(ord, text)) % 50, 60, END])
        return ids

    def ends(self, tokens):
        return tokens.argmax(1)

    def embed(self, tokens):
        return self._table[tokens]

    def features(self, embedded, eot):
        assert embedded.shape[1:] == (self.context_length, WIDTH)
        x = torch.tanh((embedded + self._positions).cumsum(1))
        return x[torch.arange(len(x)), eot] @ self._matrix


def rows(n=120, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D)).astype(np.float32)
    norms = np.linalg.norm(x, axis=1)
    unit = x / norms[:, None]
    names = np.array([f"g{i % 5}" for i in range(n)])
    data = Rows.of(
        vectors={"proj": unit},
        norms={"proj": norms},
        fake=np.ones(n, bool),
        names=names,
        row_ids=np.arange(n),
    )
    return data, (scale * (50 + 20 * unit[:, 0])).astype(np.float32)


def head(**options):
    return QualityHead(**{"epochs": 25, "lr": 0.02, "dropout": 0.1, **options})


def test_it_learns_quality_of_unseen_images_on_the_scale_it_was_given():
    told = []
    data, scores = rows(300)
    model = head().fit_scores(data, scores, text=Tower(), progress=told.append)
    facts = model.facts()
    assert facts["losses"][-1] < 0.3 * facts["losses"][0]
    assert facts["srcc"] > 0.9
    assert facts["n_held_out"] == 60
    assert len(told) == 25
    fresh, true = rows(100, seed=5)
    predicted = model.decision_function({"proj": fresh.as_encoded("proj")})
    assert predicted.dtype == np.float64
    assert np.abs(predicted - true).mean() < 0.3 * np.abs(true - true.mean()).mean()


def test_the_scale_of_the_scores_does_not_matter():
    (data, scores), (_, large) = rows(), rows(scale=1000)
    small, big = (head(epochs=4).fit_scores(data, s, text=Tower()) for s in (scores, large))
    x = {"proj": data.as_encoded("proj")}
    np.testing.assert_allclose(1000 * small.decision_function(x), big.decision_function(x), rtol=1e-3)


def test_gradients_equal_those_of_a_plain_implementation():
    """Prompts word by word, features side by side, against autograd of the head."""
    tower, model = Tower(), head(context=3)
    torch.manual_seed(2)
    prompts, parameters = model._prompts(tower), model._new(tower)
    x = torch.nn.functional.normalize(torch.randn(5, D))
    targets = torch.randn(5)
    loss = (
        (regress(parameters, x, prompts.features(parameters["context"]), dropout=0.0) - targets) ** 2
    ).mean()
    loss.backward()

    p = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    texts = []
    for category in CATEGORIES:
        words = tower.embed(tower.tokens([f"{category}."]))[0]
        prompt = [words[0], *p["context"], *words[1 : LENGTH - 3]]
        feature = tower.features(torch.stack(prompt)[None], torch.tensor([3 + 3]))[0]
        texts.append(feature / feature.norm())
    error = 0.0
    for image, target in zip(x, targets, strict=True):
        hidden = torch.clamp(p["hidden.weight"] @ torch.cat([image, *texts]) + p["hidden.bias"], min=0)
        error = error + (p["last.weight"] @ hidden + p["last.bias"] - target)[0] ** 2 / 5
    error.backward()
    assert loss.item() == pytest.approx(error.item(), rel=1e-5)
    for name, value in parameters.items():
        assert value.grad.abs().max() > 0, name
        np.testing.assert_allclose(value.grad, p[name].grad, rtol=1e-3, atol=1e-6, err_msg=name)


def test_saved_and_loaded_heads_give_equal_outputs_without_a_text_tower():
    data, scores = rows(60)
    model = head(epochs=2).fit_scores(data, scores, text=Tower())
    loaded = QualityHead.from_files(model.to_files())
    x = {"proj": data.as_encoded("proj")}
    np.testing.assert_array_equal(loaded.decision_function(x), model.decision_function(x))
    assert loaded.facts() == model.facts()
    with pytest.raises(ValueError, match="do not fit"):
        loaded.restore({**model.state(), "text": np.zeros((5, D), np.float32)})


def test_few_groups_train_without_held_out_rows():
    data, scores = rows(12)
    one = replace(data, names=np.full(12, "g"), groups=np.zeros(12, np.int64))
    facts = head(epochs=2).fit_scores(one, scores, text=Tower()).facts()
    assert (facts["n_held_out"], facts["srcc"], facts["epoch"]) == (0, None, 2)


def test_bad_calls_are_refused():
    data, scores = rows(20)
    with pytest.raises(UsageError, match="scores, not on labels") as caught:
        head().fit(data, text=Tower())
    assert "--scores FILE" in caught.value.hint
    with pytest.raises(UsageError, match="20 finite scores"):
        head().fit_scores(data, scores[:5], text=Tower())
    with pytest.raises(UsageError, match="20 finite scores"):
        head().fit_scores(data, np.full(20, np.nan, np.float32), text=Tower())
    with pytest.raises(UsageError, match="1 different values"):
        head().fit_scores(data, np.ones(20, np.float32), text=Tower())
    with pytest.raises(UsageError, match="text tower"):
        head().fit_scores(data, scores, text=None)
    with pytest.raises(UsageError, match="text tower"):
        head().fit_scores(data, scores, text=Tower(d=5))
    with pytest.raises(UsageError, match="do not fit into a text of 8 tokens"):
        head().fit_scores(data, scores, text=Tower(length=8))
    with pytest.raises(UsageError, match="not fitted"):
        head().decision_function({"proj": data.as_encoded("proj")})
    with pytest.raises(VectorError, match="dimensions"):
        head(epochs=1).fit_scores(data, scores, text=Tower()).decision_function({"proj": np.ones((2, 3))})
