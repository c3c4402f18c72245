"""What a score would be without some references is what it is once they are removed."""

from __future__ import annotations

import jsonschema
import pytest

from retrieval_detect import Detector
from retrieval_detect.errors import UsageError
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.report.words import full
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.heads import commit_head
from tests.factories import add, embedded, names, new_store
from tests.integration.test_calibrate import images, taught

VALID = jsonschema.Draft202012Validator(verdict_schema())


@pytest.fixture
def store(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, names("camera", 9), "real", "camera")
    add(store, names("phone", 4), "real", "phone")
    add(store, names("sdxl", 7), "fake", "sdxl")
    add(store, names("flux", 3), "fake", "flux")
    return store


def removed(store, **which):
    """The score once the references are really gone; the index is put back as it was."""
    snapshot = store.snapshot()
    rows = snapshot.scan(["row_id", "generator", "source"]).to_pylist()
    gone = [r["row_id"] for r in rows if all(r[key] == value for key, value in which.items())]
    with store.writer() as writer:
        writer.remove(gone, reason="", detail={})
        score = Detector(store.snapshot()).judge(embedded("asked")).score
        writer.rollback(snapshot.manifest.generation)
    return score


def test_it_is_what_removing_does(store):
    verdict = Detector(store.snapshot()).judge(embedded("asked"), influence=True)
    by_name = {(i.label, i.name): i for i in verdict.influence if i.row_id is None}
    assert set(by_name) == {("real", "camera"), ("real", "phone"), ("fake", "sdxl"), ("fake", "flux")}
    for (label, name), found in by_name.items():
        column = "generator" if label == "fake" else "source"
        assert found.score == pytest.approx(removed(store, **{column: name}), abs=1e-9)
        assert found.change == pytest.approx(found.score - verdict.score)
    single = [i for i in verdict.influence if i.row_id is not None]
    assert [i.row_id for i in single] != [] and {i.n_images for i in single} == {1}
    for found in single[:3]:
        assert found.score == pytest.approx(removed(store, row_id=found.row_id), abs=1e-9)
    VALID.validate(verdict.to_dict())


def test_the_largest_change_comes_first(store):
    influence = Detector(store.snapshot()).judge(embedded("asked"), influence=True).influence
    names_first = [i.row_id is None for i in influence]
    assert names_first == sorted(names_first, reverse=True)
    changes = [abs(i.change) for i in influence if i.row_id is None]
    assert changes == sorted(changes, reverse=True)


def test_a_bank_that_would_be_empty(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, names("camera", 5), "real", "camera")
    add(store, names("sdxl", 5), "fake", "sdxl")
    verdict = Detector(store.snapshot()).judge(embedded("asked"), influence=True)
    assert [i.score for i in verdict.influence if i.row_id is None] == [None, None]
    assert any("nobody would be left to vote" in "".join(map(str, line)) for line in full(verdict))
    VALID.validate(verdict.to_dict())


def test_a_head_cannot_do_without(store):
    from retrieval_detect.heads.linear import LinearHead
    from retrieval_detect.teach.heads import training_set

    commit_head(store, "lr", LinearHead().fit(training_set(store.snapshot(), LinearHead())))
    with pytest.raises(UsageError, match="trained again"):
        Detector(store.snapshot()).judge(embedded("asked"), method="lr", influence=True)


# ---------------------------------------------------------------- open set


def test_a_generator_that_fits_and_one_that_none_fits(tmp_path):
    store = taught(tmp_path)
    commit_calibration(store, fit_calibration(store.snapshot()))
    judge = Detector(store.snapshot())
    known, foreign = images("0-sdxl", 200, shift=2.5, along=3)[-1], images("else", 1, shift=-30.0, along=9)[0]
    fits = {a.generator: a.p for a in judge.judge(known).attribution}
    assert max(fits.values()) > 0.05
    verdict = judge.judge(foreign)
    assert all(a.p is not None and a.p <= 0.05 for a in verdict.attribution)
    assert any("none of these generators fits" in "".join(map(str, line)) for line in full(verdict))
    assert "none of these generators fits" not in "".join(map(str, full(judge.judge(known))))
