"""Linear heads, the SVM and the registry: the right optimum, the published rule, clear refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from retrieval_detect.errors import UsageError
from retrieval_detect.heads import linear
from retrieval_detect.heads.linear import LinearHead, balanced_weights
from retrieval_detect.heads.registry import head_class, read_head
from retrieval_detect.heads.svm import SvmHead
from tests.heads import encoded, training_set, unit


@pytest.fixture(scope="module")
def rows():
    return training_set(dims={"proj": 24, "pre": 16})


# ---------------------------------------------------------------- logistic regression


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("c", [0.1, 10.0])
def test_lbfgs_finds_scikit_learns_optimum(rows, c, balanced):
    head = LinearHead(c=c, balanced=balanced).fit(rows)
    x = StandardScaler().fit_transform(rows.vectors["proj"].astype(np.float64))
    weights = balanced_weights(rows) if balanced else None
    other = LogisticRegression(C=c, tol=1e-10, max_iter=10_000, solver="newton-cholesky")
    expected = other.fit(x, rows.fake, sample_weight=weights).decision_function(x)
    assert head.decision_function(encoded(rows)) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_lbfgs_on_vectors_as_the_network_gave_them(rows):
    head = LinearHead(normalise=False, balanced=False, c=0.5).fit(rows)
    x = rows.as_encoded("proj").astype(np.float64)
    other = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000, solver="newton-cholesky").fit(x, rows.fake)
    assert head.weight == pytest.approx(other.coef_[0], abs=1e-3)
    assert head.bias == pytest.approx(other.intercept_, abs=1e-3)


def test_the_score_is_one_weighted_sum(rows):
    head = LinearHead().fit(rows)
    x = encoded(rows)["proj"]
    assert head.decision_function({"proj": x}) == pytest.approx(
        unit(x.astype(np.float64)) @ head.weight + head.bias, abs=1e-5
    )


def test_a_coordinate_that_never_changes_is_without_harm(rows):
    constant = rows.vectors["proj"].copy()
    constant[:, 3] = 0.0
    head = LinearHead().fit(replace(rows, vectors={"proj": constant}))
    assert np.isfinite(head.weight).all() and head.weight[3] == 0


def test_balanced_weights_make_labels_and_generators_count_alike():
    rows = training_set(dims={"proj": 8}, names={"big": (True, 90), "small": (True, 10), "s": (False, 20)})
    weights = balanced_weights(rows)
    assert weights.sum() == pytest.approx(len(rows))
    assert weights[rows.fake].sum() == pytest.approx(weights[~rows.fake].sum())
    shares = weights[rows.names == "big"].sum(), weights[rows.names == "small"].sum()
    assert shares[0] / shares[1] == pytest.approx((90 / 95) / (10 / 15))


def test_views_of_one_image_divide_its_weight():
    rows = training_set(dims={"proj": 8}, names={"a": (True, 10), "b": (True, 10), "s": (False, 10)})
    views = np.concatenate([np.arange(len(rows)), np.zeros(40, np.int64)])
    weights = balanced_weights(rows.take(views))
    of_first = weights[views == 0].sum()
    assert of_first == pytest.approx(weights[1]) and weights[0] < weights[1]


# ---------------------------------------------------------------- UniversalFakeDetect's training


def test_adamw_makes_the_published_steps(monkeypatch):
    """Two epochs of two batches, by hand, from the same start."""
    import torch

    monkeypatch.setattr(linear, "FEWEST_STEPS", 2)
    rows = training_set(dims={"proj": 8}, names={"a": (True, 200), "s": (False, 200)})
    x, fake = rows.as_encoded("proj"), rows.fake.astype(np.float64)
    found = linear._epochs(
        torch.from_numpy(x), torch.from_numpy(rows.fake).float(), linear._Schedule(), seed=4
    )
    draw = torch.Generator().manual_seed(4)
    w = (0.02 * torch.randn(1, 8, generator=draw)).numpy()[0].astype(np.float64)
    b = float(torch.empty(1).uniform_(-(8**-0.5), 8**-0.5, generator=draw))
    parameters, moment, square, step = np.r_[w, b], np.zeros(9), np.zeros(9), 0
    for _ in range(2):
        for batch in torch.randperm(400, generator=draw).split(256):
            inputs = np.column_stack([x[batch], np.ones(len(batch))]).astype(np.float64)
            chance = 1 / (1 + np.exp(-inputs @ parameters))
            gradient = (chance - fake[batch.numpy()]) @ inputs / len(batch)
            moment, square, step = (
                0.9 * moment + 0.1 * gradient,
                0.999 * square + 0.001 * gradient**2,
                step + 1,
            )
            parameters -= 1e-4 * (moment / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        _, layer = next(found)
        assert layer.weight.detach().numpy()[0] == pytest.approx(parameters[:8], abs=1e-6)
        assert layer.bias.item() == pytest.approx(parameters[8], abs=1e-6)


def test_an_epoch_of_few_images_has_steps_enough_to_learn_by(monkeypatch):
    import torch

    steps = []
    monkeypatch.setattr(linear, "descend", lambda *_: steps.append(1) or 0.5)
    next(linear._epochs(torch.zeros(10, 4), torch.zeros(10), linear._Schedule(), seed=0))
    assert len(steps) == linear.FEWEST_STEPS


def test_accuracy_is_that_of_the_best_threshold():
    assert linear._best_accuracy(np.array([5.0, 7.0, 6.0, 9.0]), np.array([False, True, False, True])) == 1
    assert linear._best_accuracy(np.array([3.0, 1.0, 2.0]), np.array([True, True, False])) == 2 / 3
    assert linear._best_accuracy(np.array([2.0, 1.0]), np.array([False, True])) == 1 / 2


def test_the_rate_falls_when_accuracy_stands_still_and_training_ends_below_a_millionth():
    schedule, rates = linear._Schedule(), []
    while not schedule.over:
        rates.append(schedule.rate)
        schedule.tell(0.9)
    assert rates == pytest.approx([1e-4] * 6 + [1e-5] * 6 + [1e-6] * 6)


def test_small_gains_do_not_count():
    schedule = linear._Schedule()
    for accuracy in (0.5, 0.6, 0.6005, 0.6009, 0.6, 0.6, 0.6):
        schedule.tell(accuracy)
    assert schedule.rate == pytest.approx(1e-5)


def test_adamw_keeps_the_best_epoch_and_tells_of_each(rows):
    told: list[str] = []
    head = LinearHead(optimizer="adamw").fit(rows, progress=told.append)
    facts = head.facts()
    assert (
        len(told) == facts["epochs"] <= 100
        and f"accuracy {facts['accuracy']:.4f}" in told[facts["epoch"] - 1]
    )
    assert 0 < facts["stopping_rows"] < len(rows)


def test_adamw_reads_lengths_and_lbfgs_does_not(rows):
    longer = {layer: 2 * x for layer, x in encoded(rows).items()}
    for optimizer, equal in (("lbfgs", True), ("adamw", False)):
        head = LinearHead(optimizer=optimizer).fit(rows)
        scores = head.decision_function(encoded(rows))
        assert np.allclose(scores, head.decision_function(longer), atol=1e-4) == equal


def test_too_few_rows_to_set_aside_still_train():
    rows = training_set(dims={"proj": 8}, names={"a": (True, 2), "s": (False, 2)})
    rows = replace(rows, groups=np.array([0, 0, 1, 1]))
    assert LinearHead(optimizer="adamw").fit(rows).facts()["stopping_rows"] == 4


def test_only_the_quick_optimum_is_refitted_in_passing():
    assert LinearHead().cheap and not LinearHead(optimizer="adamw").cheap


def test_an_unknown_optimizer(rows):
    with pytest.raises(UsageError, match="sgd"):
        LinearHead(optimizer="sgd").fit(rows)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw"])
def test_a_refused_fit_leaves_a_head_as_it_was(rows, optimizer):
    head = LinearHead(optimizer=optimizer).fit(rows)
    before = head.to_files()
    with pytest.raises(UsageError):
        head.fit(rows.take(rows.fake))
    assert head.to_files() == before


@pytest.mark.parametrize("head", [LinearHead(layer="block01"), SvmHead(layer="block01")])
def test_a_layer_that_is_not_there(rows, head):
    with pytest.raises(UsageError, match="block01"):
        head.fit(rows)


# ---------------------------------------------------------------- SVM


def test_the_svm_is_scikit_learns_on_unit_vectors(rows):
    head = SvmHead(c=2.0).fit(rows)
    x = unit(rows.as_encoded("pre"))
    other = LinearSVC(C=2.0, class_weight="balanced", tol=1e-6, max_iter=100_000).fit(x, rows.fake)
    assert head.decision_function(encoded(rows)) == pytest.approx(other.decision_function(x), abs=2e-2)


def test_ten_images_a_class_are_enough_and_nine_are_not():
    few = {"a": (True, 10), "s": (False, 10)}
    assert SvmHead().fit(training_set(dims={"pre": 8}, names=few)).facts()["rows"] == 20
    fewer = {"a": (True, 9), "s": (False, 10)}
    with pytest.raises(UsageError, match="9 fake references"):
        SvmHead().fit(training_set(dims={"pre": 8}, names=fewer))


def test_shots_are_drawn_by_the_seed(rows):
    one, again, other = (SvmHead(shots=12, seed=seed).fit(rows) for seed in (1, 1, 2))
    assert one.facts()["rows"] == 24
    assert np.array_equal(one.weight, again.weight) and not np.array_equal(one.weight, other.weight)
    with pytest.raises(UsageError, match="61 of each"):
        SvmHead(shots=61).fit(rows)


# ---------------------------------------------------------------- registry


def test_an_unknown_kind_names_the_likely_one():
    with pytest.raises(UsageError, match="liner") as error:
        head_class("liner")
    assert error.value.hint == "Did you mean 'linear'?"
    with pytest.raises(UsageError) as error:
        head_class("forest")
    assert "prototype" in error.value.hint


@pytest.mark.parametrize("document", [{}, {"kind": "forest"}, {"kind": "svm"}, {"kind": 3}, []])
def test_a_foreign_document_is_refused(document):
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_head({"json": json.dumps(document).encode(), "safetensors": b""})


def test_arrays_of_another_shape_are_refused(rows):
    head = LinearHead().fit(rows)
    for bad in ({"weight": np.ones((2, 2)), "bias": np.ones(1)}, {"weight": np.ones(3), "bias": np.ones(2)}):
        with pytest.raises(ValueError, match="do not fit together"):
            head.restore(bad)
