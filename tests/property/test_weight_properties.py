"""Generators weigh alike, and neither many images, views, batches, contributors nor look-alikes do more."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.scoring.weights import PRIOR_IMAGES, reference_weights
from tests.strategies import QUICK


@st.composite
def references(draw):
    """Names, content ids and what else rows may have in common; every image has one name."""
    n = draw(st.integers(1, 40))
    content = np.array(draw(st.lists(st.integers(0, 30), min_size=n, max_size=n)))
    name_of = np.array(draw(st.lists(st.integers(0, 5), min_size=31, max_size=31)))
    batches = np.array(draw(st.lists(st.sampled_from(["", "b1", "b2"]), min_size=n, max_size=n)))
    groups = np.array(draw(st.lists(st.integers(0, 12), min_size=31, max_size=31)))[content]
    contributors = np.array(draw(st.lists(st.sampled_from(["", "ann", "bob"]), min_size=n, max_size=n)))
    return name_of[content], content, {"groups": groups, "batches": batches, "contributors": contributors}


def totals(keys, content, weights):
    """Weight of each key, every image counted once."""
    images = defaultdict(dict)
    for key, image, weight in zip(keys, content, weights, strict=True):
        images[key][image] = weight
    return {key: sum(weight.values()) for key, weight in images.items()}


def shares_by_hand(names, content):
    sizes = {name: len(set(content[names == name])) for name in set(names)}
    whole = sum(n / (n + PRIOR_IMAGES) for n in sizes.values())
    return {name: n / (n + PRIOR_IMAGES) / whole for name, n in sizes.items()}


@QUICK
@given(rows=references())
def test_without_caps_a_name_weighs_its_share(rows):
    names, content, _ = rows
    weights = np.exp(reference_weights(names, content))
    assert totals(names, content, weights) == pytest.approx(shares_by_hand(names, content))


@QUICK
@given(rows=references())
def test_no_batch_contributor_or_group_outweighs_the_largest_share(rows):
    names, content, clusters = rows
    weights = np.exp(reference_weights(names, content, **clusters))
    largest = max(shares_by_hand(names, content).values())
    for keys in clusters.values():
        named = keys != keys.dtype.type() if keys.dtype.kind == "U" else keys >= 0
        for total in totals(keys[named], content[named], weights[named]).values():
            assert total <= largest * (1 + 1e-9)
    uncapped = np.exp(reference_weights(names, content))
    assert (weights <= uncapped * (1 + 1e-9)).all()
    assert (weights > 0).all()


@QUICK
@given(rows=references(), data=st.data())
def test_views_of_an_image_weigh_what_it_weighs_and_order_does_not_count(rows, data):
    names, content, clusters = rows
    alone = reference_weights(names, content, **clusters)
    again = np.array(data.draw(st.lists(st.integers(0, len(names) - 1), max_size=20)), dtype=int)
    order = np.concatenate([np.arange(len(names)), again])[::-1]
    reordered = {kind: keys[order] for kind, keys in clusters.items()}
    more = reference_weights(names[order], content[order], **reordered)
    np.testing.assert_allclose(more, alone[order], atol=1e-9)


@QUICK
@given(n=st.integers(2, 300), others=st.integers(1, 5))
def test_a_flood_under_one_name_weighs_no_more_than_one_share(n, others):
    names = ["flood"] * n + [f"g{i}" for i in range(others) for _ in range(50)]
    weights = np.exp(reference_weights(names, np.arange(len(names))))
    assert weights[:n].sum() <= (n / (n + 5)) / (n / (n + 5) + others * 50 / 55) + 1e-9


@QUICK
@given(rows=references(), more=st.integers(1, 60))
def test_one_generator_more_lowers_every_older_reference_alike(rows, more):
    """What it has no part in keeps its order: only a threshold that stays where it was sees a change."""
    names, content, _ = rows
    before = reference_weights(names, content)
    after = reference_weights(np.r_[names, np.full(more, 99)], np.r_[content, 100 + np.arange(more)])
    fall = before - after[: len(names)]
    held = sum(n / (n + PRIOR_IMAGES) for n in np.unique(names[_firsts(content)], return_counts=True)[1])
    assert fall == pytest.approx(np.log1p(more / (more + PRIOR_IMAGES) / held))


def _firsts(content):
    return np.unique(content, return_index=True)[1]


@pytest.mark.parametrize("kind", ["batches", "contributors"])
def test_one_contributor_under_many_names_weighs_one_share(kind):
    names = [f"made-up-{i}" for i in range(100)] + ["sdxl"] * 50
    free = np.exp(reference_weights(names, np.arange(150)))
    capped = np.exp(reference_weights(names, np.arange(150), **{kind: ["poison"] * 100 + [""] * 50}))
    assert free[:100].sum() > 0.9
    assert capped[:100].sum() == pytest.approx(capped[100:].sum())


def test_content_ids_may_be_bytes_and_the_unnamed_are_one_generator():
    content = [b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00"]
    weights = np.exp(reference_weights(["", "", "", "sd"], content))
    assert weights[0] == weights[1] == weights[2]
    assert weights[0] * 2 == pytest.approx(2 / 7 / (2 / 7 + 1 / 6))
    assert reference_weights([], []).shape == (0,)
