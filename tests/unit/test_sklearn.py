"""The estimators against rd itself, and at work inside scikit-learn."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline

from retrieval_detect import Detector, Index
from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.heads.prototype import PrototypeHead
from retrieval_detect.projections.registry import fit_projection
from retrieval_detect.scoring.weights import reference_weights
from retrieval_detect.search.projection import query_codes
from retrieval_detect.sklearn import PhotographWhitening, PrototypeClassifier, RetrievalClassifier
from retrieval_detect.store.training import load_training_set
from retrieval_detect.types import METHODS
from retrieval_detect.vectors import as_stored
from tests.factories import add, embedded, names, new_store
from tests.fitting import made_up
from tests.votes import BankNeighbours, vote_on

EVERY = [RetrievalClassifier(), PrototypeClassifier(), PhotographWhitening()]


@pytest.fixture
def data():
    rows = made_up(content=0.5)
    return rows.as_encoded("proj"), rows.fake.astype(int), rows.names


def said(estimator, x):
    return (estimator.transform if hasattr(estimator, "transform") else estimator.decision_function)(x)


# ---------------------------------------------------------------- as rd has it


def unit(x):
    rounded = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)
    return rounded / np.linalg.norm(rounded, axis=1, keepdims=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [None, 1, 5])
def test_the_vote_is_that_of_scoring_over_all_neighbours(data, method, k):
    if method == "nearest":
        k = None
    x, y, named = data
    fitted, asked = slice(0, None, 2), slice(1, None, 2)
    similarities = unit(x[asked]) @ unit(x[fitted]).T
    banks = []
    for label in (1, 0):
        of = np.flatnonzero(y[fitted] == label)
        columns = (of, reference_weights(named[fitted][of], of), of, of)
        whole = [np.broadcast_to(column, (len(similarities), len(of))) for column in columns]
        banks.append(BankNeighbours(similarities[:, of].astype(np.float32), *whole, n_bank=len(of)))
    expected = vote_on(*banks, method=method, k=k, temperature=0.1)
    found = RetrievalClassifier(method, k, temperature=0.1).fit(x[fitted], y[fitted], names=named[fitted])
    scores = found.decision_function(x[asked])
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    assert np.ptp(scores) > 0.01 and (found.predict(x[asked]) == (scores > 0)).all()


@pytest.fixture
def index(tmp_path):
    """Two generators and two sources; most fakes are near-duplicates, under both names."""
    store = new_store(tmp_path / "idx")
    vector = embedded("twin").vectors["proj"]
    twins = [embedded(f"twin-{i}", vector=vector * (i + 1), phash=7) for i in range(11)]
    add(store, [*names("sdxl", 2), *twins[:6]], "fake", "sdxl")
    add(store, [*names("flux", 1), *twins[6:]], "fake", "flux")
    add(store, names("camera", 12), "real", "camera")
    add(store, names("phone", 5), "real", "phone")
    return Index.open(tmp_path / "idx")


@pytest.fixture
def references(index):
    """What an index hands out, as an estimator takes it."""
    arrays = index.arrays()
    facts = {"names": arrays.names, "groups": arrays.groups}
    return arrays.X * arrays.norms[:, None], arrays.y, facts


QUERIES = names("question", 8)
ASKED = np.array([image.vectors["proj"] for image in QUERIES])


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_verdicts(index, references, method):
    x, y, facts = references
    detector = Detector(index.snapshot())
    verdicts = [detector.judge(image, method=method) for image in QUERIES]
    found = RetrievalClassifier(method).fit(x, y, **facts)
    np.testing.assert_allclose(found.decision_function(ASKED), [v.score for v in verdicts], atol=1e-9)
    assert found.predict(ASKED).tolist() == [v.score > 0 for v in verdicts]


def test_names_and_groups_change_the_density(references):
    x, y, facts = references
    told = [{}, {"names": facts["names"]}, facts]
    scores = {tuple(RetrievalClassifier().fit(x, y, **some).decision_function(ASKED)) for some in told}
    assert len(scores) == 3


def test_neighbours_are_the_evidence_of_verdicts(index, references):
    x, y, _ = references
    found = RetrievalClassifier().fit(x, y)
    evidence = [Detector(index.snapshot()).judge(image).evidence for image in QUERIES]
    row_ids = index.arrays().row_ids
    for label, (similarities, positions) in found.kneighbors(ASKED, 2).items():
        assert (y[positions] == (label == "fake")).all()
        for i, shown in enumerate(evidence):
            expected = [(e.row_id, e.similarity) for e in shown if e.label == label][:2]
            assert list(zip(row_ids[positions[i]], similarities[i], strict=True))[: len(expected)] == expected


@pytest.mark.parametrize("options", [{}, {"family": "vmf", "prior": 1.0}])
def test_prototypes_are_those_of_the_head(index, references, options):
    x, y, facts = references
    head = PrototypeHead(**options).fit(load_training_set(index.snapshot(), ["proj"]))
    expected = [head.decision_function({"proj": as_stored(vector)})[0] for vector in ASKED]
    found = PrototypeClassifier(**options).fit(x, y, **facts)
    np.testing.assert_allclose(found.decision_function(ASKED), expected, rtol=1e-4)


@pytest.mark.parametrize("shrinkage", ["ledoit-wolf", 0.5])
def test_whitening_is_the_fitted_projection(index, references, shrinkage):
    x, y, _ = references
    rows = load_training_set(index.snapshot(), ["proj"])
    projection = fit_projection("whiten", rows, layers=["proj"], shrinkage=str(shrinkage))
    z = PhotographWhitening(shrinkage).fit(x, y).transform(ASKED)
    np.testing.assert_allclose(z, query_codes(ASKED, projection), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)


def test_whitening_sees_photographs_alone(references):
    x, y, _ = references
    z = PhotographWhitening().fit(x, y).transform(ASKED)
    other = np.where(y[:, None] == 1, np.flip(x, axis=1), x)
    np.testing.assert_array_equal(PhotographWhitening().fit(other, y).transform(ASKED), z)
    np.testing.assert_array_equal(PhotographWhitening().fit(x[y == 0]).transform(ASKED), z)
    assert not np.allclose(PhotographWhitening().fit(x).transform(ASKED), z, atol=1e-2)


# ---------------------------------------------------------------- at work inside scikit-learn


def test_a_grid_search_through_a_pipeline_chooses_k_and_temperature(data):
    x, y, named = data
    grid = {
        "photographwhitening__shrinkage": ["ledoit-wolf", 1.0],
        "retrievalclassifier__k": [1, 20],
        "retrievalclassifier__temperature": [0.05, 0.5],
    }
    pipeline = make_pipeline(PhotographWhitening(), RetrievalClassifier())
    search = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=3, error_score="raise")
    search.fit(x, y, retrievalclassifier__names=named)
    assert search.best_params_["retrievalclassifier__k"] == 20  # content misleads a single neighbour
    assert search.best_score_ > 0.9 and len(set(search.cv_results_["mean_test_score"])) > 2


def test_generators_can_be_held_out(data):
    x, y, named = data
    folds = np.char.replace(named, "g", "s")  # a generator and a source leave together
    scores = cross_val_score(PrototypeClassifier(), x, y, groups=folds, cv=LeaveOneGroupOut())
    assert len(scores) == 3 and scores.mean() > 0.8


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_copies_say_the_same_and_clones_nothing(data, estimator, copied):
    x, y, _ = data
    fitted = clone(estimator).fit(x, y)
    np.testing.assert_array_equal(said(copied(fitted), x), said(fitted, x))
    with pytest.raises(AttributeError, match="fitted"):  # scikit-learn's NotFittedError is one
        said(clone(fitted), x)


# ---------------------------------------------------------------- odd input


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_nothing_is_learnt_from_a_zero_row(data, estimator):
    x, y, _ = data
    with_zeros = np.insert(x, [0, len(x)], 0.0, axis=0)
    fitted = clone(estimator).fit(with_zeros, [0, *y, 1])
    np.testing.assert_array_equal(said(fitted, x), said(clone(estimator).fit(x, y), x))


def test_a_zero_row_resembles_neither_class(data):
    x, y, _ = data
    asked = np.stack([np.zeros(x.shape[1]), x[0]])
    for estimator in (RetrievalClassifier("nearest"), PrototypeClassifier()):
        scores = estimator.fit(x, y).decision_function(asked)
        assert scores[0] == 0 != scores[1] and estimator.predict(asked)[0] == 0
    fitted = RetrievalClassifier().fit(np.insert(x, 0, 0.0, axis=0), [0, *y])
    assert {near[1].min() for near in fitted.kneighbors(x, len(x)).values()} == {1, 1 + y.argmin()}
    with pytest.raises(VectorError, match="vector 0 of 2 is zero"):
        fitted.kneighbors(asked)


@pytest.mark.parametrize(
    ("estimator", "error"),
    [
        (RetrievalClassifier("desnity"), "no vote 'desnity'"),
        (RetrievalClassifier(k=0), "k is 0"),
        (RetrievalClassifier("nearest", k=3), "counts one neighbour"),
        (RetrievalClassifier(temperature=0.0), "temperature"),
        (PrototypeClassifier("cauchy"), "family cannot be 'cauchy'"),
        (PrototypeClassifier(prior=-1.0), "prior is -1"),
        (PhotographWhitening("choose"), "shrinkage is 'choose'"),
        (PhotographWhitening(2.0), "shrinkage is '2.0'"),
    ],
)
def test_options_that_mean_nothing(data, estimator, error):
    x, y, _ = data
    with pytest.raises(UsageError, match=error):
        said(estimator.fit(x, y), x)


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_words_that_would_turn_the_sign_are_refused(data, estimator):
    x, y, _ = data
    with pytest.raises(UsageError, match="'fake' is the class of y that sorts first"):
        clone(estimator).fit(x, np.where(y == 1, "fake", "real"))


@pytest.mark.parametrize("estimator", EVERY[:2], ids=repr)
def test_references_that_cannot_teach(data, estimator):
    x, y, named = data
    with pytest.raises(UsageError, match="one class only"):
        clone(estimator).fit(x * y[:, None], y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clone(estimator).fit(x, y, names=named[1:])


# ---------------------------------------------------------------- probabilities


def test_probabilities_are_calibrated_at_the_prior(data):
    x, y, named = data
    taught, asked = slice(0, None, 2), slice(1, None, 2)
    plain, even, rare = (
        RetrievalClassifier(prior=prior).fit(x[taught], y[taught], names=named[taught])
        for prior in (None, 0.5, 0.1)
    )
    found = even.predict_proba(x[asked])
    assert found.shape == (len(x[asked]), 2) and np.allclose(found.sum(axis=1), 1)
    scores = even.decision_function(x[asked])
    np.testing.assert_array_equal(scores, plain.decision_function(x[asked]))
    assert (np.diff(found[np.argsort(scores), 1]) >= 0).all()
    assert log_loss(y[asked], found) < 0.7 * log_loss(y[asked], np.full(len(found), 0.5))
    odds = [p[:, 1] / p[:, 0] for p in (found, rare.predict_proba(x[asked]))]
    np.testing.assert_allclose(odds[0] / odds[1], 9, rtol=1e-6)


def test_no_reference_has_a_part_in_the_score_it_is_calibrated_by(data):
    """Vectors that say nothing: a reference would be its own nearest, and every score right."""
    _, y, _ = data
    noise = np.random.default_rng(0).normal(size=(len(y), 32))
    twice, groups = np.repeat(noise, 2, axis=0), np.repeat(np.arange(len(y)), 2)
    for x, labels, known in ((noise, y, {}), (twice, np.repeat(y, 2), {"groups": groups})):
        fitted = RetrievalClassifier("nearest", prior=0.5).fit(x, labels, **known)
        assert fitted.score(x, labels) == 1 and np.abs(fitted.predict_proba(x)[:, 1] - 0.5).max() < 0.25


def test_a_zero_row_is_given_the_prior(data):
    x, y, _ = data
    fitted = RetrievalClassifier(prior=0.2).fit(np.insert(x, 0, 0.0, axis=0), [0, *y])
    np.testing.assert_allclose(fitted.predict_proba(np.zeros((1, x.shape[1]))), [[0.8, 0.2]])


def test_without_a_prior_there_is_no_probability(data):
    x, y, _ = data
    assert not hasattr(RetrievalClassifier().fit(x, y), "predict_proba")
    for prior in (0.0, 1.0, -1):
        with pytest.raises(UsageError, match=f"a prior of {prior} is not between 0 and 1"):
            RetrievalClassifier(prior=prior).fit(x, y)
    few = np.r_[np.flatnonzero(y == 0)[:20], np.flatnonzero(y == 1)[:4]]
    with pytest.raises(UsageError, match=r"takes 5 photographs and 5 fakes .* there are 20 and 4"):
        RetrievalClassifier(prior=0.5).fit(x[few], y[few])
