"""What a new index searches through, and how long that stays true."""

from __future__ import annotations

import pytest

from retrieval_detect.detector import Detector
from retrieval_detect.search.fitted import PLAIN
from retrieval_detect.train import DEFAULT, FEWEST, fit_default
from tests.layered import add, empty, image, images


def taught(folder, *, each=FEWEST, sources=("camera", "phone"), generators=("sdxl", "flux")):
    store = empty(folder / "idx")
    for label, names in (("real", sources), ("fake", generators)):
        for name in names:
            add(store, images(name, each), label, name)
    return store


def test_it_is_fitted_where_there_is_enough(tmp_path):
    store = taught(tmp_path)
    manifest = fit_default(store)
    assert manifest.projection == DEFAULT and store.snapshot().fitted("projection", DEFAULT)
    assert Detector(store.snapshot()).banks.projection.kind == "nullspace"
    assert not store.snapshot().stale()


def test_a_single_generator_has_no_part_in_what_is_content(tmp_path):
    store = taught(tmp_path, generators=("sdxl",), each=2 * FEWEST)
    assert fit_default(store).projection == DEFAULT
    facts = Detector(store.snapshot()).banks.projection.facts
    assert facts["content"] == "photographs" and facts["labels"] == ["real"]
    oldest = int(store.snapshot().shards("fake", "bank")[0].row_ids[0])
    with store.writer() as writer:
        writer.remove([oldest], reason="", detail={})
    assert not store.snapshot().stale()


@pytest.mark.parametrize("few", [{"each": 20}, {"sources": ("camera",), "each": 200}])
def test_where_there_is_too_little_the_vectors_are_searched_as_they_are(tmp_path, few):
    store = taught(tmp_path, **few)
    assert fit_default(store) is None
    assert store.snapshot().manifest.projection == PLAIN


def test_it_outlives_additions_but_not_removals_nor_many_of_them(tmp_path):
    store = taught(tmp_path)
    fit_default(store)
    add(store, [image(f"few-{i}") for i in range(30)], "fake", "new")
    assert not store.snapshot().stale()
    with store.writer() as writer:
        newest = max(int(s.row_ids[-1]) for s in store.snapshot().shards("fake", "bank"))
        writer.remove([newest], reason="", detail={})
    assert not store.snapshot().stale()  # it never saw that one
    oldest = int(store.snapshot().shards("real", "bank")[0].row_ids[0])
    with store.writer() as writer:
        writer.remove([oldest], reason="", detail={})
    assert [f.name for f in store.snapshot().stale()] == [DEFAULT]
    with store.writer() as writer:
        writer.rollback(store.snapshot().manifest.generation - 1)
    assert not store.snapshot().stale()
    add(store, [image(f"many-{i}") for i in range(100)], "fake", "newer")
    assert [f.name for f in store.snapshot().stale()] == [DEFAULT]
    assert any("rd fit projection" in w for w in Detector(store.snapshot()).judge(image("asked")).warnings)
