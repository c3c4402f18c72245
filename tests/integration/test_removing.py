"""Removing references: what was fitted on them follows, and nothing about that holds a removal up."""

from __future__ import annotations

import pytest

from retrieval_detect.ask.anew import command
from retrieval_detect.ask.detector import Detector
from retrieval_detect.errors import VectorError
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.heads.prototype import PrototypeHead
from retrieval_detect.teach import calibrate, refit
from retrieval_detect.teach.again import DEFAULT
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.heads import commit_head, training_set
from retrieval_detect.teach.projections import (
    commit_projection,
    fit_default,
    fitted_projection,
    use_projection,
)
from retrieval_detect.verdicts import Question
from tests.layered import image, layered


def rows_of(index, label, split="bank", n=3):
    return index.snapshot().scan(["row_id"], label=label, split=split)["row_id"].to_pylist()[:n]


@pytest.fixture
def index(tmp_path):
    store = layered(tmp_path / "idx")
    fit_default(store, device="cpu")
    for question in (Question(), Question("nearest")):
        commit_calibration(store, fit_calibration(store.snapshot(), question, device="cpu"))
    return Index.open(store.folder)


@pytest.mark.parametrize("split", ["bank", "calib"])
def test_what_was_fitted_follows_in_the_same_generation(index, split):
    before = index.snapshot()
    manifest = index.remove(rows_of(index, "real", split), device="cpu")
    assert manifest.generation == before.manifest.generation + 1
    assert not index.snapshot().stale()
    warnings = Detector(index.snapshot(), device="cpu").judge(image("asked")).warnings
    assert not [said for said in warnings if "other references" in said]
    changed = {(f.kind, f.name) for f in manifest.fitted if f not in before.manifest.fitted}
    rates = {("calibration", f"{method}--{DEFAULT}") for method in ("density", "nearest")}
    rates |= {("coverage", "proj")}
    assert changed == (rates | {("projection", DEFAULT)} if split == "bank" else rates)


@pytest.mark.parametrize("error", [VectorError("zero"), OSError("disk"), ValueError("n"), MemoryError()])
@pytest.mark.parametrize("part", ["projection_again", "rates_to_fit"])
def test_a_fit_that_fails_holds_no_removal_up(index, monkeypatch, part, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(refit, part, fails)
    gone = rows_of(index, "fake")
    index.remove(gone, device="cpu")
    assert set(gone) <= set(index.snapshot().dead.tolist())
    stale = {record.kind for record in index.snapshot().stale()}
    assert stale == {"projection" if part == "projection_again" else "calibration"}


def test_a_calibration_that_fails_leaves_the_others_fitted(index, monkeypatch):
    fit = calibrate.fit_calibration

    def fails(snapshot, question, **how):
        if question.method == "density":
            raise OSError("no space")
        return fit(snapshot, question, **how)

    monkeypatch.setattr(calibrate, "fit_calibration", fails)
    index.remove(rows_of(index, "fake"), device="cpu")
    assert [record.name for record in index.snapshot().stale()] == [f"density--{DEFAULT}"]


def tried(index, *names):
    """Projections put in force one after another, each with all that is calibrated."""
    for name in names:
        snapshot = index.store.snapshot()
        fitted = fitted_projection(snapshot, "whiten", ("proj",))
        commit_projection(index.store, name, fitted, of=snapshot, device="cpu")


def test_calibrations_through_projections_that_were_tried_once_cost_nothing_later(index, monkeypatch):
    """What is not in force is not fitted again, at no change of the references; it is named as stale."""
    tried(index, "one", "two", "three")
    fitted, fit = [], calibrate.fit_calibration

    def counted(snapshot, question, **how):
        fitted.append((question.method, question.projection))
        return fit(snapshot, question, **how)

    monkeypatch.setattr(calibrate, "fit_calibration", counted)
    gone = rows_of(index, "fake")
    whole = index.snapshot()
    left = whole.without(gone)
    would = [f.name for f in left.manifest.fitted if refit.follows(whole, left, f)]
    index.remove(gone, device="cpu")
    assert sorted(fitted) == [("density", "three"), ("nearest", "three")]
    assert sorted(would) == ["density--three", "nearest--three"]
    stale = {f.name for f in index.snapshot().stale() if f.kind == "calibration"}
    assert stale == {f"{m}--{p}" for m in ("density", "nearest") for p in (DEFAULT, "one", "two")}
    warnings = Detector(index.snapshot()).judge(image("q"), projection="one").warnings
    (said,) = [warning for warning in warnings if "fit calibration" in warning]
    assert said.endswith("rd fit calibration --set projection=one")
    use_projection(index.store, "one", device="cpu")
    assert sorted(fitted[2:]) == [("density", "one"), ("nearest", "one")]


def test_a_head_trained_again_is_calibrated_again_through_every_projection(index):
    """Which no addition does; of references that changed since, the calibration stays as it was."""

    def trained(c):
        head = LinearHead(c=c)
        commit_head(index.store, "lr", head.fit(training_set(index.snapshot(), head)), device="cpu")

    trained(1.0)
    commit_calibration(index.store, fit_calibration(index.snapshot(), Question("lr"), device="cpu"))
    tried(index, "one")
    trained(0.1)
    other = Question("lr", projection=DEFAULT)
    assert Detector(index.snapshot()).calibration(other) is not None
    index.remove(rows_of(index, "fake"), device="cpu")
    detector = Detector(index.snapshot())
    assert detector.calibration(Question("lr")) is not None and detector.calibration(other) is None
    warnings = detector.judge(image("q"), method="lr", projection=DEFAULT).warnings
    (said,) = [warning for warning in warnings if "fit calibration" in warning]
    assert "earlier rd" not in said
    assert said.endswith(f"rd fit calibration --method lr --set projection={DEFAULT}")


def test_all_photographs_can_go(index):
    index.remove(rows_of(index, "real", n=None) + rows_of(index, "real", "calib", n=None), device="cpu")
    assert index.snapshot().manifest.live_rows("real") == 0
    stale = {record.kind for record in index.snapshot().stale()}
    assert stale == {"projection", "calibration", "coverage"}


def test_commands_name_what_is_stale_with_its_options(index):
    store = index.store
    projection = fitted_projection(
        store.snapshot(), "nullspace", ("proj", "block01"), options={"directions": 2, "content": "within"}
    )
    commit_projection(store, "mine", projection, device="cpu")
    for name, head in (("lr", LinearHead(layer="pre", c=0.5, balanced=False)), ("proto", PrototypeHead())):
        commit_head(store, name, head.fit(training_set(store.snapshot(), head)), device="cpu")
    snapshot = store.snapshot()
    commands = {f"{f.kind} {f.name}": command(snapshot, f) for f in snapshot.manifest.fitted}
    mine = "--kind nullspace --layers proj,block01 --set directions=2 --set content=within"
    assert sorted(commands["projection mine"].split()) == sorted(f"rd fit projection mine {mine}".split())
    assert commands[f"projection {DEFAULT}"].endswith(" && rd fit projection mine")
    assert commands["head lr"] == "rd train linear --name lr --set layer=pre --set c=0.5 --set balanced=no"
    assert commands["head proto"] == "rd train prototype --name proto"
    assert commands["calibration density--mine"] == "rd fit calibration"
    assert commands["calibration nearest--mine"] == "rd fit calibration --method nearest"
    assert commands[f"calibration density--{DEFAULT}"] == f"rd fit calibration --set projection={DEFAULT}"
