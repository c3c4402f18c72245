"""Pillow gives open_clip's own pixels, torch the same but for rounding, and odd shapes cost little."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders import preprocess
from retrieval_detect.encoders._libraries import ensure_torchvision
from retrieval_detect.encoders.preprocess import MAX_ASPECT, prepare
from retrieval_detect.types import Preprocessing

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def recipe(mode="clip", size=224, interpolation="bicubic"):
    return Preprocessing(mode, size, interpolation, ZERO, ONE)


def photo(height, width, seed=0):
    """Smooth areas and hard edges, so that both rounding and ringing show."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).copy()
    smooth[height // 3 :: 5, ::3] = random.integers(0, 256, 3)
    return smooth


def open_clip_pixels(rgb, size, **changes):
    """What open_clip's transform gives before normalisation, as uint8."""
    ensure_torchvision()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(size=size, mean=ZERO, std=ONE, **changes)
    tensor = image_transform_v2(config, is_train=False)(Image.fromarray(rgb))
    return (tensor * 255).round().byte().permute(1, 2, 0).numpy()


SHAPES = [
    *[(256, 256), (224, 224), (224, 225), (225, 224), (223, 224), (1, 1), (1, 3), (17, 19)],
    *[(333, 500), (500, 333), (501, 334), (97, 131), (640, 427), (1081, 1919), (448, 1000), (224, 896)],
]


@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("size", [224, 336, 33])
def test_clip_mode_is_open_clips_transform(shape, size):
    rgb = photo(*shape, seed=sum(shape))
    assert np.array_equal(prepare(rgb, recipe(size=size)), open_clip_pixels(rgb, size))


def test_many_sizes_round_as_open_clip_does():
    random = np.random.default_rng(5)
    for seed in range(60):
        short = int(random.integers(20, 300))
        long = int(random.integers(short, MAX_ASPECT * short + 1))
        rgb = photo(*random.permutation([short, long]), seed=seed)
        assert np.array_equal(prepare(rgb, recipe(size=64)), open_clip_pixels(rgb, 64)), rgb.shape


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (recipe("clip", 64, "bilinear"), {"interpolation": "bilinear"}),
        (recipe("squash", 64), {"resize_mode": "squash"}),
        (recipe("squash", 64, "bilinear"), {"resize_mode": "squash", "interpolation": "bilinear"}),
    ],
)
@pytest.mark.parametrize("shape", [(99, 200), (64, 64), (30, 31)])
def test_other_filters_and_squashing(ours, theirs, shape):
    rgb = photo(*shape)
    assert np.array_equal(prepare(rgb, ours), open_clip_pixels(rgb, 64, **theirs))


@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("mode", ["clip", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_torch_differs_from_pillow_by_rounding_alone(shape, mode, interpolation):
    rgb, asked = photo(*shape, seed=sum(shape)), recipe(mode, 224, interpolation)
    reference = prepare(rgb, asked)
    difference = np.abs(prepare(rgb, asked, decoder="torch").astype(int) - reference)
    assert difference.max() <= 2 and difference.mean() < 0.02


def test_torch_and_pillow_are_not_the_same_path():
    """Or the test above would hold of anything."""
    rgb = photo(640, 427)
    assert not np.array_equal(prepare(rgb, recipe()), prepare(rgb, recipe(), decoder="torch"))


@pytest.mark.parametrize("decoder", ["pillow", "torch"])
@pytest.mark.parametrize("mode", ["clip", "crop", "squash"])
@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (3, 2000), (16, 321)])
def test_long_images_cost_a_bounded_number_of_pixels(mode, shape, decoder, monkeypatch):
    computed = []
    resized = preprocess._RESIZERS[decoder]

    def counted(rgb, height, width, interpolation):
        computed.append(height * width)
        return resized(rgb, height, width, interpolation)

    monkeypatch.setitem(preprocess._RESIZERS, decoder, counted)
    prepared = prepare(photo(*shape), recipe(mode), decoder=decoder)
    assert prepared.shape == (224, 224, 3)
    assert sum(computed) <= MAX_ASPECT * 224 * 224


def test_the_middle_of_a_long_image_is_what_open_clip_would_show():
    rgb = photo(100, 1000)
    difference = prepare(rgb, recipe()).astype(int) - open_clip_pixels(rgb, 224)
    assert np.abs(difference).mean() < 1


def test_crop_mode_takes_the_centre_untouched():
    rgb = photo(301, 500)
    assert np.array_equal(prepare(rgb, recipe("crop")), rgb[38:262, 138:362])


def test_crop_mode_reflects_where_pixels_are_missing():
    rgb = photo(100, 300)
    prepared = prepare(rgb, recipe("crop"))
    assert np.array_equal(prepared[62:162], rgb[:, 38:262])
    assert np.array_equal(prepared[61], rgb[1, 38:262])
    assert np.array_equal(prepared[162], rgb[-2, 38:262])


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 3)])
def test_crop_mode_never_adds_black(shape):
    assert (prepare(np.full((*shape, 3), 200, np.uint8), recipe("crop")) == 200).all()


@pytest.mark.parametrize("decoder", ["pillow", "torch"])
def test_views_and_read_only_arrays_are_accepted_and_left_alone(decoder):
    rgb = photo(80, 90)
    view = rgb[::-1, ::-1]
    view.flags.writeable = False
    kept = view.copy()
    for mode in ("clip", "crop", "squash"):
        prepared = prepare(view, recipe(mode, 50), decoder=decoder)
        assert np.array_equal(prepared, prepare(kept, recipe(mode, 50), decoder=decoder))
        assert prepared.flags.c_contiguous
    assert np.array_equal(view, kept)
