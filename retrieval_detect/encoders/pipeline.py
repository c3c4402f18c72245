"""Inputs → vectors, in order: threads read and decode while the network works on the batch before."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.content_id import content_id, phash
from retrieval_detect.images.decode import DEFAULT_LIMITS, decode
from retrieval_detect.types import Embedded, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.images.decode import Limits
    from retrieval_detect.types import Float32, ImageItem, UInt8

CPU_BATCH, GPU_BATCH = 8, 64
"""On a CPU a batch of 8 fills the arithmetic units, and larger ones spill out of its caches."""
MAX_WORKERS = 16
BAD_VECTOR = "bad-vector"
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """An image on its way to the network: all that will be known of it but its vectors."""

    image: Embedded
    square: UInt8


def embed(
    items: Iterable[ImageItem],
    encoder: Encoder,
    *,
    layers: Sequence[str],
    batch_size: int | None = None,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Embedded | Failure]:
    """Embed images; one result for each item, in their order.

    Whatever is wrong with one input becomes a ``Failure`` with its uri. At most three batches and one
    image a worker are held at a time. Closing the iterator, or Ctrl-C, drops what was only
    planned and waits for the images being decoded, so that no thread outlives it.

    Parameters
    ----------
    items : read lazily, in the calling thread.
    layers : of ``encoder.spec.layers``; all come from one forward pass.
    batch_size : images given to the network at once; what suits the device if not given.
    workers : reading and decoding threads; as many as there are cores, up to 16, if not given.
    limits : what ``images.decode.decode`` refuses.
    """
    if batch_size is None:
        batch_size = CPU_BATCH if encoder.spec.device == "cpu" else GPU_BATCH
    if batch_size < 1 or (workers is not None and workers < 1):
        raise UsageError("batch size and number of workers must be at least 1")
    pool = ThreadPoolExecutor(
        workers or min(os.cpu_count() or 1, MAX_WORKERS), thread_name_prefix="rd-decode"
    )
    try:
        results = _prepared(iter(items), encoder, pool, ahead=2 * batch_size, limits=limits)
        while batch := list(islice(results, batch_size)):
            yield from _encoded(batch, encoder, layers)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepared(
    items: Iterator[ImageItem], encoder: Encoder, pool: ThreadPoolExecutor, *, ahead: int, limits: Limits
) -> Iterator[_Prepared | Failure]:
    def start(n: int) -> Iterator[Future[_Prepared | Failure]]:
        return (pool.submit(_prepare, item, encoder, limits) for item in islice(items, n))

    waiting = deque(start(ahead))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(start(1))


def _prepare(item: ImageItem, encoder: Encoder, limits: Limits) -> _Prepared | Failure:
    try:
        data = item.read()
        decoded = decode(data, limits=limits)
    except ImageError as error:
        return Failure(item.uri, error.reason, error.message)
    except OSError as error:
        return Failure(item.uri, UNREADABLE, f"the file cannot be read: {error.strerror or error}")
    image = Embedded(
        item=item,
        content_id=content_id(data),
        phash=phash(decoded.rgb),
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        vectors={},
        notes=decoded.notes,
    )
    return _Prepared(image, encoder.prepare(decoded.rgb))


def _encoded(
    batch: Sequence[_Prepared | Failure], encoder: Encoder, layers: Sequence[str]
) -> Iterator[Embedded | Failure]:
    squares = [result.square for result in batch if isinstance(result, _Prepared)]
    vectors = encoder.encode(np.stack(squares), layers) if squares else {}
    rows = count()
    for result in batch:
        if isinstance(result, Failure):
            yield result
        else:
            row = next(rows)
            yield _finished(result.image, {layer: vectors[layer][row] for layer in layers})


def _finished(image: Embedded, vectors: Mapping[str, Float32]) -> Embedded | Failure:
    for layer, vector in vectors.items():
        if not np.isfinite(vector).all() or not vector.any():
            return Failure(image.item.uri, BAD_VECTOR, f"the encoder gave no usable vector (layer {layer})")
    return replace(image, vectors=vectors)
