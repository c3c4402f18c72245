"""Laundered files: what a chain says is what the file holds, and the same again tomorrow."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.images.chains import (
    SOCIAL,
    UNIFIED,
    laundered_file,
    parse_chain,
    rendered,
    suffix_of_file,
    with_numbers,
)
from retrieval_detect.images.decode import decode
from retrieval_detect.images.laundering import CROPS, stored_views
from retrieval_detect.types import VIEW_KINDS
from tests.factories import digest
from tests.scenes import picture

RGB = np.asarray(picture(400, 300))
FORMATS = {".jpg": "JPEG", ".webp": "WEBP", ".png": "PNG", ".avif": "AVIF"}
CHAINS = [
    *("jpeg-72", "webp-60", "avif-60", "resize-50", "resize-50+jpeg-72", "screenshot-70-80"),
    *("blur-9+crop-8-8-90-90",),
]


@pytest.mark.parametrize("text", [*CHAINS, "social", "unified", "side-96", "jpeg+webp+screenshot", "crop"])
def test_the_file_holds_what_its_steps_say(text):
    chain = parse_chain(text)
    data, steps = laundered_file(RGB, chain, content_id=digest("a"), seed=3)
    found = decode(data)
    assert np.array_equal(found.rgb, rendered(RGB, steps))
    assert found.format == FORMATS[suffix_of_file(chain)]
    assert [step.partition("-")[0] for step in steps] == [step.partition("-")[0] for step in chain]
    assert (data, steps) == laundered_file(RGB, chain, content_id=digest("a"), seed=3)


def test_what_is_drawn_depends_on_image_seed_and_step():
    def drawn(name, seed):
        return laundered_file(RGB, ("jpeg", "jpeg"), content_id=digest(name), seed=seed)[1]

    many = {drawn(name, seed) for name in "abcdef" for seed in range(4)}
    assert len(many) > 18 and any(first != second for first, second in many)


def test_a_kind_without_numbers_is_drawn_as_an_index_draws_it():
    kinds = [kind for kind in VIEW_KINDS if kind != CROPS]
    _, *stored = stored_views(kinds, crop_size=32)(digest("a"), 640, 480)
    for kind, view in zip(kinds, stored, strict=True):
        assert with_numbers((kind, "side-96"), digest("a"), (640, 480)) == (view, "side-96")


def test_unified_images_have_one_size_and_one_compression():
    sizes = [decode(laundered_file(rgb, UNIFIED, content_id=b"x")[0]).rgb.shape for rgb in (RGB, RGB[:120])]
    assert [min(shape[:2]) for shape in sizes] == [256, 256]
    assert parse_chain("social") == SOCIAL


@pytest.mark.parametrize(
    "text",
    [
        *("", "+", "jpeg+", "polish", "polish-3", "jpeg-101", "jpeg-x", "jpeg-7-7", "webp-101", "resize-201"),
        *(
            "side",
            "side-0",
            "side-x",
            "side-5000",
            "longest-²",
            "longest-" + "9" * 400,
            "crops",
            "crops-1-1-2-2",
        ),
        *("screenshot-50-101", "blur-301", "original", "jpeg-" + "9" * 5000, "../jpeg-7"),
    ],
)
def test_what_is_no_chain_is_refused_before_any_image(text):
    with pytest.raises(UsageError):
        parse_chain(text)
