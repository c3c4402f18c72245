"""The canary images and the tiny encoder are the same for ever; the distance means what it says."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders._pattern import scattered
from retrieval_detect.encoders.canaries import (
    CANARY_TOLERANCE,
    canary_images,
    canary_vectors,
    centred_distance,
)
from retrieval_detect.errors import EncoderError
from retrieval_detect.testing import TinyEncoder


def test_canary_images_never_change():
    """Every index keeps their vectors: another image here would make each old index disagree."""
    images = canary_images()
    assert (images.shape, images.dtype) == ((16, 256, 256, 3), np.uint8)
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    assert digest == "36d0ca87d2fb9fa8a185cde60e0626825b0d92119d78761cf7610be6bb5fa67d"


def test_canary_images_differ_and_use_the_range():
    images = canary_images().astype(int)
    for i in range(16):
        assert images[i].std() > 20
        for j in range(i):
            assert np.abs(images[i] - images[j]).mean() > 10


def test_scattered_is_splitmix64():
    """First outputs for seed 0, from the algorithm's published reference."""
    assert [int(value) for value in scattered(0, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    assert scattered(1, 4, 5).shape == (4, 5)
    assert not np.intersect1d(scattered(1, 1000), scattered(2, 1000)).size


def test_canary_vectors_are_the_encoders():
    encoder = TinyEncoder()
    vectors = canary_vectors(encoder, ["proj"])
    assert list(vectors) == ["proj"]
    assert vectors["proj"].shape == (16, 32)
    alone = encoder.encode(encoder.prepare(canary_images()[5])[None], ["proj"])["proj"]
    np.testing.assert_allclose(vectors["proj"][5], alone[0], atol=1e-6)


def test_an_engine_that_overflows_is_an_error():
    class Overflowing(TinyEncoder):
        def encode(self, batch, layers):
            return {layer: rows / 0 for layer, rows in super().encode(batch, layers).items()}

    with (
        np.errstate(all="ignore"),
        pytest.raises(EncoderError, match="undefined numbers in float32") as caught,
    ):
        canary_vectors(Overflowing(), ["proj"])
    assert "bfloat16" in caught.value.hint


def test_centred_distance_ignores_what_all_vectors_share_and_their_length():
    rows = np.random.default_rng(0).normal(size=(16, 40)).astype(np.float32)
    assert centred_distance(rows, rows) == pytest.approx(0, abs=1e-7)
    assert centred_distance(rows, 3 * rows + 100) == pytest.approx(0, abs=1e-5)
    assert centred_distance(rows, -rows) == pytest.approx(2)
    assert 0.5 < centred_distance(rows, rows[::-1]) <= 2


def test_centred_distance_is_the_worst_row():
    rows = np.random.default_rng(1).normal(size=(16, 40)).astype(np.float32)
    moved = rows.copy()
    moved[3] += np.float32(0.3) * np.random.default_rng(2).normal(size=40).astype(np.float32)
    assert CANARY_TOLERANCE < centred_distance(rows, moved) < 0.2


def test_the_tiny_encoder_never_changes():
    encoder = TinyEncoder()
    assert encoder.spec.weights_sha256 == "c9788ed4f0f25337e9066c6049c522fd387d51927607a2b01440d3174af1b028"
    vector = encoder.encode(encoder.prepare(canary_images()[15])[None], ["proj"])["proj"][0]
    golden = [-0.1179082, -0.0431912, -0.0125970, 0.1561964, 0.2239328, -0.0689139]
    np.testing.assert_allclose(vector[:6], golden, atol=1e-5)


def recompressed(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=80)
    return np.array(Image.open(buffer))


def test_the_tiny_encoder_puts_similar_images_together():
    images = canary_images()
    copies = [recompressed(image) for image in images]
    encoder = TinyEncoder()

    def unit(pictures):
        vectors = encoder.encode(np.stack([encoder.prepare(image) for image in pictures]), ["proj"])["proj"]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    nearest = (unit(images) @ unit(copies).T).argmax(axis=1)
    assert nearest.tolist() == list(range(16))


def test_the_tiny_encoder_gives_no_zero_vector():
    encoder = TinyEncoder()
    for level in (0, 127, 128, 255):
        flat = encoder.prepare(np.full((50, 50, 3), level, np.uint8))
        for vector in encoder.encode(flat[None], list(encoder.spec.layers)).values():
            assert np.linalg.norm(vector) > 1e-2
