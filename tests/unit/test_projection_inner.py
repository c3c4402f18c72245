"""Choices are judged on generators and sources held out: against a slow loop, and against leaks."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.projections.inner import Trial, Vote, held_out_auc, spread
from retrieval_detect.scoring.metrics import auc
from retrieval_detect.scoring.weights import reference_weights
from tests.fitting import made_up, names_of, rows_of
from tests.votes import BankNeighbours, score_of


def slow_auc(rows, z, how):
    """One pair of names, one query, one vote at a time."""

    def neighbours(query, held):
        bank = np.flatnonzero((rows.fake == held[1]) & (rows.names != held[0]))
        weights = reference_weights(
            rows.names[bank], rows.row_ids[bank], groups=rows.groups[bank], batches=rows.batches[bank]
        )
        others = rows.groups[bank] != rows.groups[query]
        near = bank[others]
        return BankNeighbours(
            z[near] @ z[query], near, weights[others], np.zeros_like(near), rows.row_ids[near], len(bank)
        )

    found = []
    for g in np.unique(rows.names[rows.fake]):
        for s in np.unique(rows.names[~rows.fake]):
            scores = {}
            for name, label in ((g, True), (s, False)):
                queries = np.flatnonzero((rows.names == name) & (rows.fake == label))
                scores[label] = [
                    score_of(
                        neighbours(query, (g, True)),
                        neighbours(query, (s, False)),
                        method=how.method,
                        k=how.k,
                        temperature=how.temperature,
                    )
                    for query in queries
                ]
            found.append(auc(scores[True], scores[False]))
    return np.mean(found)


@pytest.mark.parametrize(
    "how",
    [Vote(), Vote(k=4, temperature=0.05), Vote("nearest"), Vote("mean", k=3), Vote("majority", k=5)],
    ids=str,
)
def test_it_equals_a_slow_loop(how):
    rows = made_up(seed=3, each=9, signal=1.0)
    rows.groups[:] = np.random.default_rng(0).integers(0, 25, len(rows))
    z = rows.vectors["proj"]
    assert held_out_auc(z, rows, vote=how) == pytest.approx(slow_auc(rows, z, how), abs=1e-9)
    assert 0.4 < slow_auc(rows, z, how) < 1


def test_what_is_perfectly_told_scores_one_and_noise_a_half():
    perfect = made_up(signal=60.0, content=0.0)
    assert held_out_auc(perfect.vectors["proj"], perfect) == 1
    noise = made_up(signal=0.0, content=0.0, each=60)
    assert held_out_auc(noise.vectors["proj"], noise) == pytest.approx(0.5, abs=0.05)


def test_rows_of_one_group_never_vote_for_each_other():
    """Every image has a twin in another generator or source, which would tell its label at once."""
    rng = np.random.default_rng(1)
    x = np.tile(rng.normal(size=(60, 8)), (2, 1))
    names = np.repeat(["g0", "s0", "g1", "s1"], 30)
    twins = rows_of({"proj": x}, names, groups=np.tile(np.arange(60), 2))
    strangers = rows_of({"proj": x}, names)
    z = twins.vectors["proj"]
    assert held_out_auc(z, strangers, vote=Vote("nearest")) == 1
    assert held_out_auc(z, twins, vote=Vote("nearest")) < 0.65


def test_a_single_source_is_held_out_by_groups_and_many_generators_share_folds():
    rows = made_up(generators=30, sources=1, each=4)
    trial = Trial.of(rows)
    assert len(trial.folds_of("fake")) == 12
    assert len(trial.folds_of("real")) == 4
    for name in np.unique(rows.names[rows.fake]):
        assert len(np.unique(trial.folds[rows.names == name])) == 1
    assert 0 < trial.auc(trial.rows.vectors["proj"]) <= 1


def test_a_sample_keeps_small_names_whole_and_is_the_same_again():
    names = [*["g0"] * 500, *["g1"] * 20, *["s0"] * 300, *["s1"] * 300]
    rows = rows_of({"proj": np.random.default_rng(0).normal(size=(len(names), 3))}, names)
    chosen = spread(rows, 200, seed=5)
    kept = dict(zip(*np.unique(rows.names[chosen], return_counts=True), strict=True))
    assert kept == {"g0": 80, "g1": 20, "s0": 50, "s1": 50}
    assert np.array_equal(chosen, spread(rows, 200, seed=5))
    assert not np.array_equal(chosen, spread(rows, 200, seed=6))
    assert len(spread(rows, 10_000, seed=0)) == len(rows)
    z = rows.vectors["proj"]
    assert held_out_auc(z, rows, seed=1) == held_out_auc(z, rows, seed=1)


def test_nothing_to_hold_out_is_an_error():
    names = names_of(generators=1, sources=1, each=4)
    rows = rows_of({"proj": np.random.default_rng(0).normal(size=(8, 3))}, names, groups=[1] * 4 + [2] * 4)
    assert not Trial.of(rows).possible
    with pytest.raises(UsageError, match="nothing to hold out"):
        held_out_auc(rows.vectors["proj"], rows)
    all_one = rows_of({"proj": rows.vectors["proj"]}, np.repeat(["g0", "g1", "s0", "s1"], 2), groups=[7] * 8)
    with pytest.raises(UsageError, match="left to vote"):
        held_out_auc(all_one.vectors["proj"], all_one)


def test_a_generator_of_which_some_images_are_known_is_found_more_easily():
    rows = made_up(seed=2, signal=0.0, content=6.0, generators=3, sources=3, each=24)
    z = rows.vectors["proj"]
    trial = Trial.of(rows)
    none, some = (trial.auc(z, known=n) for n in (0, 8))
    assert some > none + 0.1
    assert trial.auc(z, known=10**6) <= 1.0  # half at least are left to be asked about
