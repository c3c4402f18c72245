"""An encoder that keeps its vectors asks for each image once, also in another process."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.encoders.remembered import RememberedEncoder
from retrieval_detect.errors import UsageError
from retrieval_detect.files import user_cache


class Counting:
    def __init__(self):
        self.inner, self.seen = load_encoder("tiny"), 0
        self.spec, self.prepare = self.inner.spec, self.inner.prepare

    def encode(self, batch, layers):
        self.seen += len(batch)
        return self.inner.encode(batch, layers)


@pytest.fixture
def images():
    encoder = load_encoder("tiny")
    rng = np.random.default_rng(0)
    return np.stack([encoder.prepare(rng.integers(0, 255, (90, 70, 3), np.uint8)) for _ in range(5)])


def test_each_image_is_encoded_once_and_vectors_are_the_same(images):
    counting = Counting()
    layers = tuple(counting.spec.layers)
    encoder = RememberedEncoder(counting)
    batch = images[[0, 1, 0, 2]]
    for _ in range(2):
        found = encoder.encode(batch, layers)
        plain = counting.inner.encode(batch, layers)
        assert all(np.array_equal(found[layer], plain[layer]) for layer in layers)
    assert counting.seen == 3
    again = RememberedEncoder(Counting())
    found = again.encode(images, layers)
    assert again._encoder.seen == 2
    assert all(np.array_equal(found[layer], counting.inner.encode(images, layers)[layer]) for layer in layers)


def test_other_layers_are_kept_apart(images):
    counting = Counting()
    first = next(iter(counting.spec.layers))
    encoder = RememberedEncoder(counting)
    encoder.encode(images, [first])
    encoder.encode(images, tuple(counting.spec.layers))
    assert counting.seen == 2 * len(images) or len(counting.spec.layers) == 1


@pytest.mark.parametrize("content", [b"", b"PK no archive", None])
def test_a_file_that_cannot_be_read_is_made_anew(images, content):
    first = next(iter(load_encoder("tiny").spec.layers))
    RememberedEncoder(load_encoder("tiny")).encode(images, [first])
    (path,) = (user_cache() / "remembered").iterdir()
    if content is None:
        np.savez(path, keys=np.zeros((3, 32), np.uint8), vectors=np.zeros((3, 1), np.float32))
    else:
        path.write_bytes(content)
    counting = Counting()
    RememberedEncoder(counting).encode(images, [first])
    assert counting.seen == len(images)


def test_a_layer_that_is_not_there_is_refused(images):
    with pytest.raises(UsageError, match="no layer"):
        RememberedEncoder(load_encoder("tiny")).encode(images, ["none"])
