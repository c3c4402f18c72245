"""images.content_id: what the perceptual hash forgives, and what it does not."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from retrieval_detect.images.content_id import content_id, hamming, phash


def scene(seed, width=320, height=240):
    """Random soft shapes: neighbouring pixels agree, different seeds do not."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def hash_of(image):
    return phash(np.asarray(image.convert("RGB")))


def reencoded(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def test_content_id_is_the_sha256_of_the_bytes():
    assert content_id(b"abc") == hashlib.sha256(b"abc").digest()
    assert len(content_id(b"")) == 32


def test_the_hash_of_a_known_picture_never_changes():
    y, x = np.mgrid[:64, :64]
    rgb = np.stack([x * 3, y * 3, (x * y) % 251], axis=-1).astype(np.uint8)
    assert phash(rgb) == 0x1C3EFCFCF8F84001


@pytest.mark.parametrize(
    "change",
    [
        lambda image: reencoded(image, 75),
        lambda image: reencoded(image, 30),
        lambda image: image.resize((160, 120), Image.Resampling.LANCZOS),
        lambda image: image.resize((1111, 833), Image.Resampling.BICUBIC),
        lambda image: image.point(lambda value: value * 0.8 + 20),
        lambda image: image.convert("L"),
    ],
)
def test_copies_stay_close(change):
    for seed in range(20):
        image = scene(seed)
        assert hamming(hash_of(image), hash_of(change(image))) <= 4


def test_different_pictures_are_far_apart():
    hashes = np.array([hash_of(scene(seed)) for seed in range(60)], dtype=np.uint64)
    distances = hamming(hashes[:, None], hashes[None, :])[np.triu_indices(60, 1)]
    assert distances.min() > 10
    assert 28 < distances.mean() < 36


def test_mirror_images_are_different_pictures():
    assert hamming(hash_of(scene(1)), hash_of(ImageOps.mirror(scene(1)))) > 10


def test_flat_pictures_hash_alike_to_the_bit():
    flat = {phash(np.full((50, 70, 3), level, dtype=np.uint8)) for level in (1, 7, 100, 200, 255)}
    assert len(flat) == 1


def test_any_shape_and_stride_is_taken():
    rgb = np.asarray(scene(3))
    assert phash(rgb[::-1][::-1]) == phash(rgb)
    for shape in [(16, 320, 3), (320, 16, 3), (16, 16, 3), (33, 31, 3)]:
        assert 0 <= phash(np.resize(rgb, shape)) < 1 << 64


def test_hamming_of_ints_and_arrays():
    assert hamming(0, (1 << 64) - 1) == 64
    assert hamming(0b1011, 0b0001) == 2
    a = np.array([0, 1, 2**64 - 1], dtype=np.uint64)
    b = np.array([0, 2, 0], dtype=np.uint64)
    np.testing.assert_array_equal(hamming(a, b), [0, 2, 64])
    assert hamming(a[:, None], b[None, :]).shape == (3, 3)
    assert [hamming(int(x), int(y)) for x, y in zip(a, b, strict=True)] == hamming(a, b).tolist()
