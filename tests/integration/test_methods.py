"""What can score an image: votes, heads, ensembles; and that queries meet them as training did."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.fitted import CALIBRATION, load_head, read
from retrieval_detect.ask.methods import Methods, asked_about, calibrations
from retrieval_detect.ask.rows import score_rows
from retrieval_detect.errors import EncoderMismatch, IndexCorrupt, UsageError
from retrieval_detect.heads.ensemble import EnsembleHead
from retrieval_detect.heads.layers import LayersHead
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.heads.svm import SvmHead
from retrieval_detect.store.manifest import read_current
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.store import Store
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.heads import commit_head, training_set
from retrieval_detect.teach.members import member_scores
from retrieval_detect.teach.projections import commit_projection, fitted_projection
from retrieval_detect.types import METHODS
from retrieval_detect.vectors import as_stored
from retrieval_detect.verdicts import Question
from tests.layered import WIDTHS, image, images, layered


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Heads ``lr`` (unnormalised, of proj), ``svm`` (of pre) and ``lay`` (of two layers)."""
    folder = tmp_path_factory.mktemp("methods") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder.parent / "cache"))
        store = layered(folder)
        train(store, "lr", LinearHead(normalise=False))
        train(store, "svm", SvmHead())
        train(store, "lay", LayersHead(layers_read="pre,block01", epochs=3, width=8))
    return folder


@pytest.fixture
def store(built, tmp_path):
    return Store(shutil.copytree(built, tmp_path / "index"))


def train(store, name, head):
    snapshot = store.snapshot()
    return commit_head(store, name, head.fit(training_set(snapshot, head)), of=snapshot)


def combine(store, name, *members, **options):
    return commit_head(store, name, EnsembleHead(**options).fit(member_scores(store.snapshot(), members)))


def ask(store, question, method):
    methods = Methods(store.snapshot())
    checked = methods.checked(Question(method))
    return methods.ask(asked_about([question], methods.layers(checked)), checked).one(0)


# ---------------------------------------------------------------- which there are


@pytest.mark.parametrize("method", [*METHODS, "lr", "svm"])
def test_a_checked_question_may_be_checked_again(store, method):
    methods = Methods(store.snapshot())
    once = methods.checked(Question(method))
    assert methods.checked(once) == once and once.projection == "identity"


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("lr", 7), "a head counts no neighbours"),
        (Question("density", 0), "give 1 or more"),
        (Question("lrr"), "no method 'lrr'"),
        (Question("density", None, "white"), "no projection 'white'"),
    ],
)
def test_what_cannot_be_asked(store, question, message):
    with pytest.raises(UsageError, match=message) as caught:
        Methods(store.snapshot()).checked(question)
    if question.method == "lrr":
        assert "lr, svm, lay" in caught.value.hint and "Did you mean lr?" in caught.value.hint


def test_a_head_of_quality_tells_no_fakes(store):
    with store.writer() as writer:
        files = LinearHead(layer="proj")
        files.restore({"weight": np.ones(WIDTHS["proj"], np.float32), "bias": np.zeros(1, np.float32)})
        rows = (writer.snapshot.rows_digest(()), ())
        record = writer.write_fitted("head", "looks", method="quality", files=files.to_files(), rows=rows)
        writer.fit([record])
    with pytest.raises(UsageError, match="how good an image looks") as caught:
        Methods(store.snapshot()).checked(Question("looks"))
    assert "looks" not in caught.value.hint and "lr" in caught.value.hint


# ---------------------------------------------------------------- the same for queries as in training


def test_a_query_s_vector_becomes_what_its_stored_copy_was_trained_as(store):
    rows = training_set(store.snapshot(), LayersHead())
    stored = store.snapshot().take(rows.row_ids.tolist(), ["uri"])
    for position in range(0, len(rows), 17):
        name = stored[position]["uri"].removesuffix(".png")
        again = image(name, fake=bool(rows.fake[position]))
        for layer in WIDTHS:
            given, kept = as_stored(again.vectors[layer])[0], rows.as_encoded(layer)[position]
            assert np.array_equal(given, kept)
            assert np.linalg.norm(given) == pytest.approx(np.linalg.norm(again.vectors[layer]), rel=1e-6)


@pytest.mark.parametrize("name", ["lr", "svm", "lay"])
def test_a_query_gets_the_score_its_stored_copy_has(store, name):
    head = load_head(store.snapshot(), name)
    rows = training_set(store.snapshot(), head)
    scores = head.decision_function({layer: rows.as_encoded(layer) for layer in head.layers})
    uris = [row["uri"] for row in store.snapshot().take(rows.row_ids.tolist(), ["uri"])]
    assert np.ptp(scores) > 5e-3
    for kind, fake in (("camera-3", False), ("sdxl-5", True)):
        if f"{kind}.png" in uris:
            found = ask(store, image(kind, fake=fake), name).scores[0]
            assert found == pytest.approx(scores[uris.index(f"{kind}.png")], rel=1e-5, abs=1e-5)


def test_rows_set_aside_are_scored_as_queries_are(store):
    found = score_rows(store.snapshot(), Question("lr"))
    uris = [row["uri"] for row in store.snapshot().take(found.row_ids.tolist(), ["uri"])]
    for uri, score, fake in list(zip(uris, found.scores, found.fake, strict=True))[::5]:
        asked = ask(store, image(uri.removesuffix(".png"), fake=bool(fake)), "lr").scores[0]
        assert asked == pytest.approx(score, rel=2e-3, abs=2e-3)


def test_a_head_s_answer_keeps_the_evidence_of_the_default_vote(store):
    question = images("question", 1)[0]
    head, vote = (ask(store, question, method) for method in ("lr", "density"))
    assert head.scores[0] != vote.scores[0] and head.k == vote.k
    assert head.typical == vote.typical
    for label in ("real", "fake"):
        assert np.array_equal(head.voters[label].row_ids, vote.voters[label].row_ids)


# ---------------------------------------------------------------- ensembles


def test_an_ensemble_combines_what_its_members_say(store):
    combine(store, "ens", "density", "mean", "svm", "lay")
    head = load_head(store.snapshot(), "ens")
    for question in images("question", 3):
        said = {m: np.float32(ask(store, question, m).scores[0]) for m in head.members}
        expected = head.decision_function({m: np.array([[s]], np.float32) for m, s in said.items()})[0]
        assert ask(store, question, "ens").scores[0] == pytest.approx(expected, rel=1e-6)


def test_it_reads_the_layers_of_its_members(store):
    combine(store, "ens", "density", "svm", "lay")
    methods = Methods(store.snapshot())
    assert set(methods.layers(methods.checked(Question("ens")))) == {"proj", "pre", "block01"}
    assert methods.layers(methods.checked(Question("density"))) == ("proj",)


def test_members_that_became_ensembles_themselves_are_asked_through(store):
    combine(store, "ens", "density", "lr")
    combine(store, "lr", "svm", "lay")
    question = images("question", 1)[0]
    methods = Methods(store.snapshot())
    assert set(methods.layers(methods.checked(Question("ens")))) == {"proj", "pre", "block01"}
    assert np.isfinite(ask(store, question, "ens").scores[0])


# ---------------------------------------------------------------- what makes scores comparable


def scorers(store, *methods):
    found = Methods(store.snapshot())
    return [found.scorer(found.checked(Question(method))) for method in methods]


def test_scores_stop_being_comparable_with_whatever_made_them(store):
    combine(store, "ens", "density", "lr")
    asked = ("density", "lr", "svm", "ens")
    before = scorers(store, *asked)
    assert len(set(before)) == len(asked)
    train(store, "lr", LinearHead(c=0.1))
    after = scorers(store, *asked)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True, False]
    fitted = fitted_projection(store.snapshot(), "whiten", ("proj",))
    commit_projection(store, "white", fitted)
    assert not set(scorers(store, *asked)) & set(after)


def test_scores_of_a_vote_as_it_was_defined_once_are_not_compared(store, monkeypatch):
    combine(store, "ens", "density", "lr")
    asked = ("density", "mean", "lr", "ens")
    today = scorers(store, *asked)
    with monkeypatch.context() as patch:
        patch.setattr("retrieval_detect.ask.methods.REDEFINED", {})
        once = scorers(store, *asked)
        for method in ("density", "mean"):
            commit_calibration(store, fit_calibration(store.snapshot(), Question(method)))
    assert [new == old for new, old in zip(today, once, strict=True)] == [False, True, True, False]
    methods = Methods(store.snapshot())
    found = [methods.calibration(methods.checked(Question(method))) for method in ("density", "mean")]
    assert [one is not None for one in found] == [False, True]
    judge = Detector(store.snapshot())
    for method, outdated in (("density", True), ("mean", False)):
        verdict = judge.judge(images("question", 1)[0], method=method)
        assert (verdict.p_values is None) == outdated
        assert any("an earlier rd" in warning for warning in verdict.warnings) == outdated


def about_ensembles(store, method, **asked):
    verdict = Detector(store.snapshot()).judge(images("question", 1)[0], method=method, **asked)
    return [warning for warning in verdict.warnings if warning.startswith("ensemble ")]


def test_ensembles_of_votes_as_they_were_defined_once_say_so(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("retrieval_detect.heads.ensemble.REDEFINED", {})
        combine(store, "ens", "density", "svm", rule="soft-or")
        combine(store, "other", "mean", "svm")
    (said,) = about_ensembles(store, "ens")
    assert "density scores of an earlier rd" in said
    assert said.endswith("rd train ensemble --name ens --members density,svm --rule soft-or")
    assert about_ensembles(store, "other") == []
    combine(store, "ens", "density", "svm")
    assert about_ensembles(store, "ens") == []


def test_ensembles_of_votes_through_another_projection_say_so(store):
    combine(store, "ens", "density", "mean", "svm")
    combine(store, "heads", "svm", "lay")
    commit_projection(store, "white", fitted_projection(store.snapshot(), "whiten", ("proj",)))
    (said,) = about_ensembles(store, "ens")
    assert "density and mean scores through another projection" in said
    assert about_ensembles(store, "ens", projection="identity") == about_ensembles(store, "heads") == []
    combine(store, "ens", "density", "mean", "svm")
    assert about_ensembles(store, "ens") == []


def test_calibrations_of_the_default_come_first_and_lost_ones_not_at_all(store):
    for method in ("mean", "lr", "density"):
        commit_calibration(store, fit_calibration(store.snapshot(), Question(method)))
    assert [c.method for c in calibrations(store.snapshot())] == ["density", "lr", "mean"]
    commit_projection(store, "white", fitted_projection(store.snapshot(), "whiten", ("proj",)))
    found = [(c.method, c.projection) for c in calibrations(store.snapshot())]
    assert found[0] == ("density", "white") and [p for _, p in found] == ["white"] * 3 + ["identity"] * 3
    with store.writer() as writer:
        writer.forget("head", "lr")
    assert "lr" not in [c.method for c in calibrations(store.snapshot())]
    assert read(store.snapshot(), CALIBRATION, "lr") is not None


# ---------------------------------------------------------------- heads as files


def test_a_head_of_another_encoder(store, tmp_path):
    """Files and record carried over from an index of other weights, whose layers look alike."""
    other = layered(tmp_path / "other", each=6, weights="ff")
    record = store.snapshot().fitted("head", "lr")
    source = store.snapshot()
    with other.writer() as writer:
        files = {suffix: source.fitted_path(record, suffix).read_bytes() for suffix in record.files}
        rows = (writer.snapshot.rows_digest(), record.strata)
        writer.fit([writer.write_fitted("head", "lr", method="linear", files=files, rows=rows)])
    methods = Methods(other.snapshot())
    with pytest.raises(EncoderMismatch, match="'lr' was trained for another encoder"):
        methods.head("lr")
    with pytest.raises(EncoderMismatch):
        ask(other, images("question", 1)[0], "lr")


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("data", [b"", b"[]", b'{"about": []}'])
def test_a_damaged_head(store, suffix, data):
    snapshot = Snapshot(store.folder, read_current(store.folder))
    snapshot.fitted_path(snapshot.fitted("head", "lr"), suffix).write_bytes(data)
    with pytest.raises(IndexCorrupt):
        load_head(snapshot, "lr")
    with pytest.raises(IndexCorrupt):
        store.snapshot()


def test_a_head_says_of_which_encoder_it_is(store):
    record = store.snapshot().fitted("head", "lr")
    about = json.loads(store.snapshot().fitted_path(record, "json").read_bytes())["about"]
    assert about == {"fingerprint": store.snapshot().manifest.encoder.fingerprint}


def test_a_head_that_is_not_there(store):
    with pytest.raises(UsageError, match="no head 'nope'"):
        load_head(store.snapshot(), "nope")
