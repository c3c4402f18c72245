"""What is fitted on references has not seen what it is measured by: near-duplicates of rows set aside."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from retrieval_detect.ask.fitted import read_fitted
from retrieval_detect.heads.registry import head_class
from retrieval_detect.store.training import load_training_set
from retrieval_detect.teach.again import DEFAULT, default_projection
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.heads import training_set
from retrieval_detect.teach.members import member_scores
from retrieval_detect.teach.projections import fit_default
from tests.layered import add, image, layered

FAR, HALFWAY = 0b1111111111, 0b11111
"""Bits of a perceptual hash: ten apart are two groups, five are near-duplicates."""


def like(name, of, bits, *, vectors):
    return image(name, vectors=vectors, phash=of["phash"] ^ bits)


@pytest.fixture
def bridged(tmp_path):
    """An index, a row set aside, and images that are near-duplicates in a chain: that row, bridge, anchor.

    The bridge joins the anchor, which is more like it, in the bank.
    """
    store = layered(tmp_path / "idx", each=60)
    snapshot = store.snapshot()
    aside = snapshot.scan(["row_id", "phash"], label="real", split="calib").to_pylist()[0]
    vectors = {layer: snapshot.gather([aside["row_id"]], layer)[0] for layer in snapshot.manifest.layers}
    nearby = {layer: x + np.float32(0.01) for layer, x in vectors.items()}
    anchor = like("anchor-0", aside, FAR, vectors=nearby)
    bridge = like("bridge-0", aside, HALFWAY, vectors=nearby)
    add(store, [anchor], "real", "phone")
    plain = Index.open(shutil.copytree(store.folder, tmp_path / "plain")).store
    add(store, [bridge], "real", "phone")
    rows = store.snapshot().scan(["row_id", "content_id", "split", "group"]).to_pylist()
    named = {row["content_id"]: row for row in rows}
    joined = named[bridge.content_id]
    assert joined["split"] == "bank" and joined["group"] == named[anchor.content_id]["group"]
    return store, plain, aside["row_id"], joined["row_id"]


def taught(store):
    return set(load_training_set(store.snapshot(), ("proj",)).row_ids.tolist())


def test_a_near_duplicate_of_a_row_set_aside_teaches_nothing(bridged):
    store, plain, aside, bridge = bridged
    assert taught(store) == taught(plain) and bridge not in taught(store)
    Index.open(store.folder).remove([aside])
    assert bridge in taught(store)  # nobody measures by it any more


def map_of(snapshot):
    return default_projection(snapshot).to_bytes()


def in_force(store):
    return read_fitted(store.snapshot(), DEFAULT).to_bytes()


def test_maps_heads_and_members_are_those_of_an_index_without_it(bridged):
    store, plain, *_ = bridged
    asked = {"proj": np.stack([image(f"any-{i}").vectors["proj"] for i in range(9)])}
    found = []
    for snapshot in (store.snapshot(), plain.snapshot()):
        head = head_class("linear")()
        head = head.fit(training_set(snapshot, head))
        members = member_scores(snapshot, ["density", "nearest"]).row_ids
        vectors = dict.fromkeys(head.layers, asked["proj"])
        found.append((map_of(snapshot), head.decision_function(vectors).tobytes(), members.tolist()))
    assert found[0] == found[1]


def test_what_is_in_force_follows_the_rows_set_aside(bridged):
    store, _, aside, bridge = bridged
    fit_default(store, device="cpu")
    before = in_force(store)
    Index.open(store.folder).remove([aside], device="cpu")  # of the banks nothing goes
    after = in_force(store)
    assert after == map_of(store.snapshot()) != before
    Index.open(store.folder).remove([bridge], device="cpu")
    last = in_force(store)
    assert last == before  # to the bit what it was when the bridge taught nothing
