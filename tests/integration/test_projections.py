"""Projections of an index: fitted, in force, side by side, calibrated through, stale, gone back from."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect.ask.banks import Banks
from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.fitted import read_projection
from retrieval_detect.ask.methods import asked_about
from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.projections.registry import KINDS
from retrieval_detect.review.whole import verify
from retrieval_detect.search.exact import ShardVectors, SideBySide, search
from retrieval_detect.store.manifest import read_current
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.store import Store
from retrieval_detect.store.verify import findings
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.measure import Reviewer
from retrieval_detect.teach.projections import commit_projection, fitted_projection, use_projection
from retrieval_detect.types import LABELS, NEAR_COSINE
from retrieval_detect.verdicts import Question
from tests.layered import add, empty, image, images, layered

TWO = ("proj", "block01")
NOT_IN_FORCE = {"density", "mean"}
"""Calibrations through the stored vectors, which no addition fits again once another map is searched."""
OPTIONS = {"identity": (("pre",), {}), "heads": (("heads01",), {"head_width": 4})}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layered") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder.parent / "cache"))
        store = layered(folder)
        for method in ("density", "mean"):
            commit_calibration(store, fit_calibration(store.snapshot(), Question(method)))
    return folder


@pytest.fixture
def store(built, tmp_path):
    return Store(shutil.copytree(built, tmp_path / "index"))


def fit(store, name, kind="whiten", layers=TWO, **options):
    snapshot = store.snapshot()
    fitted = fitted_projection(snapshot, kind, layers, options=options)
    return commit_projection(store, name, fitted, of=snapshot)


def fitted_names(store, kind="calibration"):
    return [f.name for f in store.snapshot().manifest.fitted if f.kind == kind]


def stale_names(store):
    return {f.name for f in store.snapshot().stale()}


def judged(store, projection=None, name="question-1", **asked):
    return Detector(store.snapshot()).judge(image(name), projection=projection, **asked)


# ---------------------------------------------------------------- fitted and in force


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_into_force_in_one_generation(store, kind):
    layers, options = OPTIONS.get(kind, (TWO, {}))
    before = store.snapshot().manifest
    manifest = fit(store, "mine", kind, layers, **options)
    assert (manifest.generation, manifest.projection) == (before.generation + 1, "mine")
    projection = read_projection(store.snapshot())
    derived = {path.name.split(".")[0] for path in (store.folder / "banks").glob(f"*.{projection.id}.faiss")}
    assert derived == {s.record.id for s in store.snapshot().shards(split="bank")}
    assert fitted_names(store) == ["density", "mean", "density--mine", "mean--mine"]
    assert projection.temperature == projection.facts["temperature"]
    assert 0.5 < projection.facts["held_out_auc"]["20"] <= 1
    assert judged(store).p_values and judged(store, method="mean").p_values
    assert verify(store.snapshot()).problems == ()


def test_the_banks_of_it_answer_as_its_formula_says_bit_for_bit(store):
    fit(store, "white", layers=("block01", "proj", "pre"), weights="1,0.5,2")
    snapshot, question = store.snapshot(), image("question-2")
    banks = Banks(snapshot)
    projection = banks.projection
    query = np.concatenate([question.vectors[layer] for layer in projection.layers])
    near = banks.nearest(asked_about([question], projection.layers), wanted=20).voters
    for label in LABELS:
        shards = [
            ShardVectors(s.record.id, s.row_ids, SideBySide([s.vectors(n) for n in projection.layers]))
            for s in snapshot.shards(label, "bank")
        ]
        n = int(near[label].n[0])
        oracle = search(query[None, :], shards, k=n, projection=projection)
        assert n >= 20
        assert np.array_equal(near[label].row_ids, oracle.row_ids)
        assert np.array_equal(near[label].similarities, oracle.similarities)
        row = snapshot.take([int(near[label].row_ids[0, 0])], ["content_id"])[0]
        assert row["content_id"] != question.content_id


def test_weights_that_are_learnt_as_none_leave_their_layer_out_everywhere(store):
    """Its T is chosen through the layers that are left, not through the first columns of all of them."""
    fit(store, "learnt", "concat", ("pre", "proj", "block01"), learn=True)
    projection = read_projection(store.snapshot())
    assert projection.layers == ("proj", "block01")
    again = fitted_projection(
        store.snapshot(),
        "concat",
        projection.layers,
        options={"weights": ",".join(str(part.weight) for part in projection.parts)},
    )
    assert projection.facts["held_out_auc"] == again.facts["held_out_auc"]


def test_several_live_side_by_side_and_each_keeps_its_calibrations(store):
    plain = judged(store)
    fit(store, "white")
    fit(store, "sorted", "lda")
    assert fitted_names(store, "projection") == ["white", "sorted"]
    assert judged(store).score == judged(store, "sorted").score
    white, flat = judged(store, "white"), judged(store, "identity")
    assert (flat.score, flat.p_values) == (plain.score, plain.p_values)
    assert len({judged(store, "sorted").score, white.score, flat.score}) == 3
    assert white.p_values and not any("rd fit" in w for w in (*white.warnings, *flat.warnings))


def test_going_back_keeps_what_was_calibrated_before(store):
    commit_calibration(store, fit_calibration(store.snapshot(), Question("mean", 5)))
    fit(store, "white")
    files = {f.name: f.files for f in store.snapshot().manifest.fitted}
    manifest = use_projection(store, "identity")
    assert manifest.projection == "identity" and manifest.operation.detail["projection"] == "identity"
    assert {f.name: f.files for f in manifest.fitted} == files
    assert judged(store, method="mean", k=5).p_values
    assert use_projection(store, "white").projection == "white"


def test_fitted_again_under_its_name_it_is_calibrated_again(store):
    fit(store, "white")
    commit_calibration(store, fit_calibration(store.snapshot(), Question("nearest")))
    use_projection(store, "identity")
    fit(store, "white", layers=("proj",))
    assert judged(store, method="nearest").p_values and judged(store).p_values
    assert judged(store, "identity").p_values


def test_a_rollback_brings_the_old_default_back(store):
    before = store.snapshot().manifest
    fit(store, "white")
    with store.writer() as writer:
        writer.rollback(before.generation)
    assert store.snapshot().manifest.projection == "identity"
    assert fitted_names(store, "projection") == [] and judged(store).p_values


# ---------------------------------------------------------------- what changes under it


def test_a_whitening_goes_along_with_photographs_and_stays_when_fakes_come(store):
    fit(store, "white")
    found = [store.snapshot().fitted("projection", "white")]
    review = Reviewer()
    for name, fake in (("newgen", True), ("drone", False)):
        label = "fake" if fake else "real"
        add(store, images(name, 40, fake=fake), label, name, review)
        found.append(store.snapshot().fitted("projection", "white"))
        assert stale_names(store) == NOT_IN_FORCE and judged(store).p_values
    assert found[0] == found[1] != found[2]


def test_a_projection_too_large_to_be_fitted_anew_is_stale_after_many_photographs(store, monkeypatch):
    monkeypatch.setattr("retrieval_detect.teach.refit.REFIT_AT_MOST", 0)
    fit(store, "white")
    review = Reviewer()
    add(store, images("newgen", 60, fake=True), "fake", "newgen", review)
    add(store, images("glider", 6), "real", "glider", review)  # few of them change no direction
    assert stale_names(store) == NOT_IN_FORCE
    assert not any("rd fit" in w for w in judged(store).warnings)
    add(store, images("drone", 40), "real", "drone", review)
    assert stale_names(store) == {"white", *NOT_IN_FORCE}
    said = [w for w in judged(store).warnings if "projection white" in w]
    assert len(said) == 1 and "rd fit projection" in said[0]
    assert not any("projection white" in w for w in judged(store, "identity").warnings)
    assert len(fitted_names(store)) == 4 and judged(store).p_values


def test_what_is_fitted_while_references_come_is_stale(store):
    snapshot = store.snapshot()
    fitted = fitted_projection(snapshot, "whiten", TWO)
    add(store, images("drone", 60), "real", "drone")
    commit_projection(store, "white", fitted, of=snapshot)
    assert "white" in stale_names(store)
    assert "density--white" not in stale_names(store)


def test_nothing_set_aside_any_more_does_not_bar_the_way(store):
    set_aside = np.concatenate([s.row_ids for s in store.snapshot().shards("real", "calib")])
    with store.writer() as writer:
        writer.remove(set_aside.tolist(), reason="x", detail={})
    fit(store, "white")
    assert judged(store).p_values is None


def test_purged_rows_leave_every_derived_file(store):
    fit(store, "white")
    gone = store.snapshot().shards("real", "bank")[0].row_ids[:3].tolist()
    old = store.snapshot().shards("real", "bank")[0].record.id
    assert list((store.folder / "banks").glob(f"{old}.*"))
    with store.writer() as writer:
        writer.remove(gone, reason="x", detail={})
        writer.compact(purge=True)
    shards = {s.record.id for s in store.snapshot().shards()}
    assert {path.name.split(".")[0] for path in (store.folder / "banks").iterdir()} <= shards - {old}
    assert "white" in stale_names(store)
    assert judged(store).score and verify(store.snapshot()).problems == ()


def test_a_near_duplicate_is_told_by_the_stored_layer_whatever_the_projection_says(store):
    """Identity of an image is a matter of the plain cosine and the hash; the map may turn it upside down."""
    original = image("single-copied", phash=0b1011)
    add(store, [original], "real", "single")
    rng = np.random.default_rng(3)
    near = {
        n: x + 0.1 * np.linalg.norm(x) * unit(rng.normal(size=x.shape)) for n, x in original.vectors.items()
    }
    far = near | {"block01": -near["block01"].astype(np.float32)}
    fit(store, "turned", "identity", ("block01",))
    (row_id,) = [hit[1] for hit in store.snapshot().find([original.content_id])]
    question = image("copy", vectors={n: x.astype(np.float32) for n, x in far.items()}, phash=0b1010)
    assert cosine(question.vectors["proj"], original.vectors["proj"]) > NEAR_COSINE
    verdict = Detector(store.snapshot()).judge(question)
    assert [e.row_id for e in verdict.same_image] == [row_id]
    assert verdict.same_image[0].similarity < 0  # as the banks see it
    other = replace(question, phash=~0b1010 & (2**63 - 1))
    assert Detector(store.snapshot()).judge(other).same_image == ()


def unit(x):
    return x / np.linalg.norm(x)


def cosine(a, b):
    return float(unit(a) @ unit(b))


# ---------------------------------------------------------------- leaks


def test_no_row_set_aside_reaches_a_fit(built, tmp_path):
    """The same map, whatever the rows set aside are."""
    store = Store(shutil.copytree(built, tmp_path / "planted"))
    before = {kind: fitted_projection(store.snapshot(), kind, TWO).to_bytes() for kind in ("whiten", "lda")}
    for shard in store.snapshot().shards(split="calib"):
        for layer in TWO:
            path = shard.path(f"{layer}.npy")
            planted = np.zeros_like(np.load(path))
            planted[:, 0] = 1
            np.save(path, planted)
    # Opened without its checksums, which would refuse the forgery.
    snapshot = Snapshot(store.folder, read_current(store.folder))
    assert (snapshot.shards(split="calib")[0].vectors("proj")[:, 0] == 1).all()
    for kind, expected in before.items():
        assert fitted_projection(snapshot, kind, TWO).to_bytes() == expected


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("kind", "layers", "options", "message"),
    [
        ("whiten", ("block07",), {}, "does not store layer 'block07'"),
        ("whiten", ("proj", "proj"), {}, "several different"),
        ("whitten", TWO, {}, "no projection of kind"),
        ("whiten", TWO, {"steps": 3}, "no option 'steps'"),
        ("identity", TWO, {}, "one layer"),
    ],
)
def test_what_cannot_be_fitted(store, kind, layers, options, message):
    with pytest.raises(UsageError, match=message):
        fitted_projection(store.snapshot(), kind, layers, options=options)


@pytest.mark.parametrize("name", ["identity", "Upper", "a--b", "", "x" * 31, "../up"])
def test_a_name_that_cannot_be(store, name):
    before = store.snapshot().manifest
    with pytest.raises(UsageError, match="cannot name"):
        commit_projection(store, name, fitted_projection(store.snapshot(), "concat", TWO))
    assert store.snapshot().manifest == before


def test_the_longest_names_can_be_calibrated(store):
    fit(store, "p" * 30, "concat")
    assert fitted_names(store)[-1].endswith("--" + "p" * 30)


def test_an_unknown_projection_is_named_and_nothing_happens(store):
    before = store.snapshot().manifest
    with pytest.raises(UsageError, match="no projection 'white'") as caught:
        use_projection(store, "white")
    assert "rd fit projection white --kind whiten" in caught.value.hint
    assert store.snapshot().manifest == before


@pytest.mark.parametrize("only", ["real", "fake"])
def test_one_label_only(tmp_path, only):
    store = empty(tmp_path / "one")
    add(store, images("one", 20, fake=only == "fake"), only, "one")
    with pytest.raises(UsageError, match="to fit on"):
        fitted_projection(store.snapshot(), "lda", TWO)


def test_a_generator_of_one_image(tmp_path):
    store = layered(tmp_path / "i", each=8)
    add(store, images("lonely", 1, fake=True), "fake", "lonely")
    with pytest.raises(UsageError, match="'lonely' has one image"):
        fitted_projection(store.snapshot(), "lda", TWO)
    assert fit(store, "white").projection == "white"
    assert judged(store).score


def test_all_vectors_equal(tmp_path):
    store = empty(tmp_path / "equal")
    same = image("same").vectors
    for label, kind in (("real", "camera"), ("fake", "sdxl")):
        add(store, [image(f"{kind}-{i}", vectors=same) for i in range(12)], label, kind)
    before = store.snapshot().manifest
    with pytest.raises(UsageError, match="equal"):
        fitted_projection(store.snapshot(), "whiten", TWO)
    assert store.snapshot().manifest == before


def test_a_reference_that_the_map_makes_zero_stops_the_commit(store):
    """Banks are built before the commit, so that what they cannot hold keeps the old generation."""
    snapshot, before = store.snapshot(), store.snapshot().manifest
    fitted = fitted_projection(snapshot, "whiten", ("proj",))
    blind = replace(fitted.parts[0], matrix=np.zeros_like(fitted.parts[0].matrix))
    with pytest.raises(VectorError, match="zero"):
        commit_projection(store, "blind", replace(fitted, parts=(blind,)), of=snapshot)
    assert store.snapshot().manifest == before and list(findings(store.snapshot())) == []


def test_a_death_before_the_commit_leaves_the_old_generation(store, monkeypatch):
    before = store.snapshot().manifest
    with monkeypatch.context() as patch:
        patch.setattr("retrieval_detect.store.writer.commit", _dies)
        with pytest.raises(KeyboardInterrupt):
            fit(store, "white")
    assert store.snapshot().manifest == before and judged(store).p_values
    assert list((store.folder / "projections").iterdir())
    use_projection(store, "identity")
    assert list((store.folder / "projections").iterdir()) == []


def _dies(*_):
    raise KeyboardInterrupt


def test_files_derived_through_a_projection_that_is_gone_are_swept(store):
    fit(store, "white")
    banks = store.folder / "banks"
    stray = banks / f"{store.snapshot().shards()[0].record.id}.0123456789ab.faiss"
    stray.write_bytes(b"of a projection that nobody knows")
    add(store, [image("one more")], "fake", "sdxl")
    Detector(store.snapshot()).open_banks()
    left = {path.name.split(".")[1] for path in banks.iterdir()}
    assert "0123456789ab" not in left and read_projection(store.snapshot(), "white").id in left
