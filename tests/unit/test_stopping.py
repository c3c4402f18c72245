"""Rows set aside to stop training by never share an image, a near-duplicate or, mostly, a generator."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.heads.stopping import split_for_stopping
from tests.fitting import made_up, names_of, rows_of
from tests.strategies import QUICK


def split(rows, seed=0, **how):
    fit, stop = split_for_stopping(rows, seed=seed, **how)
    assert fit.dtype == stop.dtype == bool and not (fit & stop).any()
    return fit, stop


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from("abcdst"), st.integers(0, 12)), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_no_group_is_on_both_sides(drawn, seed):
    """Groups may hold several generators, and even both labels: near-duplicates care for neither."""
    names = np.array([("s" if letter in "st" else "g") + letter for letter, _ in drawn])
    rows = rows_of({"proj": np.ones((len(names), 3))}, names, groups=[group for _, group in drawn])
    fit, stop = split(rows, seed)
    assert not np.intersect1d(rows.groups[fit], rows.groups[stop]).size
    for fake in (False, True):
        if len(np.unique(names[rows.fake == fake])) > 1:
            assert not np.intersect1d(rows.names[fit & (rows.fake == fake)], names[stop]).size


def test_planted_copies_are_on_neither_side():
    """The same image under a generator that stops and under one that trains would tell the answer."""
    names = names_of(generators=4, sources=4, each=10)
    vectors = {"proj": np.random.default_rng(0).normal(size=(len(names), 4))}
    _, stop = split(rows_of(vectors, names))
    there, here = int(np.flatnonzero(stop)[0]), int(np.flatnonzero(~stop)[0])
    groups = np.arange(len(names))
    groups[there] = groups[here]
    fit, stop = split(rows_of(vectors, names, groups=groups))
    assert not (fit | stop)[[here, there]].any() and (fit | stop).sum() == len(names) - 2


def test_whole_generators_and_sources_stop():
    rows = made_up(generators=5, sources=5, each=10)
    fit, stop = split(rows)
    assert not set(rows.names[fit]) & set(rows.names[stop])
    assert stop[rows.fake].sum() == stop[~rows.fake].sum() == 10


def test_views_of_one_image_stay_together_where_there_is_one_generator():
    names = names_of(generators=1, sources=1, each=20)
    groups = np.arange(len(names)) // 4
    rows = rows_of({"proj": np.ones((len(names), 3))}, names, groups=groups)
    fit, stop = split(rows)
    assert (fit | stop).all() and not np.intersect1d(groups[fit], groups[stop]).size
    assert stop[rows.fake].sum() == stop[~rows.fake].sum() == 4


def test_a_single_group_of_a_label_is_trained_on():
    names = names_of(generators=1, sources=3, each=5)
    groups = np.where(np.char.startswith(names, "g"), 0, np.arange(len(names)))
    rows = rows_of({"proj": np.ones((len(names), 3))}, names, groups=groups)
    fit, stop = split(rows)
    assert fit[rows.fake].all() and stop[~rows.fake].any()
    assert not stop[rows.fake].any()


def test_the_seed_decides_which():
    rows = made_up(generators=6, sources=6)
    drawn = {tuple(np.unique(rows.names[split(rows, seed)[1]])) for seed in range(6)}
    assert len(drawn) > 1
    assert np.array_equal(split(rows, 3)[1], split(rows, 3)[1])
