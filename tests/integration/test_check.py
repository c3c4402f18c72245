"""References that disagree: planted wrong labels and bad deliveries are found, and nobody else is accused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect.ask.references import References
from retrieval_detect.errors import UsageError
from retrieval_detect.review.disagreements import check
from retrieval_detect.verdicts import Question
from tests.factories import add, digest, new_store
from tests.kinds import kind

PHOTO, MADE = 3, 7
"""The axes along which photographs and fakes lie."""


def taught(folder, *, pull=8.0):
    store = new_store(folder / "index")
    add(store, kind("camera", 60, axis=PHOTO, pull=pull), "real", "camera", batch="first", contributor="ann")
    add(store, kind("phone", 60, axis=PHOTO, pull=pull), "real", "phone", batch="second", contributor="ann")
    add(store, kind("sdxl", 60, axis=MADE, pull=pull), "fake", "sdxl", batch="first")
    add(store, kind("flux", 60, axis=MADE, pull=pull), "fake", "flux", batch="third")
    return store


@pytest.fixture
def store(tmp_path):
    return taught(tmp_path)


def uris(found):
    return {row.uri for row in found.disagreements}


# ---------------------------------------------------------------- single references


@pytest.mark.parametrize("method", ["density", "mean", "nearest", "majority"])
def test_clean_references_are_not_accused(store, method):
    found = check(store.snapshot(), Question(method))
    assert found.disagreements == () and found.deliveries == ()
    manifest = store.snapshot().manifest
    asked = {spread.label: spread.asked for spread in found.spreads}
    assert asked == {label: manifest.live_rows(label, "bank") for label in ("real", "fake")}


@pytest.mark.parametrize("method", ["density", "mean"])
def test_planted_wrong_labels_are_found_and_no_other(store, method):
    add(store, kind("stray-photo", 4, axis=PHOTO), "fake", "stray")
    add(store, kind("stray-fake", 3, axis=MADE), "real", "web")
    found = check(store.snapshot(), Question(method))
    planted = [*kind("stray-photo", 4, axis=PHOTO), *kind("stray-fake", 3, axis=MADE)]
    assert uris(found) == {image.item.uri for image in planted}
    for row in found.disagreements:
        assert (row.score > 0) == (row.label == "real")
        assert row.others >= 8 and row.of == 10 and row.other_name in ("camera", "phone", "sdxl", "flux")
        assert row.other_similarity > 0.4 and row.expected == 0 and row.as_far <= 4
    strengths = [abs(row.score) for row in found.disagreements]
    assert strengths == sorted(strengths, reverse=True)
    assert {s.label: (s.disagree, s.expected) for s in found.spreads} == {"real": (3, 0), "fake": (4, 0)}


def test_the_nearest_of_the_other_label_is_the_nearest(store):
    add(store, kind("stray-photo", 1, axis=PHOTO), "fake", "stray")
    snapshot = store.snapshot()
    (row,) = check(snapshot).disagreements
    ids = [int(i) for shard in snapshot.shards("real", "bank") for i in shard.row_ids]
    own = snapshot.gather([row.row_id], "proj")[0]
    cosines = snapshot.gather(ids, "proj") @ own
    assert row.other_row_id == ids[int(cosines.argmax())]
    assert row.other_similarity == pytest.approx(float(cosines.max()), abs=1e-3)


def test_where_the_banks_overlap_as_many_are_expected_as_are_found(tmp_path):
    """Nothing tells these labels apart, so that some disagree proves nothing, and the report says so."""
    store = new_store(tmp_path / "same")
    add(store, kind("camera", 150, axis=PHOTO), "real", "camera")
    add(store, kind("sdxl", 150, axis=PHOTO), "fake", "sdxl")
    spreads = [spread for spread in check(store.snapshot()).spreads if spread.disagree]
    assert spreads
    for spread in spreads:
        assert spread.as_far <= 2 * spread.expected + 10


def test_a_small_bank_is_not_accused_for_being_small(tmp_path):
    """Most neighbours of any image are of the larger bank: the share is taken as if both had one size."""
    store = new_store(tmp_path / "uneven")
    add(store, kind("camera", 8, axis=PHOTO, pull=3), "real", "camera")
    add(store, kind("sdxl", 200, axis=MADE, pull=3), "fake", "sdxl")
    found = check(store.snapshot())
    assert not [row for row in found.disagreements if row.label == "real"]


def test_a_near_duplicate_does_not_vouch(store):
    """A wrong image and its copies would otherwise be one another's neighbours."""
    (stray,) = kind("stray", 1, axis=PHOTO)
    copies = [replace(stray, content_id=digest(i)) for i in range(12)]
    add(store, [stray, *copies], "fake", "strays")
    assert len(check(store.snapshot()).disagreements) == 13


# ---------------------------------------------------------------- deliveries


def test_a_bad_batch_and_its_contributor_stand_out(store):
    add(store, kind("bad", 12, axis=MADE), "real", "web", batch="bad", contributor="bob")
    add(store, kind("good", 12, axis=PHOTO), "real", "web", batch="good", contributor="eve")
    found = check(store.snapshot())
    assert {(d.kind, d.name, d.label) for d in found.deliveries} == {
        ("batch", "bad", "real"),
        ("contributor", "bob", "real"),
    }
    for delivery in found.deliveries:
        assert delivery.n == 12 and delivery.disagree >= 6 and delivery.disagree_elsewhere == 0
        assert delivery.p < 1e-3
        elsewhere = store.snapshot().manifest.live_rows("real", "bank") - 12
        assert delivery.n_elsewhere == elsewhere


def test_one_wrong_image_does_not_blame_its_batch(store):
    add(store, kind("mixed", 1, axis=MADE), "real", "web", batch="mixed")
    add(store, kind("mixed-good", 20, axis=PHOTO), "real", "web", batch="mixed")
    found = check(store.snapshot())
    assert len(found.disagreements) == 1 and found.deliveries == ()


def test_a_contributor_weighs_no_more_than_the_largest_share(store):
    for number in range(6):
        poison = kind(f"poison{number}", 20, axis=PHOTO)
        add(store, poison, "fake", f"made-up-{number}", batch=f"b{number}", contributor="mallory")
    snapshot = store.snapshot()
    references = References.load(snapshot, "fake")
    weights = np.exp(references.log_weight)
    facts = snapshot.take(references.row_ids.tolist(), ["contributor"])
    by_mallory = np.array([row["contributor"] == "mallory" for row in facts])
    largest = max(weights[references.name == code].sum() for code in range(len(references.names)))
    assert by_mallory.sum() == 120
    assert weights[by_mallory].sum() <= largest * (1 + 1e-9)


# ---------------------------------------------------------------- how it is asked


def test_at_most_asks_evenly(store):
    calls = []
    found = check(store.snapshot(), at_most=20, progress=calls.append)
    asked = {spread.label: spread.asked for spread in found.spreads}
    assert sum(calls) == sum(asked.values()) <= 24 and all(n >= 5 for n in asked.values())


def test_a_bank_of_one_group_cannot_be_asked_about_it(tmp_path):
    store = new_store(tmp_path / "lone")
    add(store, kind("camera", 1, axis=PHOTO), "real", "camera")
    add(store, kind("sdxl", 20, axis=MADE), "fake", "sdxl")
    found = check(store.snapshot())
    assert found.alone == 1
    assert {s.label: s.asked for s in found.spreads} == {"real": 0, "fake": 20}


def test_an_unknown_method_is_refused(store):
    with pytest.raises(UsageError, match="has no method 'guess'"):
        check(store.snapshot(), Question("guess"))
