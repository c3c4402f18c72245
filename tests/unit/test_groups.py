"""Near-duplicates find one another: among new images, and among what is stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.sources import from_bytes
from retrieval_detect.store.groups import group_rows
from retrieval_detect.types import NEAR_COSINE, NEAR_HAMMING
from tests.copies import copies, detailed
from tests.factories import D, add, embedded, new_store
from tests.strategies import QUICK


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def clusters(phashes, vectors):
    return group_rows(np.array(phashes, np.uint64), unit(np.asarray(vectors)), [], "proj").cluster.tolist()


def at_cosine(vector, cosine, seed=1):
    """A vector at a given cosine from ``vector``."""
    away = np.random.default_rng(seed).normal(size=vector.shape)
    away -= away @ vector / (vector @ vector) * vector
    return cosine * vector / np.linalg.norm(vector) + (1 - cosine**2) ** 0.5 * away / np.linalg.norm(away)


V = np.random.default_rng(0).normal(size=D)


@pytest.mark.parametrize(
    ("bits", "cosine", "together"),
    [
        (0, 1.0, True),
        (NEAR_HAMMING, NEAR_COSINE + 0.01, True),
        (NEAR_HAMMING + 1, 1.0, False),
        (0, NEAR_COSINE - 0.01, False),
        (64, 1.0, False),
    ],
)
def test_both_witnesses_are_needed(bits, cosine, together):
    other = 12345 ^ ((1 << bits) - 1)
    assert clusters([12345, other], [V, at_cosine(V, cosine)]) == ([0, 0] if together else [0, 1])


def test_a_chain_is_one_group_named_by_its_first():
    chain = [0b0, 0b1111, 0b11111111]  # the ends differ in 8 bits, each from the middle in 4
    assert clusters([99 << 32, *chain], [-V, V, V, V]) == [0, 1, 1, 1]
    assert clusters([99 << 32, chain[0], chain[2]], [-V, V, V]) == [0, 1, 2]


@pytest.mark.parametrize("n", [2, 63, 64, 65, 200, 1000])
def test_however_many_copies_are_one_group(n):
    """Candidates are capped at 64 an equal hash; a group larger than that must not fall apart."""
    assert clusters([0xDEADBEEF] * n, np.tile(V, (n, 1))) == [0] * n


def test_unlike_images_of_one_hash_stay_apart():
    vectors = np.random.default_rng(3).normal(size=(100, D))
    assert clusters([5] * 100, vectors) == list(range(100))


@QUICK
@given(st.permutations(range(12)))
def test_groups_do_not_depend_on_the_order(order):
    vectors = [np.random.default_rng(i // 3).normal(size=D) for i in range(12)]
    phashes = [int(np.random.default_rng(i // 3).integers(0, 2**62)) for i in range(12)]
    found = clusters([phashes[i] for i in order], [vectors[i] for i in order])
    parts = {frozenset(order[i] for i in range(12) if found[i] == root) for root in found}
    assert parts == {frozenset(range(start, start + 3)) for start in range(0, 12, 3)}


# ---------------------------------------------------------------- stored rows


def members(store):
    rows = store.snapshot().scan(["uri", "group", "split"]).to_pylist()
    return {row["uri"]: (row["group"], row["split"]) for row in rows}


def twin(name, of):
    return embedded(name, vector=of.vectors["proj"] * 3, phash=of.phash ^ 1)


def test_a_copy_joins_the_group_and_the_split_of_what_is_stored(tmp_path):
    store = new_store(tmp_path / "idx")
    originals = [embedded(f"o{i}") for i in range(60)]
    add(store, originals, "real", "camera")
    add(store, [twin(f"c{i}", original) for i, original in enumerate(originals)], "fake", "sdxl")
    found = members(store)
    assert {found[f"o{i}.png"][1] for i in range(60)} == {"bank", "calib"}
    for i in range(60):
        assert found[f"o{i}.png"] == found[f"c{i}.png"]


def test_copies_that_come_together_follow_the_one_that_is_known(tmp_path):
    """b resembles the stored a; c resembles b alone; all three are one group."""
    store = new_store(tmp_path / "idx")
    a = embedded("a", vector=V.astype(np.float32), phash=0)
    b = embedded("b", vector=V.astype(np.float32), phash=0b11111)
    c = embedded("c", vector=V.astype(np.float32), phash=0b1111111111)
    add(store, [a], "real")
    add(store, [c, b], "real")
    assert len({group for group, _ in members(store).values()}) == 1


def test_the_most_similar_group_is_joined(tmp_path):
    store = new_store(tmp_path / "idx")
    near, nearer = at_cosine(V, 0.96, seed=1), at_cosine(V, 0.99, seed=2)
    add(store, [embedded("near", vector=near.astype(np.float32), phash=0b1111)], "real")
    add(store, [embedded("nearer", vector=nearer.astype(np.float32), phash=0b11110000)], "real")
    add(store, [embedded("new", vector=V.astype(np.float32), phash=0)], "real")
    found = members(store)
    assert found["new.png"] == found["nearer.png"] != found["near.png"]


def test_a_removed_reference_still_leads_its_copies(tmp_path):
    """Else removing and adding again could move an image from one split to the other."""
    store = new_store(tmp_path / "idx")
    original = embedded("o")
    add(store, [original, *(embedded(f"x{i}") for i in range(40))], "real")
    before = members(store)["o.png"]
    with store.writer() as writer:
        writer.remove([0], reason="", detail={})
    add(store, [twin("c", original)], "real")
    assert members(store)["c.png"] == before


def test_files_resized_and_recompressed_are_one_group(tmp_path):
    store = new_store(tmp_path / "idx")
    given = [
        from_bytes(data, f"{seed}-{i}") for seed in range(20) for i, data in enumerate(copies(detailed(seed)))
    ]
    images = list(embed(given, TinyEncoder(), layers=["proj"]))
    add(store, images[::2], "real", "camera")
    add(store, images[1::2], "real", "elsewhere")
    groups_of = {}
    for uri, (group, _) in members(store).items():
        groups_of.setdefault(uri.split("-")[0], set()).add(group)
    assert [len(groups) for groups in groups_of.values()] == [1] * 20
    assert len({group for groups in groups_of.values() for group in groups}) == 20
