"""Views are what their names say, the same on every machine and in every year."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.images.content_id import hamming, phash
from retrieval_detect.images.laundering import (
    MAX_CROPS,
    crop_box,
    crop_boxes,
    draw_view,
    drawn_views,
    kind_of,
    render,
    seed_of,
    stored_views,
)
from retrieval_detect.types import ORIGINAL_VIEW, VIEW_KINDS
from tests.factories import digest, picture

DRAWN = [kind for kind in VIEW_KINDS if kind != "crops"]
RGB = np.asarray(picture(3, side=200))[:150]
HEIGHT, WIDTH = RGB.shape[:2]


@pytest.mark.parametrize("kind", DRAWN)
def test_a_laundering_is_repeatable_and_changes_the_picture_a_little(kind):
    before = RGB.copy()
    once, again = (render(RGB, draw_view(kind, WIDTH, HEIGHT, seed=5)) for _ in range(2))
    assert np.array_equal(once, again) and np.array_equal(RGB, before)
    assert once.dtype == np.uint8 and once.ndim == 3 and once.shape[2] == 3 and once.flags.c_contiguous
    assert once.shape != RGB.shape or not np.array_equal(once, RGB)
    if kind != "crop":
        assert hamming(phash(once), phash(RGB)) <= 6


@pytest.mark.parametrize("kind", DRAWN)
def test_a_name_says_all_that_was_done(kind):
    view = draw_view(kind, WIDTH, HEIGHT, seed=5)
    assert kind_of(view) == kind
    assert len({draw_view(kind, WIDTH, HEIGHT, seed=seed) for seed in range(40)}) > 10


def test_names_do_not_change_from_release_to_release():
    """Else an index would get the same images' views a second time."""
    names = [draw_view(kind, 640, 480, seed=seed_of(digest("a"))) for kind in DRAWN]
    assert names == [
        "jpeg-79",
        "webp-50",
        "avif-83",
        "resize-87",
        "crop-25-38-558-418",
        "blur-22",
        "screenshot-74-71",
    ]


def test_draws_stay_within_their_ranges():
    for seed in range(300):
        quality, percent = (
            int(draw_view(kind, 64, 64, seed=seed).split("-")[1]) for kind in ("jpeg", "resize")
        )
        assert 50 <= quality <= 95 and 50 <= percent <= 90
        x, y, w, h = crop_box(draw_view("crop", 300, 200, seed=seed))
        assert 0.68 <= w * h / 60_000 <= 0.97
        assert 0 <= x <= x + w <= 300 and 0 <= y <= y + h <= 200


def test_sizes():
    assert render(RGB, "resize-50").shape == (75, 100, 3)
    assert render(RGB, "screenshot-60-75").shape == (90, 120, 3)
    assert np.array_equal(render(RGB, "crop-10-20-30-40"), RGB[20:60, 10:40])
    assert np.array_equal(render(RGB, ORIGINAL_VIEW), RGB)
    long = np.zeros((16, 16_500, 3), np.uint8)
    assert render(long, "webp-60").shape[1] == 16_383
    assert render(RGB[:75, :99], "avif-60").shape == (75, 99, 3)


@pytest.mark.parametrize(
    "view",
    ["", "jpg-70", "jpeg", "jpeg-", "jpeg-7-0", "jpeg-x", "crop-1-2-3", "crop-190-0-30-30", "crop-0-0-0-5"],
)
def test_names_that_are_none(view):
    with pytest.raises(UsageError):
        render(RGB, view)


def test_kinds_that_are_none():
    for attempt in (
        lambda: stored_views(["jpeg", "sepia"], crop_size=32),
        lambda: draw_view("sepia", 64, 64, seed=1),
        lambda: draw_view("crops", 64, 64, seed=1),
        lambda: crop_box("jpeg-70"),
    ):
        with pytest.raises(UsageError):
            attempt()


# ---------------------------------------------------------------- crops


@pytest.mark.parametrize("size", [(96, 96), (64, 40), (95, 65), (33, 32), (20, 90), (20, 10)])
def test_crops_cover_the_image_where_nine_can(size):
    width, height = size
    seen = np.zeros((height, width), int)
    boxes = crop_boxes(width, height, 32)
    for x, y, w, h in boxes:
        assert (w, h) == (min(32, width), min(32, height))
        seen[y : y + h, x : x + w] += 1
    assert seen.all() and len(set(boxes)) == len(boxes) <= MAX_CROPS


@pytest.mark.parametrize("size", [(4000, 3000), (4480, 224), (225, 5000)])
def test_crops_of_a_large_image_are_spread_over_it(size):
    width, height = size
    boxes = crop_boxes(width, height, 224)
    assert 8 <= len(boxes) <= MAX_CROPS and len(set(boxes)) == len(boxes)
    assert min(x for x, *_ in boxes) == 0 and max(x + w for x, _, w, _ in boxes) == width
    assert all(y >= 0 and y + h <= height for _, y, _, h in boxes)
    assert len(crop_boxes(width, height, 224, at_most=10_000)) == -(-width // 224) * -(-height // 224)


def test_a_small_image_gives_one_crop_and_a_large_one_can():
    assert crop_boxes(20, 30, 32) == [(0, 0, 20, 30)]
    assert crop_boxes(100, 100, 32, at_most=1) == [(34, 34, 32, 32)]


# ---------------------------------------------------------------- choosing


def test_stored_views():
    choose = stored_views(("jpeg", "crops"), crop_size=32)
    names = choose(digest("a"), 64, 48)
    assert names[0] == ORIGINAL_VIEW and kind_of(names[1]) == "jpeg"
    assert [crop_box(name) for name in names[2:]] == crop_boxes(64, 48, 32)
    assert choose(digest("a"), 64, 48) == names and choose(digest("b"), 64, 48) != names
    assert stored_views((), crop_size=32)(digest("a"), 64, 48) == [ORIGINAL_VIEW]


def test_drawn_views():
    names = drawn_views(16)(digest("a"), 640, 480)
    assert len(names) == len(set(names)) == 17 and names[0] == ORIGINAL_VIEW
    assert len({kind_of(name) for name in names[1:6]}) == 5
    assert len(drawn_views(100, kinds=("resize",))(digest("a"), 640, 480)) <= 42
