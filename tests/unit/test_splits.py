from __future__ import annotations

from collections import Counter

import pytest

from retrieval_detect.store.groups import CALIB_ONE_IN, MIN_GROUPS, assign_splits
from tests.factories import add, digest, embedded, names, new_store

STRATUM = ("real", "camera")


def splits_of(store):
    return {
        row["uri"]: row["split"] for row in store.snapshot().scan(["uri", "split"]).sort_by("uri").to_pylist()
    }


def test_the_split_of_a_name_is_fixed_for_ever():
    """Indexes that exist rely on it: a change of the hash would mix banks and calibration."""
    keys = [bytes([n]) for n in range(40)]
    calib = [n for n, split in enumerate(assign_splits([STRATUM] * 40, keys, {})) if split == "calib"]
    assert calib == [0, 5, 26, 28, 29, 30]


def test_small_strata_give_everything_to_the_bank():
    keys = [digest(i) for i in range(MIN_GROUPS - 1)]
    assert set(assign_splits([STRATUM] * len(keys), keys, {})) == {"bank"}


def test_strata_are_counted_apart():
    keys = [digest(i) for i in range(200)]
    strata = [STRATUM] * 100 + [("fake", f"g{i}") for i in range(100)]
    splits = assign_splits(strata, keys, {})
    assert splits[:100].count("calib") > 5 and set(splits[100:]) == {"bank"}


def test_about_a_fifth():
    keys = [digest(i) for i in range(5000)]
    share = assign_splits([STRATUM] * 5000, keys, {}).count("calib") / 5000
    assert share == pytest.approx(1 / CALIB_ONE_IN, abs=0.02)


def test_a_split_is_decided_once(tmp_path):
    """What came before a stratum was large enough stays in the bank."""
    store = new_store(tmp_path / "idx")
    add(store, names("a", MIN_GROUPS - 1), "real", "camera")
    before = splits_of(store)
    assert set(before.values()) == {"bank"}
    add(store, names("b", 60), "real", "camera")
    after = splits_of(store)
    assert {uri: after[uri] for uri in before} == before and "calib" in after.values()


def test_the_same_images_in_one_go_split_the_same_in_every_index(tmp_path):
    images = names("a", 80)
    found = []
    for n, order in enumerate((images, images[::-1], images[40:] + images[:40])):
        store = new_store(tmp_path / str(n))
        add(store, order, "fake", "sdxl")
        found.append(splits_of(store))
    assert found[0] == found[1] == found[2] and Counter(found[0].values())["calib"] > 0


def test_names_and_neighbours_in_the_index_do_not_matter(tmp_path):
    alone, among = new_store(tmp_path / "alone"), new_store(tmp_path / "among")
    add(alone, names("a", 50), "fake", "sdxl")
    add(among, names("z", 70), "real", "camera")
    add(among, names("a", 50), "fake", "flux")
    wanted = splits_of(alone)
    assert {uri: split for uri, split in splits_of(among).items() if uri in wanted} == wanted


def test_a_group_of_copies_counts_once(tmp_path):
    store = new_store(tmp_path / "idx")
    first = embedded("first")
    copies = [embedded(f"c{i}", vector=first.vectors["proj"], phash=first.phash) for i in range(40)]
    manifest = add(store, [first, *copies], "real", "camera")
    assert manifest.live_rows("real", "bank") == 41 and manifest.strata[0].groups == 1
