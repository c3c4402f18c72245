"""What banks leave to vote, against looking at every row: views, copies, groups, ties, other projections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect.ask import banks as searching
from retrieval_detect.ask.banks import Banks
from retrieval_detect.ask.methods import asked_about, stored_copies
from retrieval_detect.scoring.neighbours import same_image
from retrieval_detect.search.exact import search
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.writer import Addition
from retrieval_detect.teach.projections import commit_projection, fitted_projection
from retrieval_detect.types import LABELS, NEAR_HAMMING, Facts
from retrieval_detect.vectors import unit
from tests.layered import add, image, images, layered
from tests.rescoring import near_duplicates
from tests.votes import BankNeighbours, nearest_images

WANTED = 20


def views_of(one, n):
    copies = near_duplicates(one, n, seed=3)
    return [replace(copy, content_id=one.content_id, view=f"jpeg-{i}") for i, copy in enumerate(copies)]


@pytest.fixture(scope="module", params=["identity", "white"])
def snapshot(request, tmp_path_factory):
    """Images with views, a clan of near-duplicates that is more than is fetched at once, equal vectors."""
    store = layered(tmp_path_factory.mktemp("banks") / "index", each=40)
    found = images("viewed", 6, fake=True)
    with store.writer() as writer:
        staging, rows = writer.staging(), [each for one in found for each in (one, *views_of(one, 3))]
        staging.add(rows)
        facts = Facts("fake", generator="viewed")
        writer.add(Addition([NewRow(r.content_id, r.item.uri, facts, r.view) for r in rows]), staging)
    add(store, near_duplicates(image("flux-0", fake=True), 50, seed=1), "fake", "clan")
    same = image("camera-1").vectors
    add(store, [image(f"tied-{i}", vectors=same) for i in range(6)], "real", "tied")
    before = store.snapshot()
    if request.param == "white":
        commit_projection(store, "white", fitted_projection(before, "whiten", ["proj", "pre"]), of=before)
    return store.snapshot()


def asked_of():
    return [
        *images("new", 3),
        *images("viewed", 2, fake=True),
        *near_duplicates(image("flux-0", fake=True), 1, seed=9),
        image("other", vectors=image("camera-1").vectors),
        image("camera-1"),
        image("press-3"),
    ]


def voters_by_hand(snapshot, one, known):
    """Label → the nearest images of every live row, without the image's own; and the groups of those."""
    banks = Banks(snapshot)
    joined = np.concatenate([one.vectors[layer] for layer in banks.projection.layers])
    both = {}
    for label in LABELS:
        references = banks.references(label)
        found = search(
            joined[None, :],
            banks._shards(label),
            k=len(references),
            projection=banks.projection,
            dead=snapshot.dead,
        )
        at = np.searchsorted(references.row_ids, found.row_ids[0])
        stored = snapshot.gather(references.row_ids[at].tolist(), "proj")
        rounded = unit(one.vectors["proj"][None, :]).astype(np.float16).astype(np.float32)
        cosines = (unit(stored) @ unit(rounded)[0]).astype(np.float32)
        hamming = np.bitwise_count(references.phash[at] ^ np.uint64(one.phash))
        content = references.content[at] == int.from_bytes(one.content_id[:8], "big")
        own = same_image(np.where(hamming <= NEAR_HAMMING, cosines, 0), hamming, same_content=content)
        both[label] = references, found, at, own
    groups = known | {g for refs, _, at, own in both.values() for g in refs.group[at[own]].tolist()}
    near, copies = {}, set()
    for label, (references, found, at, own) in both.items():
        own |= np.isin(references.group[at], list(groups))
        copies |= set(found.row_ids[0][own].tolist())
        similarities = np.where(own, -np.inf, found.similarities[0]).astype(np.float32)
        columns = (references.content, references.log_weight, references.name)
        neighbours = BankNeighbours(
            similarities, *(c[at] for c in columns), found.row_ids[0], references.n_images
        )
        near[label] = nearest_images(neighbours, WANTED)
    return near, groups, copies


@pytest.mark.parametrize("at_once", [1, 1 << 19], ids=["one at a time", "all together"])
def test_voters_are_those_of_looking_at_every_row(snapshot, monkeypatch, at_once):
    monkeypatch.setattr(searching, "_NEIGHBOURS_AT_ONCE", at_once)
    asked = asked_of()
    stored = stored_copies(snapshot, [one.content_id for one in asked])
    known = {i: {group for _, group in rows} for i, rows in stored.items()}
    banks = Banks(snapshot)
    block = replace(asked_about(asked, snapshot.manifest.layers), own_groups=known)
    found = banks.nearest(block, wanted=WANTED)
    for i, one in enumerate(asked):
        expected, groups, copies = voters_by_hand(snapshot, one, known.get(i, set()))
        for label in LABELS:
            here, there = found.voters[label].take(np.array([i])), expected[label]
            assert here.n.tolist() == there.n.tolist() == [WANTED]
            for column in ("similarities", "row_ids", "names", "log_weights"):
                assert np.array_equal(getattr(here, column), getattr(there, column)), (i, label, column)
        assert found.groups.get(i, set()) == groups
        assert set(found.own.get(i, {})) <= copies
    assert len(found.own[5]) == 51  # flux-0 and its clan


def test_an_image_that_leaves_nobody_is_asked_about_along_with_others(snapshot):
    """Groups that hold a whole bank, for one image of a block: the others vote."""
    banks = Banks(snapshot)
    everyone = set(banks.references("fake").group.tolist())
    block = replace(asked_about(images("new", 3), snapshot.manifest.layers), own_groups={1: everyone})
    found = banks.nearest(block, wanted=WANTED)
    assert found.voters["fake"].n.tolist() == [WANTED, 0, WANTED]
    assert found.voters["real"].n.tolist() == [WANTED] * 3
