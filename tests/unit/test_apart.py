"""Generators without photographs of what they show; sources that may be one collection."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.evaluate.material import Material
from retrieval_detect.evaluate.sources import alike
from retrieval_detect.report.additions import apart_lines
from retrieval_detect.teach.apart import generators_apart
from retrieval_detect.vectors import Rows, unit

D = 32


def showing(axis, n, *, seed, style=None):
    """Images that show one thing, and may be of one style."""
    rng = np.random.default_rng(seed)
    x = 0.6 * rng.normal(size=(n, D)) / np.sqrt(D)
    x[:, axis] += 1.0
    if style is not None:
        x[:, style] += 0.35
    return unit(x.astype(np.float32))


def rows(*parts, kind=Rows, **more):
    """``parts`` : name, whether fake, vectors."""
    return kind.of(
        vectors={"proj": np.concatenate([x for _, _, x in parts])},
        norms={},
        fake=np.concatenate([np.full(len(x), fake) for _, fake, x in parts]),
        names=np.concatenate([np.full(len(x), name) for name, _, x in parts]),
        **more,
    )


STREETS = ("streets", False, showing(0, 60, seed=1))
FACES = ("portraits", False, showing(1, 60, seed=2))
SDXL = ("sdxl", True, showing(0, 60, seed=3, style=9))
SHOES = ("shoemaker", True, showing(2, 60, seed=4, style=9))


def test_a_generator_of_what_no_photograph_shows_is_named():
    (found,) = generators_apart(rows(STREETS, FACES, SDXL, SHOES), "proj")
    assert (found.generator, found.images, found.of) == ("shoemaker", 60, 60) and found.closeness < 0.85
    assert set(found.nearest) <= {"streets", "portraits"} and sum(found.nearest.values()) == 60


def test_a_few_photographs_of_it_mend_that():
    some = ("catalogue", False, showing(2, 15, seed=5))
    assert generators_apart(rows(STREETS, FACES, SDXL, SHOES, some), "proj") == []


@pytest.mark.parametrize("n", [10, 20, 40])
def test_a_generator_of_few_images_is_named_as_well(n):
    few = ("shoemaker", True, SHOES[2][:n])
    (found,) = generators_apart(rows(STREETS, FACES, SDXL, few), "proj")
    assert (found.generator, found.images) == ("shoemaker", n)
    assert not generators_apart(rows(STREETS, FACES, SDXL, ("shoemaker", True, SHOES[2][:9])), "proj")


def test_a_part_of_a_generator_is_told_from_the_rest_of_it():
    both = ("sdxl", True, np.concatenate([SDXL[2], SHOES[2]]))
    uris = [f"{i}.png" for i in range(240)]
    found = generators_apart(rows(STREETS, FACES, both), "proj", uris=uris)
    assert sum(part.images for part in found) == 60 and {part.of for part in found} == {120}
    assert all(180 <= int(name[:-4]) < 240 for part in found for name in part.examples)
    assert " of 120 images of sdxl (such as " in next(apart_lines(found))


def test_only_those_that_are_asked_for():
    everything = rows(STREETS, FACES, SDXL, SHOES)
    assert generators_apart(everything, "proj", only={"sdxl"}) == []
    assert len(generators_apart(everything, "proj", only={"shoemaker"})) == 1


def test_copies_make_no_generator_look_close_to_itself():
    """Near-duplicates are one image: twenty files of three pictures say nothing."""
    few = ("shoemaker", True, np.repeat(showing(2, 3, seed=6), 20, axis=0))
    groups = np.concatenate([np.arange(120), 1000 + np.arange(60) // 20])
    assert generators_apart(rows(STREETS, FACES, few, groups=groups), "proj") == []


def test_an_index_of_fakes_alone_has_nothing_to_compare_with():
    assert generators_apart(rows(SHOES), "proj") == []


def test_what_is_said_of_it():
    (found,) = generators_apart(rows(STREETS, FACES, SDXL, SHOES), "proj")
    (line,) = apart_lines([found])
    assert line.startswith("60 images of shoemaker: no photographs near them (nearest: ")
    assert line.endswith("photographs of that subject will look like this generator")


# ---------------------------------------------------------------- one collection under two names


def material(*parts, groups=None):
    n = sum(len(x) for _, _, x in parts)
    nothing = np.full(n, None)
    more = {"groups": np.arange(n) if groups is None else groups}
    return rows(
        *parts,
        kind=Material,
        subject="made up",
        items=nothing,
        uris=nothing,
        looks=nothing,
        pair_ids=np.full(n, ""),
        layer="proj",
        total={"real": n, "fake": 0},
        **more,
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_source_cut_in_two_by_hand_is_seen(seed):
    drawn = np.random.default_rng(seed).permutation(showing(0, 160, seed=10 + seed))
    cut = [("left", False, drawn[:80]), ("right", False, drawn[80:])]
    (found,) = alike(material(*cut, FACES))
    assert found.sources == ("left", "right") and found.auc < 0.7 and found.shared == 0


@pytest.mark.parametrize("style", [7, 8])
def test_sources_that_show_the_same_in_another_way_are_two(style):
    other = ("press", False, showing(0, 80, seed=30, style=style))
    assert alike(material(("streets", False, showing(0, 80, seed=31)), other)) == []


def test_pictures_in_both_are_counted():
    drawn = showing(0, 160, seed=40)
    groups = np.arange(160)
    groups[80:85] = groups[:5]
    (found,) = alike(material(("left", False, drawn[:80]), ("right", False, drawn[80:]), groups=groups))
    assert found.shared == 5


def test_of_too_few_nothing_is_said():
    drawn = showing(0, 30, seed=50)
    assert alike(material(("left", False, drawn[:15]), ("right", False, drawn[15:]))) == []
