"""Whatever is done to a valid file, decode returns sound pixels or raises ImageError."""

from __future__ import annotations

import functools
import io
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval_detect.errors import ImageError
from retrieval_detect.images.codes import NOTES, REASONS
from retrieval_detect.images.decode import Limits, decode

LIMITS = Limits(max_pixels=1_000_000)


@functools.cache
def seeds():
    """One small valid file of every format and of the modes that take another path."""
    y, x = np.mgrid[:24, :40]
    rgb = np.stack([x * 6, y * 10, (x * y) % 256], axis=-1).astype(np.uint8)
    image = Image.fromarray(rgb)
    exif = Image.Exif()
    exif[0x0112] = 6
    second = Image.new("RGB", image.size, "red")
    several = {"save_all": True, "append_images": [second]}
    files = [
        (image, "AVIF", {}),
        (image, "BMP", {}),
        (image, "GIF", several),
        (image, "JPEG", {"exif": exif}),
        (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}),
        (image.convert("L"), "JPEG", {}),
        (image, "JPEG2000", {}),
        (image.convert("RGBA"), "PNG", {"exif": exif}),
        (image, "PNG", several),
        (Image.fromarray((x * 1000).astype(np.uint16)), "PNG", {"transparency": 3000}),
        (image, "TIFF", {"exif": exif}),
        (image, "TIFF", {"compression": "tiff_lzw"}),
        (image, "WEBP", several),
        (image, "WEBP", {"lossless": True, "exif": exif}),
    ]
    encoded = []
    for picture, kind, options in files:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        encoded.append(stream.getvalue())
    return encoded


@st.composite
def mutated(draw):
    data = bytearray(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 60))
        data[start : start + length] = draw(
            st.one_of(
                st.binary(max_size=60),
                st.just(bytes(length)),
                st.just(b"\xff" * length),
                st.just(bytes(data[start : start + 2 * length])),
            )
        )
    return bytes(data)


def check(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow on broken metadata
        try:
            image = decode(data, limits=LIMITS)
        except ImageError as error:
            assert error.reason in REASONS
            return
    assert image.rgb.dtype == np.uint8
    assert image.rgb.shape == (image.height, image.width, 3)
    assert image.rgb.flags.c_contiguous
    assert min(image.width, image.height) >= LIMITS.min_side
    assert image.width * image.height <= LIMITS.max_pixels
    assert set(image.notes) <= set(NOTES)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_mutations_of_valid_files(data):
    check(data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([seed[:16] for seed in seeds()]), st.binary(max_size=400))
def test_a_valid_beginning_and_then_anything(start, rest):
    check(start + rest)


@given(st.binary(max_size=100))
def test_any_bytes(data):
    check(data)


def test_the_seeds_are_valid():
    for data in seeds():
        assert decode(data).rgb.size
    with pytest.raises(ImageError):
        decode(b"")
