"""One result an input, in order, whatever the inputs are; bounded memory; no thread left behind."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import weakref

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders.canaries import canary_images
from retrieval_detect.encoders.pipeline import BAD_VECTOR, Work, embed, prepare
from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.content_id import phash
from retrieval_detect.images.decode import Limits
from retrieval_detect.testing import TinyEncoder
from retrieval_detect.types import Embedded, Failure, ImageItem

LAYERS = ["proj", "block01"]


def png(rgb):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def picture(seed):
    return canary_images()[seed % 16][: 64 + seed % 50, : 64 + seed % 30] ^ np.uint8(seed % 256)


PICTURES = [picture(seed) for seed in range(40)]
FILES = [png(rgb) for rgb in PICTURES]


def item(number, read=None):
    return ImageItem(f"file-{number}", read or (lambda: FILES[number % len(FILES)]))


def failing(number, error):
    def read():
        raise error

    return item(number, read)


def no_threads():
    ours = ("rd-decode", "rd-encode")
    return not [thread for thread in threading.enumerate() if thread.name.startswith(ours)]


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 3), (32, None), (100, 8)])
def test_results_are_what_the_encoder_gives_in_the_order_of_the_inputs(batch_size, workers):
    encoder = TinyEncoder()
    results = list(
        embed(map(item, range(40)), encoder, layers=LAYERS, batch_size=batch_size, workers=workers)
    )
    assert [result.item.uri for result in results] == [f"file-{i}" for i in range(40)]
    squares = np.stack([encoder.prepare(rgb) for rgb in PICTURES])
    expected = encoder.encode(squares, LAYERS)
    for i, result in enumerate(results):
        assert isinstance(result, Embedded)
        assert list(result.vectors) == LAYERS
        for layer in LAYERS:
            assert result.vectors[layer].dtype == np.float32
            np.testing.assert_allclose(result.vectors[layer], expected[layer][i], atol=1e-5)
        assert result.content_id == hashlib.sha256(FILES[i]).digest()
        assert result.phash == phash(PICTURES[i])
        assert (result.height, result.width) == PICTURES[i].shape[:2]
        assert result.format == "PNG"
    assert no_threads()


def test_bad_inputs_are_failures_in_their_place():
    inputs = [
        item(0),
        failing(1, PermissionError(13, "Permission denied")),
        item(2, lambda: b"this is a text file"),
        failing(3, ImageError("the archive is damaged", reason="corrupt")),
        item(4, lambda: FILES[4][:200]),
        item(5, lambda: b""),
        failing(6, OSError("gone")),
        item(7),
    ]
    results = list(embed(inputs, TinyEncoder(), layers=LAYERS, batch_size=3, workers=2))
    kinds = [result.reason if isinstance(result, Failure) else "" for result in results]
    assert kinds == [
        "",
        "unreadable",
        "not-an-image",
        "corrupt",
        "truncated",
        "not-an-image",
        "unreadable",
        "",
    ]
    assert [r.uri if isinstance(r, Failure) else r.item.uri for r in results] == [
        f"file-{i}" for i in range(8)
    ]
    assert results[1].message == "the file cannot be read: Permission denied"
    assert results[3].message == "the archive is damaged"
    assert results[6].message.endswith("gone")


def test_a_run_of_nothing_but_failures_and_no_input_at_all():
    bad = (item(i, lambda: b"nothing") for i in range(100))
    results = list(embed(bad, TinyEncoder(), layers=LAYERS, batch_size=8))
    assert len(results) == 100
    assert {type(result) for result in results} == {Failure}
    assert list(embed([], TinyEncoder(), layers=LAYERS)) == []


def test_limits_are_passed_on():
    work = Work(TinyEncoder(), LAYERS, lambda *_: ("original",), Limits(min_side=500))
    assert prepare(item(0), work)[0].reason == "too-small"


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_without_a_direction_are_failures(value):
    class Sick(TinyEncoder):
        def encode(self, batch, layers):
            vectors = {layer: rows.copy() for layer, rows in super().encode(batch, layers).items()}
            vectors["block01"][1] = value
            return vectors

    results = list(embed(map(item, range(4)), Sick(), layers=LAYERS, batch_size=4))
    assert [isinstance(result, Failure) for result in results] == [False, True, False, False]
    assert (results[1].uri, results[1].reason) == ("file-1", BAD_VECTOR)
    assert "block01" in results[1].message


def test_inputs_are_taken_only_a_little_ahead():
    taken = []

    def endless():
        for number in range(10_000):
            taken.append(number)
            yield item(number)

    results = embed(endless(), TinyEncoder(), layers=LAYERS, batch_size=4, workers=2)
    for given in range(20):
        next(results)
        assert len(taken) <= given + 1 + 4 * 4
    results.close()
    assert no_threads()


def test_threads_work_while_the_network_does():
    """While a batch is in the encoder, inputs of the next are read."""
    reads, ahead = [], []

    def reading(number):
        reads.append(number)
        return FILES[number % len(FILES)]

    class Slow(TinyEncoder):
        def encode(self, batch, layers):
            deadline = time.monotonic() + 5
            while len(reads) < 8 and time.monotonic() < deadline:
                time.sleep(0.001)
            ahead.append(len(reads))
            return super().encode(batch, layers)

    inputs = (item(i, lambda i=i: reading(i)) for i in range(16))
    list(embed(inputs, Slow(), layers=LAYERS, batch_size=4, workers=2))
    assert ahead[0] >= 7


def test_the_network_works_while_results_are_used():
    """While the caller is busy with one batch, the next passes through the network."""
    encoded = []

    class Noting(TinyEncoder):
        def encode(self, batch, layers):
            encoded.append(len(batch))
            return super().encode(batch, layers)

    results = embed(map(item, range(16)), Noting(), layers=LAYERS, batch_size=4, workers=2)
    next(results)
    deadline = time.monotonic() + 5
    while len(encoded) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert encoded == [4, 4]
    results.close()


def test_one_slow_input_holds_up_no_other_and_keeps_its_place():
    released = threading.Event()
    read = []

    def slow():
        released.wait(5)
        return FILES[0]

    def quick(number):
        read.append(number)
        if len(read) == 7:
            released.set()
        return FILES[number]

    inputs = [item(0, slow), *(item(i, lambda i=i: quick(i)) for i in range(1, 12))]
    results = list(embed(inputs, TinyEncoder(), layers=LAYERS, batch_size=4, workers=2))
    assert released.is_set()
    assert [result.item.uri for result in results] == [f"file-{i}" for i in range(12)]


def test_a_long_run_holds_no_more_than_a_short_one():
    """Squares that are alive at a time, over hundreds of batches: decoded images are not piled up."""
    made, gone, alive = [], [], []

    class Watched(TinyEncoder):
        def prepare(self, rgb):
            square = super().prepare(rgb)
            made.append(1)
            weakref.finalize(square, gone.append, 1)
            return square

        def encode(self, batch, layers):
            alive.append(len(made) - len(gone))
            return super().encode(batch, layers)

    results = embed(map(item, range(2000)), Watched(), layers=LAYERS, batch_size=4, workers=2)
    assert sum(isinstance(result, Embedded) for result in results) == 2000
    assert 4 <= max(alive) <= 5 * 4 + 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.parametrize("where", ["inputs", "encoder"])
def test_an_interruption_ends_the_threads(error, where):
    def inputs():
        for number in range(1000):
            if where == "inputs" and number == 30:
                raise error
            yield item(number)

    class Interrupted(TinyEncoder):
        def encode(self, batch, layers):
            if where == "encoder":
                raise error
            return super().encode(batch, layers)

    with pytest.raises(error):
        list(embed(inputs(), Interrupted(), layers=LAYERS, batch_size=8, workers=4))
    assert no_threads()


def test_closing_drops_what_was_only_planned():
    begun = []

    def slow(number):
        begun.append(number)
        time.sleep(0.05)
        return FILES[0]

    inputs = (item(i, lambda i=i: slow(i)) for i in range(500))
    results = embed(inputs, TinyEncoder(), layers=LAYERS, batch_size=2, workers=2)
    next(results)
    results.close()
    assert len(begun) <= 6
    assert no_threads()


def test_impossible_sizes_and_layers():
    with pytest.raises(UsageError, match="at least 1"):
        next(embed([item(0)], TinyEncoder(), layers=LAYERS, batch_size=0))
    with pytest.raises(UsageError, match="at least 1"):
        next(embed([item(0)], TinyEncoder(), layers=LAYERS, workers=0))
    with pytest.raises(UsageError, match="no layer block99"):
        next(embed([item(0)], TinyEncoder(), layers=["block99"]))


def test_batches_are_laid_out_in_two_places_that_never_hold_two_at_once():
    """A batch keeps its place until its vectors are there, however slow the network is."""
    places, seen = set(), []

    class Watching(TinyEncoder):
        def encode(self, batch, layers):
            places.add(batch.ctypes.data)
            before = batch.copy()
            time.sleep(0.02)
            seen.append(np.array_equal(before, batch))
            return super().encode(batch, layers)

    inputs = (item(i, (lambda: b"nothing") if i % 5 == 3 or 8 <= i < 12 else None) for i in range(40))
    results = list(embed(inputs, Watching(), layers=LAYERS, batch_size=4, workers=3))
    assert len(results) == 40
    assert len(places) == 2
    assert all(seen)
    assert len(seen) == 9, "a batch of nothing but failures takes no pass"
