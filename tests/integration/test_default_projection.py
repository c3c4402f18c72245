"""What a new index searches through, and how long that stays true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.fitted import PLAIN, read_projection
from retrieval_detect.encoders.base import default_layers
from retrieval_detect.store.training import load_training_set
from retrieval_detect.teach.again import CENTRED_FROM, DEFAULT, DEFAULT_T, FEWEST
from retrieval_detect.teach.measure import Reviewer
from retrieval_detect.teach.projections import commit_projection, fit_default, fitted_projection
from retrieval_detect.teach.refit import refitted
from tests.factories import spec
from tests.layered import add, empty, image, images


def taught(folder, *, each=FEWEST, sources=("camera", "phone"), generators=("sdxl", "flux"), **encoder):
    store = empty(folder / "idx", **encoder)
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


def test_it_takes_one_generator(tmp_path):
    store = taught(tmp_path, generators=("sdxl",), each=2 * FEWEST)
    assert fit_default(store).projection == DEFAULT


@pytest.mark.parametrize("few", [{"each": 20}, {"sources": ("camera",), "each": 200}])
def test_where_there_is_too_little_the_vectors_are_searched_as_they_are(tmp_path, few):
    store = taught(tmp_path, **few)
    assert fit_default(store, calibrate=False) is None
    assert store.snapshot().manifest.projection == PLAIN


def test_left_alone_it_outlives_additions_but_not_removals_nor_many_of_them(tmp_path):
    store = taught(tmp_path)
    fit_default(store, calibrate=False)
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


def clip_of_twelve_blocks():
    widths = {"proj": 512, **{f"{kind}{n:02d}": 768 for kind in ("block", "heads") for n in range(1, 13)}}
    return replace(spec(), layers=widths, is_clip=True)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ("proj", "block09")),
        ({"is_clip": False}, ("proj",)),
        ({"layers": {"proj": 512, "block01": 64, "block02": 64}}, ("proj",)),
    ],
    ids=["CLIP transformer", "another transformer", "read at no class token"],
)
def test_a_clip_transformer_keeps_a_block_three_quarters_up(changed, expected):
    assert default_layers(replace(clip_of_twelve_blocks(), **changed)) == expected


def test_inside_a_clip_the_default_reads_that_block_alone(tmp_path):
    store = taught(tmp_path, is_clip=True)
    fit_default(store)
    assert default_layers(store.snapshot().manifest.encoder) == ("proj", "block01")
    projection = Detector(store.snapshot()).banks.projection
    assert projection.layers == ("block01",)
    other = taught(tmp_path / "other")
    fit_default(other)
    assert Detector(other.snapshot()).banks.projection.layers == ("proj",)


def test_a_small_index_of_a_clip_is_centred_inside_it(tmp_path):
    store = taught(tmp_path, each=CENTRED_FROM, sources=("camera",), generators=("sdxl",), is_clip=True)
    fit_default(store, calibrate=False)
    projection = searched(store)
    assert (projection.kind, projection.layers, projection.temperature) == ("whiten", ("block01",), DEFAULT_T)
    held = load_training_set(store.snapshot(), ("block01",))
    centred = held.vectors["block01"] - held.vectors["block01"][~held.fake].mean(axis=0)
    wanted = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    z = projection.apply(held.vectors["block01"])
    assert np.allclose(z @ z.T, wanted @ wanted.T, atol=1e-4)
    fewer = taught(
        tmp_path / "fewer", each=CENTRED_FROM - 2, sources=("camera",), generators=("sdxl",), is_clip=True
    )
    assert fit_default(fewer, calibrate=False) is None


def test_it_becomes_that_of_a_large_one_as_it_grows(tmp_path):
    some = {"each": 70, "generators": ("sdxl",), "is_clip": True}
    grown, whole = (taught(tmp_path / name, **some) for name in ("grown", "whole"))
    fit_default(grown, calibrate=False)
    assert searched(grown).kind == "whiten"
    for store in (grown, whole):
        add(store, [image(f"few-{i}", fake=True) for i in range(100)], "fake", "new", review=refit)
    fit_default(whole, calibrate=False)
    assert searched(grown).kind == "nullspace" and searched(grown).id == searched(whole).id


# ---------------------------------------------------------------- fitted anew with an addition


def refit(writer, new):
    return refitted(writer, new)


def searched(store):
    return read_projection(store.snapshot())


def test_an_index_that_was_added_to_searches_as_one_built_at_once(tmp_path):
    grown, whole = (taught(tmp_path / name) for name in ("grown", "whole"))
    fit_default(grown)
    before = searched(grown).id
    for store in (grown, whole):
        add(store, [image(f"few-{i}", fake=True) for i in range(30)], "fake", "new", review=refit)
    fit_default(whole)
    assert before != searched(grown).id == searched(whole).id
    assert not grown.snapshot().stale()


def test_the_reviewer_fits_it_anew_without_a_calibration_too(tmp_path):
    store = taught(tmp_path)
    fit_default(store)
    before = searched(store).id
    add(store, [image(f"few-{i}", fake=True) for i in range(30)], "fake", "new", review=Reviewer())
    assert searched(store).id != before


def test_one_that_a_person_fitted_keeps_its_options_and_temperature(tmp_path):
    store = taught(tmp_path)
    options = {"directions": 2, "content": "within"}
    mine = fitted_projection(store.snapshot(), "nullspace", ("proj", "block01"), options=options)
    mine = replace(mine, facts=dict(mine.facts) | {"temperature": 0.15})
    commit_projection(store, "mine", mine)
    add(store, [image(f"few-{i}", fake=True) for i in range(30)], "fake", "new", review=refit)
    again = searched(store)
    assert (again.id != mine.id, again.layers, again.temperature) == (True, mine.layers, mine.temperature)
    assert again.facts["options"] == mine.facts["options"] and again.facts["removed"] == 2
    assert "held_out_auc" in mine.facts and "held_out_auc" not in again.facts


def test_what_saw_none_of_the_new_rows_stays(tmp_path):
    store = taught(tmp_path)
    commit_projection(store, "white", fitted_projection(store.snapshot(), "whiten", ("proj",)))
    before = store.snapshot().fitted("projection", "white")
    add(store, [image(f"few-{i}", fake=True) for i in range(30)], "fake", "new", review=refit)
    assert store.snapshot().fitted("projection", "white") == before
    add(store, [image(f"more-{i}") for i in range(30)], "real", "press", review=refit)
    assert store.snapshot().fitted("projection", "white") != before


def test_neither_what_is_trained_nor_that_of_a_large_bank_is_fitted_anew(tmp_path, monkeypatch):
    store = taught(tmp_path)
    nca = fitted_projection(store.snapshot(), "nca", ("proj",), options={"iterations": 2})
    commit_projection(store, "nca", nca)
    add(store, [image(f"few-{i}", fake=True) for i in range(5)], "fake", "new", review=refit)
    assert searched(store).id == nca.id
    fit_default(store)
    before = searched(store).id
    monkeypatch.setattr("retrieval_detect.teach.refit.REFIT_AT_MOST", 100)
    add(store, [image(f"more-{i}", fake=True) for i in range(5)], "fake", "new", review=refit)
    assert searched(store).id == before


def test_where_nothing_can_be_fitted_any_more_the_addition_still_goes_in(tmp_path):
    store = taught(tmp_path)
    fit_default(store)
    before = searched(store).id
    with store.writer() as writer:
        writer.remove(store.snapshot().shards("fake", "bank")[0].row_ids.tolist(), reason="", detail={})
    add(store, [image("one-0", fake=True)], "fake", "new", review=refit)
    assert searched(store).id == before and store.snapshot().stale()
