"""RINE on made-up layers: its gradients, its learning, its files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.heads.layers import LayersHead, contrastive
from retrieval_detect.scoring.metrics import auc
from retrieval_detect.vectors import Rows

torch = pytest.importorskip("torch")

WIDTHS = {"block01": 12, "block02": 20, "proj": 8}
TOLD_BY = "block02"


def rows(n=240, *, seed=0, told_by=TOLD_BY, fakes=0.5):
    """Vectors of three layers, one of which tells fakes from photographs; four names a label."""
    rng = np.random.default_rng(seed)
    fake = np.arange(n) < fakes * n
    vectors = {layer: rng.normal(size=(n, d)).astype(np.float32) for layer, d in WIDTHS.items()}
    if told_by:
        vectors[told_by][fake, :4] += 2.5
    norms = {layer: np.linalg.norm(x, axis=1) for layer, x in vectors.items()}
    units = {layer: x / norms[layer][:, None] for layer, x in vectors.items()}
    names = np.array([f"name{i % 4}" for i in range(n)])
    return Rows.of(vectors=units, norms=norms, fake=fake, names=names, row_ids=np.arange(n))


def raw(data):
    return {layer: data.as_encoded(layer) for layer in data.vectors}


def head(**options):
    return LayersHead(**{"width": 16, "epochs": 12, "batch": 32, "dropout": 0.2, **options})


def plain_forward(p, layers, depth):
    """The published network, one image and one layer at a time, without dropout."""
    scores, zs = [], []
    for image in zip(*layers, strict=True):
        mapped = []
        for i, x in enumerate(image):
            h = (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + 1e-5)
            h = torch.clamp(p[f"first{i}.weight"] @ h + p[f"first{i}.bias"], min=0)
            for number in range(1, depth):
                h = torch.clamp(p[f"each{number}.weight"] @ h + p[f"each{number}.bias"], min=0)
            mapped.append(h)
        weights = torch.exp(p["importance"])
        z = sum(w / weights.sum(0) * h for w, h in zip(weights, mapped, strict=True))
        for number in range(depth):
            z = torch.clamp(p[f"joint{number}.weight"] @ z + p[f"joint{number}.bias"], min=0)
        h = z
        for number in range(2):
            h = torch.clamp(p[f"head{number}.weight"] @ h + p[f"head{number}.bias"], min=0)
        scores.append((p["head2.weight"] @ h + p["head2.bias"])[0])
        zs.append(z)
    return scores, zs


def plain_loss(p, layers, fake, xi, depth):
    scores, zs = plain_forward(p, layers, depth)
    n_fake = sum(fake)
    entropy = contrast = 0.0
    for i, score in enumerate(scores):
        share = n_fake / len(fake) if fake[i] else 1 - n_fake / len(fake)
        chance = torch.sigmoid(score if fake[i] else -score)
        entropy = entropy - torch.log(chance) / (2 * share)
        unit = [z / z.norm() for z in zs]
        others = [j for j in range(len(zs)) if j != i]
        near = {j: torch.exp(unit[i] @ unit[j] / 0.07) for j in others}
        alike = [j for j in others if fake[j] == fake[i]]
        for j in alike:
            contrast = contrast - torch.log(near[j] / sum(near.values())) / len(alike) / len(fake)
    return entropy + xi * contrast


def test_gradients_equal_those_of_a_plain_implementation():
    data = rows(10, seed=3)
    model = head(xi=0.3, depth=2, width=6, dropout=0.0)
    torch.manual_seed(1)
    inputs = [torch.from_numpy(data.as_encoded(layer)) for layer in data.vectors]
    ours = model._new(inputs)
    theirs = {name: value.detach().double().requires_grad_() for name, value in ours.items()}
    fake = torch.from_numpy(data.fake)
    share = fake.float().mean()
    weights = torch.where(fake, 1 / (2 * share), 1 / (2 * (1 - share)))
    loss = model._loss(ours, inputs, fake, weights)
    expected = plain_loss(theirs, [x.double() for x in inputs], data.fake.tolist(), 0.3, 2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    expected.backward()
    for name, value in ours.items():
        assert theirs[name].grad.abs().max() > 0, name
        np.testing.assert_allclose(value.grad, theirs[name].grad, rtol=1e-3, atol=2e-4, err_msg=name)


def test_an_image_alone_of_its_label_is_no_nan():
    z = torch.nn.functional.normalize(torch.eye(3)).requires_grad_()
    loss = contrastive(z, torch.tensor([True, False, False]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_it_learns_and_the_informative_layer_gains_importance():
    told = []
    model = head(lr=5e-3, epochs=25).fit(rows(), progress=told.append)
    losses = model.facts()["losses"]
    assert losses[-1] < 0.5 * losses[0]
    assert len(told) == len(losses)
    fresh = rows(seed=9)
    scores = model.decision_function(raw(fresh))
    assert (
        auc(scores[fresh.fake], scores[~fresh.fake]) > 0.95
    )  # where scores split is for a calibration to say
    shares = model.importance()
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.get) == TOLD_BY


def test_saved_and_loaded_heads_give_equal_outputs_and_seeds_decide():
    data = rows(80)
    before = torch.random.get_rng_state()
    model, again, other = (head(epochs=3, seed=seed).fit(data) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    scores = model.decision_function(raw(data))
    np.testing.assert_array_equal(scores, again.decision_function(raw(data)))
    assert np.abs(scores - other.decision_function(raw(data))).max() > 1e-3
    loaded = LayersHead.from_files(model.to_files(encoder="x"))
    assert loaded.layers == tuple(WIDTHS)
    np.testing.assert_array_equal(loaded.decision_function(raw(data)), scores)
    assert loaded.to_files(encoder="x") == model.to_files(encoder="x")


def test_it_stops_early_and_keeps_the_best_epoch():
    model = head(epochs=60, patience=2, lr=2e-2).fit(rows(120, told_by=None))
    facts = model.facts()
    assert facts["epochs_run"] < 60
    assert facts["epoch"] == int(np.argmin(facts["held_out"])) + 1 == facts["epochs_run"] - 2


def test_layers_are_chosen_by_name():
    data = rows(40)
    model = head(layers_read="block02, proj", epochs=1)
    assert model.layers == ("block02", "proj")
    model.fit(data)
    assert set(model.importance()) == {"block02", "proj"}
    with pytest.raises(UsageError, match="'block09'"):
        head(layers_read="block09").fit(data)


def test_too_few_names_to_hold_out_still_train():
    data = rows(8)
    alone = replace(data, groups=np.where(data.fake, 0, 1))
    model = head(epochs=2).fit(alone)
    assert model.facts()["epochs_run"] == 2
    assert np.isfinite(model.decision_function(raw(alone))).all()


def test_bad_rows_are_refused():
    with pytest.raises(UsageError, match="no fake references"):
        head().fit(rows(20, fakes=0.0))
    data = rows(20)
    data.vectors["proj"][3, 2] = np.nan
    with pytest.raises(VectorError, match="not finite"):
        head().fit(data)
    with pytest.raises(UsageError, match="diverged"):
        head(lr=1e30, epochs=5).fit(rows(60))
    with pytest.raises(UsageError, match="not fitted"):
        head().decision_function(raw(rows(4)))


def test_queries_of_another_encoder_are_refused():
    model = head(epochs=1).fit(rows(40))
    vectors = raw(rows(4))
    with pytest.raises(VectorError, match="12 dimensions, not 8"):
        model.decision_function({**vectors, "block01": vectors["proj"]})
    with pytest.raises(VectorError, match="'block02'"):
        model.decision_function({"block01": vectors["block01"]})
    with pytest.raises(ValueError, match="do not fit"):
        model.restore({**model.state(), "head2.weight": np.zeros((1, 3), np.float32)})
