"""Ensembles: each rule by hand, useless members without weight, order kept."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from retrieval_detect.errors import UsageError
from retrieval_detect.heads import ensemble
from retrieval_detect.heads.ensemble import PENALTIES, RULES, EnsembleHead
from tests.heads import encoded, training_set


def scored(seed=0, n=150, **strength):
    """References with one score a member, labels ``strength`` apart in noise of one, in units of its own."""
    names = {f"g{i}": (True, n // 3) for i in range(3)} | {f"s{i}": (False, n // 3) for i in range(3)}
    rows = training_set(dims=dict.fromkeys(strength, 1), names=names)
    rng = np.random.default_rng(seed)
    vectors = {
        member: (7 * (rng.normal(size=len(rows)) + np.where(rows.fake, 1, -1) * apart / 2) + 40)[:, None]
        for member, apart in strength.items()
    }
    return replace(rows, vectors={member: x.astype(np.float32) for member, x in vectors.items()})


@pytest.fixture(scope="module")
def rows():
    return scored(density=2.0, linear=1.5, coin=0.0)


def auc(head, rows):
    return roc_auc_score(rows.fake, head.decision_function(encoded(rows)))


def logits(head, rows):
    scores = np.concatenate([rows.vectors[m] for m in head.members], axis=1).astype(np.float64)
    state = head.state()
    return scores * state["slopes"] + state["intercepts"]


@pytest.mark.parametrize("rule", RULES)
def test_members_that_differ_do_better_together(rule):
    train, test = scored(a=1.5, b=1.5), scored(seed=9, a=1.5, b=1.5)
    head = EnsembleHead(rule=rule).fit(train)
    alone = max(roc_auc_score(test.fake, test.vectors[m][:, 0]) for m in "ab")
    assert auc(head, test) > alone + 0.02


def test_logits_are_calibrated_whatever_the_units(rows):
    """Two normals 2 apart: the log-odds are 2 s, here of s = (score - 40) / 7."""
    state = EnsembleHead().fit(rows).state()
    assert state["slopes"][0] == pytest.approx(2 / 7, rel=0.2)
    assert state["intercepts"][0] == pytest.approx(-40 * 2 / 7, rel=0.2)


def test_mean_and_soft_or_by_hand(rows):
    mean = EnsembleHead(rule="logit-mean").fit(rows)
    found = logits(mean, rows)
    assert mean.decision_function(encoded(rows)) == pytest.approx(found.mean(axis=1))
    soft = EnsembleHead(rule="soft-or").fit(rows).decision_function(encoded(rows))
    real = np.prod(1 - 1 / (1 + np.exp(-found)), axis=1)
    assert soft == pytest.approx(np.log((1 - real) / real), abs=1e-9)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=5))
def test_soft_or_is_finite_and_above_every_member(values):
    score = ensemble._soft_or(np.array([values]))[0]
    assert np.isfinite(score)
    assert score >= max(values) - 1e-9 * (1 + abs(max(values))) or max(values) < -700


def test_a_useless_member_gets_no_weight(rows):
    weights = EnsembleHead(rule="weights").fit(rows).weights
    assert weights["coin"] < 0.05 * weights["linear"] < weights["density"]


@pytest.mark.parametrize("rule", RULES)
def test_a_member_that_tells_the_wrong_way_has_no_say(rule):
    rows = scored(good=2.0, wrong=-2.0)
    head = EnsembleHead(rule=rule).fit(rows)
    other = {**encoded(rows), "wrong": encoded(rows)["wrong"] + 99}
    assert np.array_equal(head.decision_function(encoded(rows)), head.decision_function(other))


@pytest.mark.parametrize("member", ["density", "linear", "coin"])
@pytest.mark.parametrize("rule", RULES)
def test_the_score_never_falls_when_a_member_rises(rows, rule, member):
    head = EnsembleHead(rule=rule).fit(rows)
    steps = [
        head.decision_function(encoded(rows) | {member: encoded(rows)[member] + up}) for up in (0, 1, 10, 1e3)
    ]
    assert all((after >= before).all() for before, after in pairwise(steps))


def test_weights_are_the_least_loss_of_scikit_learn_where_nothing_is_penalised(rows):
    from sklearn.linear_model import LogisticRegression

    rows = scored(a=2.0, b=1.5)
    head = EnsembleHead().fit(rows)
    found = logits(head, rows)
    counted = np.ones(len(rows))
    weights, bias = ensemble._combined(found, rows.fake, counted, penalty=0.0)
    other = LogisticRegression(C=1e9, tol=1e-10).fit(found, rows.fake)
    assert weights == pytest.approx(other.coef_[0], abs=2e-3)
    assert bias == pytest.approx(other.intercept_[0], abs=2e-3)


def test_the_penalty_is_chosen_on_generators_left_out():
    rows = scored(a=1.0, b=0.5)
    kept = [
        (set(rows.names[kept]) & set(rows.names[out]), set(rows.groups[kept]) & set(rows.groups[out]))
        for kept, out in ensemble._folds(rows, seed=0)
    ]
    assert len(kept) >= 3 and all(not names and not groups for names, groups in kept)
    head = EnsembleHead(rule="weights").fit(rows)
    assert head.facts()["penalty"] in PENALTIES


def test_folds_with_one_name_a_label_go_by_group():
    rows = training_set(dims={"a": 1}, names={"g": (True, 20), "s": (False, 20)})
    folds = list(ensemble._folds(rows, seed=0))
    assert len(folds) == 5
    assert np.array_equal(sum(out.astype(int) for _, out in folds), np.ones(40))


def test_two_rows_a_label_still_fit():
    rows = training_set(dims={"a": 1}, names={"g": (True, 2), "s": (False, 2)}, apart=4.0)
    assert auc(EnsembleHead(rule="weights").fit(rows), rows) == 1


def test_what_cannot_be_combined_is_refused(rows):
    with pytest.raises(UsageError, match="majority"):
        EnsembleHead(rule="majority").fit(rows)
    with pytest.raises(UsageError, match="members"):
        EnsembleHead().fit(replace(rows, vectors={}))
    with pytest.raises(UsageError, match="no member tells"):
        EnsembleHead().fit(scored(wrong=-2.0))


def test_members_are_read_by_name(rows):
    head = EnsembleHead(rule="weights").fit(rows)
    turned = dict(reversed(list(encoded(rows).items())))
    assert np.array_equal(head.decision_function(turned), head.decision_function(encoded(rows)))
    assert head.members == ("density", "linear", "coin") and head.layers == ()


def test_foreign_arrays_are_refused(rows):
    head = EnsembleHead().fit(rows)
    for bad in ({"slopes": np.ones(2)}, {"bias": np.array([np.inf])}, {"weights": np.full(3, np.nan)}):
        with pytest.raises(ValueError, match="ensemble"):
            head.restore(head.state() | bad)
    with pytest.raises(ValueError, match="1 members"):
        head.restore_facts({"members": ["a"], "penalty": None})


# ---------------------------------------------------------------- what the scores were of


def read_back(head, **facts):
    """The head from its files, with some facts altered; ``None`` : left out, as by earlier releases."""
    files = head.to_files()
    document = json.loads(files["json"])
    gone = [name for name, value in facts.items() if value is None]
    document["facts"] = {k: v for k, v in (document["facts"] | facts).items() if k not in gone}
    return EnsembleHead.from_files(files | {"json": json.dumps(document).encode()})


def test_it_keeps_what_the_scores_of_its_members_were_of(rows):
    head = EnsembleHead().fit(rows)
    assert head.outdated() == read_back(head).outdated() == ()
    assert read_back(head, votes={"density": "once"}).outdated() == ("density",)
    head.projection = "1234"
    assert read_back(head).projection == "1234" and read_back(head, projection=None).projection is None


def test_without_a_record_votes_that_were_redefined_count_as_old(rows):
    assert read_back(EnsembleHead().fit(rows), votes=None).outdated() == ("density",)
    assert read_back(EnsembleHead().fit(scored(mean=2.0, linear=1.5)), votes=None).outdated() == ()
