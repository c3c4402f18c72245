"""The map of the banks: what is drawn of many references, and where others are placed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from retrieval_detect.errors import EmptyBank
from retrieval_detect.report.html.map import map_view
from retrieval_detect.review.map import _drawn, draw
from retrieval_detect.store.snapshot import Snapshot
from tests.factories import D, add, embedded, names, new_store


@pytest.fixture
def snapshot(tmp_path):
    """Fakes about one point, photographs about the opposite one."""
    store = new_store(tmp_path / "index")
    centre = np.random.default_rng(1).normal(size=D).astype(np.float32) * 3
    for label, sign in (("fake", 1), ("real", -1)):
        images = [
            embedded(
                f"{label}-{i}",
                vector=(sign * centre + np.random.default_rng(i).normal(size=D)).astype(np.float32),
            )
            for i in range(20)
        ]
        add(store, images, label, label)
    return Snapshot.open(store.folder)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_what_is_alike_lies_together(snapshot, method):
    atlas = draw(snapshot, method=method)
    assert atlas.places.shape == (40, 2) and atlas.places.min() >= 0 and atlas.places.max() <= 1
    fakes, photographs = atlas.places[atlas.fake], atlas.places[~atlas.fake]
    apart = np.linalg.norm(fakes.mean(axis=0) - photographs.mean(axis=0))
    assert apart > 2 * max(fakes.std(axis=0).max(), photographs.std(axis=0).max())
    np.testing.assert_array_equal(draw(snapshot, method=method).places, atlas.places)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_an_image_is_placed_among_its_like(snapshot, method):
    atlas = draw(snapshot, method=method)
    vector = snapshot.gather([atlas.row_ids[atlas.fake][0]], "proj")[0]
    place = np.array(atlas.place({"proj": vector * 5}))
    centres = [atlas.places[atlas.fake == fake].mean(axis=0) for fake in (True, False)]
    near, far = (np.linalg.norm(place - centre) for centre in centres)
    assert near < far / 2


def test_a_reference_is_placed_where_it_is_drawn(snapshot):
    atlas = draw(snapshot)
    vector = snapshot.gather([atlas.row_ids[3]], "proj")[0]
    np.testing.assert_allclose(atlas.place({"proj": vector}), atlas.places[3], atol=0.02)
    row_id = int(atlas.row_ids[3])
    np.testing.assert_allclose(atlas.place_among(snapshot, [row_id], [0.9]), atlas.places[3], atol=1e-4)


def test_the_mean_of_neighbours_is_weighted(snapshot):
    atlas = draw(snapshot, method="tsne")
    a, b = (int(row_id) for row_id in atlas.row_ids[[0, 39]])
    place = atlas.place_among(snapshot, [a, b, 10**6], [0.9, 0.1, 1.0])
    np.testing.assert_allclose(place, 0.9 * atlas.places[0] + 0.1 * atlas.places[39], atol=1e-5)
    assert atlas.place_among(snapshot, [10**6], [1.0]) is None


def test_of_many_every_name_gives_as_many():
    given = [("fake", "a")] * 1000 + [("fake", "b")] * 30 + [("real", "a")] * 500
    drawn = _drawn(given, 210)
    assert Counter(given[i] for i in drawn) == {("fake", "a"): 90, ("fake", "b"): 30, ("real", "a"): 90}
    assert drawn == sorted(set(drawn)) == _drawn(given, 210)


def test_too_few_to_draw(tmp_path):
    store = new_store(tmp_path / "index")
    add(store, names("one", 2), "real")
    with pytest.raises(EmptyBank, match="three references"):
        draw(Snapshot.open(store.folder))


def test_names_beyond_the_colours_share_one(tmp_path):
    store = new_store(tmp_path / "index")
    for i in range(10):
        add(store, names(f"fake{i}", 10 - i), "fake", f"g{i}")
    add(store, names("real", 3), "real", "camera")
    view = map_view(draw(Snapshot.open(store.folder)), index="i", colour="generator")
    named = [(kind.name, kind.label) for kind in view.kinds]
    fakes = [*(f"g{i}" for i in range(6)), "others"]
    assert named == [("photographs", "real"), *((name, "fake") for name in fakes)]
    assert sum(kind.n for kind in view.kinds) == len(view.dots) == 58
    assert Counter(dot.kind for dot in view.dots) == {i: kind.n for i, kind in enumerate(view.kinds)}
    assert all(view.kinds[dot.kind].label == dot.label for dot in view.dots)
    assert len({kind.colour for kind in view.kinds}) == 8
