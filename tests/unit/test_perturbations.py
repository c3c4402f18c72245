"""RINE's perturbations: each step does what its numbers say, and each image has its own numbers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.robustness import ROBUSTNESS
from retrieval_detect.images.chains import UNIFIED, parse_chain, pruned, rendered, with_numbers
from retrieval_detect.images.perturbations import DRAWN, drawn
from tests.factories import digest
from tests.scenes import picture

GREY = np.full((120, 160, 3), 128, np.uint8)
IDS = [digest(name) for name in range(400)]
CHANGED = {step: [i for i in IDS if drawn(step, i)] for step in DRAWN}


def numbers(step):
    """Numbers of each image that a step changes, of the last of its parts."""
    return [tuple(map(int, drawn(step, i)[-1].split("-")[1:])) for i in CHANGED[step]]


# ---------------------------------------------------------------- what a step does


@pytest.mark.parametrize("tenths", [50, 125, 200])
def test_noise_has_the_deviation_it_names(tenths):
    noise = rendered(GREY, [f"noise-{tenths}-7"]).astype(float) - 128
    assert noise.std() == pytest.approx(tenths / 10, rel=0.02) and abs(noise.mean()) < 0.2
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03
    again, other = rendered(GREY, [f"noise-{tenths}-7"]), rendered(GREY, [f"noise-{tenths}-8"])
    assert np.array_equal(again, noise + 128) and not np.array_equal(again, other)


def test_noise_stays_within_what_a_pixel_holds():
    black = rendered(np.zeros_like(GREY), ["noise-200-1"])
    assert black.dtype == np.uint8 and 0.45 < (black == 0).mean() < 0.6 and black.max() < 120


@pytest.mark.parametrize("side", [3, 5, 9])
def test_a_window_spreads_a_point_by_a_gaussian_of_four_pixels(side):
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    weights = np.exp(-0.5 * (np.arange(-(side // 2), side // 2 + 1) / 4) ** 2)
    weights /= weights.sum()
    expected = np.zeros((31, 31))
    near = slice(15 - side // 2, 16 + side // 2)
    expected[near, near] = 255 * np.outer(weights, weights)
    assert np.abs(rendered(point, [f"window-{side}"])[..., 1] - expected).max() <= 0.5001


def test_a_window_mirrors_what_lies_beyond_the_edge():
    steps = np.repeat(np.arange(0, 240, 24, dtype=np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)
    weights = np.exp(-0.5 * (np.array([1, 0, 1]) / 4) ** 2)
    left = (weights * [24, 0, 24]).sum() / weights.sum()  # the edge itself is not repeated
    assert rendered(steps, ["window-3"])[5, 0, 0] == round(left)
    assert np.array_equal(rendered(GREY, ["window-9"]), GREY)


@pytest.mark.parametrize(("per_mille", "x", "y"), [(50, 4, 3), (200, 16, 12)])
def test_an_inset_is_the_middle_at_the_size_it_had(per_mille, x, y):
    rgb = np.asarray(picture(160, 120))
    middle = Image.fromarray(rgb[y : 120 - y, x : 160 - x]).resize((160, 120), Image.Resampling.BICUBIC)
    assert np.array_equal(rendered(rgb, [f"inset-{per_mille}"]), np.asarray(middle))
    assert rendered(rgb[:16, :16], ["inset-50"]).shape == (16, 16, 3)


@pytest.mark.parametrize("text", ["noise-120-7", "inset-100", "window-7", "window-3+inset-60+jpeg-40"])
def test_steps_can_be_asked_for(text):
    assert rendered(GREY, parse_chain(text)).shape == GREY.shape


@pytest.mark.parametrize(
    "text",
    ["window", "window-4", "window-101", "inset-901", "noise-7", "noise-1001-1", "noise-9-x", "rine-blur"],
)
def test_steps_that_are_none(text):
    with pytest.raises(UsageError):
        parse_chain(text)


# ---------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("step", DRAWN)
def test_an_image_has_the_same_numbers_always_and_every_second_is_left_alone(step):
    assert [drawn(step, i) for i in IDS] == [drawn(step, i) for i in IDS]
    assert 0.43 < len(CHANGED[step]) / len(IDS) < 0.57
    assert len({drawn(step, i) for i in CHANGED[step]}) > 3
    assert {len(drawn(step, i)) for i in CHANGED[step]} == {len(DRAWN[step])}


def test_numbers_are_those_of_the_paper():
    assert {own for (own,) in numbers("rine-blur")} == {3, 5, 7, 9}
    for step, low, high in (("rine-crop", 50, 200), ("rine-compress", 10, 74)):
        found = [own for (own,) in numbers(step)]
        assert low <= min(found) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(found) <= high
    deviations, seeds = zip(*numbers("rine-noise"), strict=True)
    assert (
        min(deviations) >= 50 and max(deviations) <= 200 and np.mean(deviations) == pytest.approx(125, abs=10)
    )
    assert len(set(seeds)) > 0.99 * len(seeds)


def test_all_four_together():
    for identity in CHANGED["rine-combined"][:50]:
        kinds = [step.partition("-")[0] for step in drawn("rine-combined", identity)]
        assert kinds == ["window", "inset", "jpeg", "noise"]
    alone = {step: set(CHANGED[step]) for step in DRAWN}
    assert len({frozenset(own) for own in alone.values()}) == len(DRAWN)  # no coin is tossed for two


# ---------------------------------------------------------------- what need not be done


@pytest.mark.parametrize("base", [(), UNIFIED])
@pytest.mark.parametrize("size", [(256, 256), (600, 400), (900, 500)])
def test_steps_that_do_nothing_are_left_out_and_no_others(base, size):
    rgb = np.asarray(picture(*size))
    for chain in ROBUSTNESS.values():
        for identity in IDS[:2]:
            kept = pruned(chain, identity, size, base=base)
            whole = rendered(rgb, with_numbers(base + chain, identity, size))
            assert kept[: len(base)] == base and set(kept) <= set(base + chain)
            assert np.array_equal(rendered(rgb, with_numbers(kept, identity, size)), whole)


def test_which_steps_are_left_out():
    changed, alone = CHANGED["rine-blur"][0], next(i for i in IDS if i not in CHANGED["rine-blur"])
    assert pruned(("longest-768", "jpeg-60"), alone, (400, 300)) == ("jpeg-60",)
    assert pruned(("longest-768", "jpeg-60"), alone, (800, 300)) == ("longest-768", "jpeg-60")
    assert pruned(("rine-blur",), alone, (400, 300)) == ()
    assert pruned(("rine-blur",), changed, (400, 300)) == ("rine-blur",)
    assert pruned(("longest-300",), alone, (900, 256), base=UNIFIED) == (*UNIFIED, "longest-300")
    # After a crop nobody knows the size beforehand, so that nothing is left out.
    assert pruned(("crop", "longest-768"), alone, (400, 300)) == ("crop", "longest-768")
