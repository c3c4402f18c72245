"""Heads of an index: trained on bank rows alone, refitted or stale, removed, combined fairly."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.fitted import load_head
from retrieval_detect.ask.methods import Methods
from retrieval_detect.errors import UsageError
from retrieval_detect.heads.ensemble import EnsembleHead
from retrieval_detect.heads.layers import LayersHead
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.heads.prototype import PrototypeHead
from retrieval_detect.heads.svm import SvmHead
from retrieval_detect.store import training
from retrieval_detect.store.manifest import read_current
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.store import Store
from retrieval_detect.store.training import load_training_set
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.fitted import remove
from retrieval_detect.teach.heads import commit_head, training_set
from retrieval_detect.teach.measure import Reviewer
from retrieval_detect.teach.members import member_scores
from retrieval_detect.teach.projections import commit_projection, fitted_projection
from retrieval_detect.verdicts import Question
from tests.layered import EACH, WIDTHS, add, image, images, layered

HEADS = [LinearHead(), SvmHead(), PrototypeHead(), LayersHead(epochs=20, width=8)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder.parent / "cache"))
        layered(folder)
    return folder


@pytest.fixture
def store(built, tmp_path):
    return Store(shutil.copytree(built, tmp_path / "index"))


def train(store, name, head):
    snapshot = store.snapshot()
    return commit_head(store, name, head.fit(training_set(snapshot, head)), of=snapshot)


def imported(store, name="foreign"):
    """Weights that saw no row of this index."""
    head = LinearHead(optimizer="adamw")
    weight = np.eye(WIDTHS["proj"], dtype=np.float32)[0]
    head.restore({"weight": weight, "bias": np.zeros(1, np.float32)})
    return commit_head(store, name, head, strata=())


def calibrate(store, method):
    return commit_calibration(store, fit_calibration(store.snapshot(), Question(method)))


def judged(store, method, name="question-1"):
    return Detector(store.snapshot()).judge(image(name), method=method)


def record(store, name, kind="head"):
    return store.snapshot().fitted(kind, name)


def stale_names(store):
    return {(f.kind, f.name) for f in store.snapshot().stale()}


# ---------------------------------------------------------------- trained and kept


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_a_head_is_one_generation_and_judges_from_then_on(store, head):
    head = replace(head)
    before = store.snapshot().manifest.generation
    assert train(store, "mine", head).generation == before + 1
    assert record(store, "mine").method == head.kind and stale_names(store) == set()
    fake, real = (np.mean([judged_as(store, fake, i) for i in range(12)]) for fake in (True, False))
    assert fake > real


def judged_as(store, fake, i):
    kind = "sdxl" if fake else "camera"
    return Detector(store.snapshot()).judge(image(f"{kind}-{EACH + i}", fake=fake), method="mine").score


def test_the_same_seed_gives_the_same_bytes(store):
    heads = [LayersHead(epochs=2, width=8, seed=seed) for seed in (1, 1, 2)]
    rows = training_set(store.snapshot(), heads[0])
    first, again, other = (head.fit(rows).to_files()["safetensors"] for head in heads)
    assert first == again != other


def test_no_row_set_aside_reaches_a_head(store):
    heads = [LinearHead(), SvmHead(layer="proj"), PrototypeHead()]
    rows = training_set(store.snapshot(), LinearHead())
    before = [head.fit(rows).to_files()["safetensors"] for head in heads]
    for shard in store.snapshot().shards(split="calib"):
        planted = np.zeros_like(np.load(shard.path("proj.npy")))
        planted[:, 0] = 1
        np.save(shard.path("proj.npy"), planted)
    # Opened without its checksums, which would refuse the forgery.
    snapshot = Snapshot(store.folder, read_current(store.folder))
    assert (training_set(snapshot, LinearHead(), split="calib").vectors["proj"][:, 0] == 1).all()
    rows = training_set(snapshot, LinearHead())
    set_aside = np.concatenate([shard.row_ids for shard in snapshot.shards(split="calib")])
    assert not np.isin(rows.row_ids, set_aside).any()
    assert [head.fit(rows).to_files()["safetensors"] for head in heads] == before
    assert np.isfinite(member_scores(snapshot, ["density"]).vectors["density"]).all()


# ---------------------------------------------------------------- when references change


def test_cheap_heads_go_along_with_an_addition_and_others_become_stale(store):
    for name, head in (("lr", LinearHead()), ("svm", SvmHead()), ("lay", LayersHead(epochs=2, width=8))):
        train(store, name, head)
    imported(store)
    old = {name: record(store, name).digest for name in ("lr", "svm", "lay", "foreign")}
    generation = store.snapshot().manifest.generation
    add(store, images("newgen", 12, fake=True), "fake", "newgen", Reviewer())
    assert store.snapshot().manifest.generation == generation + 1
    assert stale_names(store) == {("head", "lay")}
    changed = {name for name, digest in old.items() if record(store, name).digest != digest}
    assert changed == {"lr", "svm"}
    fresh = LinearHead().fit(training_set(store.snapshot(), LinearHead()))
    assert np.allclose(load_head(store.snapshot(), "lr").weight, fresh.weight)
    assert any("head lay was fitted on other references" in w for w in judged(store, "lay").warnings)
    assert not any("rd train" in w for w in judged(store, "lr").warnings)


def test_an_addition_to_an_index_with_a_calibrated_head(store):
    """The head is fitted anew, its calibration with it, and both are of the generation that follows."""
    train(store, "lr", LinearHead())
    train(store, "lay", LayersHead(epochs=2, width=8))
    for method in ("lr", "lay", "density"):
        calibrate(store, method)
    add(store, images("newgen", 12, fake=True), "fake", "newgen", Reviewer())
    assert stale_names(store) == {("head", "lay")}
    for method in ("lr", "lay", "density"):
        assert judged(store, method).p_values, method
    methods = Methods(store.snapshot())
    question = methods.checked(Question("lr"))
    assert methods.calibration(question).rows_digest == store.snapshot().rows_digest()


def test_a_head_that_too_few_are_left_for_bars_no_addition(tmp_path):
    store = layered(tmp_path / "small", each=12, fakes=("sdxl",), photographs=("camera",))
    train(store, "svm", SvmHead())
    with store.writer() as writer:
        writer.remove(store.snapshot().shards("fake")[0].row_ids[:8].tolist(), reason="x", detail={})
    digest = record(store, "svm").digest
    add(store, images("sdxl", 2, fake=True, since=12), "fake", "sdxl", Reviewer())
    assert record(store, "svm").digest == digest and ("head", "svm") in stale_names(store)


def test_trained_while_references_came_it_is_stale(store):
    snapshot = store.snapshot()
    head = LinearHead().fit(training_set(snapshot, LinearHead()))
    add(store, images("newgen", 3, fake=True), "fake", "newgen")
    commit_head(store, "lr", head, of=snapshot)
    assert stale_names(store) == {("head", "lr")}


def test_trained_again_under_its_name_it_is_calibrated_again(store):
    train(store, "lr", LinearHead())
    calibrate(store, "lr")
    commit_head(store, "ens", EnsembleHead().fit(member_scores(store.snapshot(), ["density", "lr"])))
    calibrate(store, "ens")
    calibrate(store, "density")
    before = {name: record(store, name, "calibration").digest for name in ("lr", "ens", "density")}
    manifest = train(store, "lr", LinearHead(c=0.01))
    assert [f["name"] for f in manifest.operation.detail["fitted"]] == ["lr", "ens", "lr"]
    after = {name: record(store, name, "calibration").digest for name in before}
    assert [name for name in before if before[name] == after[name]] == ["density"]
    assert judged(store, "lr").p_values and judged(store, "ens").p_values


def test_a_projection_comes_with_calibrations_of_heads_too(store):
    train(store, "lr", LinearHead())
    calibrate(store, "lr")
    commit_projection(store, "white", fitted_projection(store.snapshot(), "whiten", ("proj",)))
    assert judged(store, "lr").p_values and record(store, "lr--white", "calibration")


# ---------------------------------------------------------------- removed


def test_removing_a_head_takes_its_calibrations_and_nothing_else(store):
    train(store, "lr", LinearHead())
    train(store, "lr2", LinearHead(c=2))
    for method in ("lr", "lr2"):
        calibrate(store, method)
    commit_projection(store, "white", fitted_projection(store.snapshot(), "whiten", ("proj",)))
    before = store.snapshot().manifest
    remove(store, "head", "lr")
    names = [f.name for f in store.snapshot().manifest.fitted if f.kind != "coverage"]  # of no method
    assert sorted(names) == ["lr2", "lr2", "lr2--white", "white"]
    add(store, images("newgen", 3, fake=True), "fake", "newgen", Reviewer())
    with store.writer() as writer:
        writer.rollback(before.generation)
    assert judged(store, "lr").p_values


def test_what_an_ensemble_is_made_of_stays(store):
    train(store, "lr", LinearHead())
    commit_head(store, "ens", EnsembleHead().fit(member_scores(store.snapshot(), ["density", "lr"])))
    with pytest.raises(UsageError, match="'ens' is made of 'lr'") as caught:
        remove(store, "head", "lr")
    assert "rd index fitted remove head ens" in caught.value.hint
    remove(store, "head", "ens")
    remove(store, "head", "lr")
    with pytest.raises(UsageError, match="no head 'lr'"):
        remove(store, "head", "lr")


# ---------------------------------------------------------------- what ensembles learn from


def test_members_are_scored_without_their_generator_or_source(store):
    """A head that knows every image by heart must not look better than one that does not."""
    train(store, "heart", LinearHead(c=1e6))
    head = load_head(store.snapshot(), "heart")
    found = member_scores(store.snapshot(), ["heart"])
    rows = training_set(store.snapshot(), head)
    assert np.array_equal(found.row_ids, rows.row_ids)
    known = head.decision_function({"proj": rows.as_encoded("proj")})
    right = lambda scores: ((scores > 0) == rows.fake).mean()  # noqa: E731
    assert right(found.vectors["heart"][:, 0]) < right(known)
    without = rows.take(rows.names != "gan")
    assert len(without) < len(rows)


def test_a_single_generator_is_cut_by_group(tmp_path):
    store = layered(tmp_path / "one", each=24, fakes=("sdxl",), photographs=("camera",))
    train(store, "lr", LinearHead())
    scores = member_scores(store.snapshot(), ["lr", "density"])
    assert all(np.isfinite(x).all() for x in scores.vectors.values())


def test_imported_weights_speak_for_themselves(store):
    """They have seen no reference: trained anew they would be others."""
    imported(store)
    found = member_scores(store.snapshot(), ["foreign"])
    stored = load_training_set(store.snapshot(), ("proj",)).as_encoded("proj")[:, 0]
    assert found.vectors["foreign"][:, 0] == pytest.approx(stored, rel=1e-6)


def test_what_no_ensemble_is_made_of(store):
    train(store, "lr", LinearHead())
    commit_head(store, "ens", EnsembleHead().fit(member_scores(store.snapshot(), ["density", "lr"])))
    for members, message in ((["ens"], "ensemble itself"), (["nope"], "no head 'nope'")):
        with pytest.raises(UsageError, match=message):
            member_scores(store.snapshot(), members)
    head = EnsembleHead().fit(member_scores(store.snapshot(), ["density", "lr"]))
    with pytest.raises(UsageError, match="member of itself"):
        commit_head(store, "lr", head)


# ---------------------------------------------------------------- memory


def test_reading_holds_the_vectors_hardly_more_than_twice(store):
    """One shard a class here; in large indexes shards are read one by one, and the rest is the answer."""
    n, d = 20_000, WIDTHS["proj"]
    shard = SimpleNamespace(vectors=lambda _: np.full((n // 5, d), d**-0.5, np.float16))
    wide = SimpleNamespace(
        manifest=store.snapshot().manifest,
        shards=lambda **_: [shard] * 5,
        live=lambda _: np.ones(n // 5, bool),
    )
    tracemalloc.start()
    found = training._vectors(wide, "proj", "bank")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == (n, d) and np.allclose(np.linalg.norm(found, axis=1), 1)
    assert peak_bytes < 2 * found.nbytes
