"""Inputs → vectors, in order: read and decoded, passed through the network, used, all three at a time."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, cycle, islice
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.images.chains import rendered
from retrieval_detect.images.content_id import content_id, phash
from retrieval_detect.images.decode import DEFAULT_LIMITS, decode
from retrieval_detect.images.items import attempted
from retrieval_detect.types import ORIGINAL_VIEW, Embedded, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.images.decode import Limits
    from retrieval_detect.images.laundering import Chooser
    from retrieval_detect.types import DecodedImage, EncoderSpec, ImageItem, UInt8

CPU_BATCH, GPU_BATCH = 8, 64
"""Images given to the network at once: for each core of a CPU, or for the whole of a GPU."""
MAX_WORKERS = 16
BAD_VECTOR = "bad-vector"


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An image on its way to the network: all that will be known of it but its vectors."""

    image: Embedded
    square: UInt8


@dataclass(frozen=True, slots=True)
class Work:
    """What is done to each input. ``views`` : names of views, or of several steps joined by ``+``."""

    encoder: Encoder
    layers: Sequence[str]
    views: Chooser
    limits: Limits = DEFAULT_LIMITS


def embed(
    items: Iterable[ImageItem],
    encoder: Encoder,
    *,
    layers: Sequence[str],
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[Embedded | Failure]:
    """Embed images; one result for each item, in their order. See ``embed_views``."""
    sizes = {"batch_size": batch_size, "workers": workers}
    for results in embed_views(items, encoder, layers=layers, views=lambda *_: (ORIGINAL_VIEW,), **sizes):
        yield from results


def embed_views(
    items: Iterable[ImageItem],
    encoder: Encoder,
    *,
    layers: Sequence[str],
    views: Chooser,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[list[Embedded | Failure]]:
    """Embed views of images, decoding each image once; for each item a list, in their order.

    The list holds a result for each view that ``views`` names, in its order (it must name one at least), or
    one ``Failure`` with the item's uri where the image cannot be used. At most five batches of views and one
    image a worker are held at a time. Closing the iterator, or Ctrl-C, drops what was only planned and waits
    for the images and the batch being worked on, so that no thread outlives it.

    Parameters
    ----------
    items : read lazily, in the calling thread.
    layers : of ``encoder.spec.layers``; all come from one forward pass.
    batch_size : views given to the network at once; what suits the device if not given.
    workers : reading and decoding threads; as many as there are cores, up to 16, if not given.
    """
    batch_size, workers = _sizes(encoder, batch_size, workers)
    work = Work(encoder, layers, views)
    lengths: deque[int] = deque()
    with _threads("rd-decode", workers) as decoding, _threads("rd-encode", 1) as encoding:
        prepared = _prepared(iter(items), work, decoding, least=workers, most=2 * batch_size)
        results = _encoded(_flat(prepared, lengths), work, encoding, batch_size)
        for first in results:
            yield [first, *islice(results, lengths.popleft() - 1)]


def _sizes(encoder: Encoder, batch_size: int | None, workers: int | None) -> tuple[int, int]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if batch_size is None:
        batch_size = CPU_BATCH * cores if encoder.spec.device == "cpu" else GPU_BATCH
    if batch_size < 1 or (workers is not None and workers < 1):
        raise UsageError("batch size and number of workers must be at least 1")
    return batch_size, workers or min(cores, MAX_WORKERS)


@contextmanager
def _threads(name: str, n: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(n, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _flat(prepared: Iterator[list[Prepared | Failure]], lengths: deque[int]) -> Iterator[Prepared | Failure]:
    """All views of all images in one row, so that batches need not end with an image."""
    for entries in prepared:
        lengths.append(len(entries))
        yield from entries


def _prepared(
    items: Iterator[ImageItem], work: Work, pool: ThreadPoolExecutor, *, least: int, most: int
) -> Iterator[list[Prepared | Failure]]:
    """Keeps ``most`` views under way, if images have as many as the last had, and ``least`` images."""

    def start(n: int) -> Iterator[Future[list[Prepared | Failure]]]:
        return (pool.submit(prepare, item, work) for item in islice(items, n))

    waiting = deque(start(least))
    while waiting:
        entries = waiting.popleft().result()
        yield entries
        wanted = max(least, most // len(entries))
        waiting.extend(start(max(0, wanted - len(waiting))))


def prepare(item: ImageItem, work: Work) -> list[Prepared | Failure]:
    """The first step for one image, by itself: read, decoded, its views ready for the network."""

    def opened(data: bytes) -> tuple[bytes, DecodedImage]:
        return data, item.decode(data) if item.decode else decode(data, limits=work.limits)

    found = attempted(item, opened)
    if isinstance(found, Failure):
        return [found]
    data, decoded = found
    image = Embedded(
        item=item,
        content_id=content_id(data),
        phash=phash(decoded.rgb),
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        vectors={},
        notes=decoded.notes,
        provenance=item.facts(data) if item.facts else None,
        thumbnail=item.thumbnail(decoded.rgb) if item.thumbnail else None,
    )
    return [
        Prepared(replace(image, view=view), work.encoder.prepare(rendered(decoded.rgb, view.split("+"))))
        for view in work.views(image.content_id, image.width, image.height)
    ]


def _encoded(
    prepared: Iterator[Prepared | Failure], work: Work, pool: ThreadPoolExecutor, batch_size: int
) -> Iterator[Embedded | Failure]:
    """While the caller works on one batch, the next is in the network: neither waits for the other.

    Batches are laid out in two slots in turn, beside the network: one is filled once its last batch is done.
    """
    under_way: deque[Future[list[Embedded | Failure]]] = deque()
    slots = _slots(2, batch_size, work.encoder.spec)
    while batch := list(islice(prepared, batch_size)):
        under_way.append(pool.submit(_vectors_of, batch, _laid_out(batch, next(slots)), work))
        if len(under_way) > 1:
            yield from under_way.popleft().result()
    for last in under_way:
        yield from last.result()


def with_vectors(batch: Sequence[Prepared | Failure], work: Work) -> list[Embedded | Failure]:
    """The second step, for images that may be of many callers: one pass through the network."""
    return _vectors_of(batch, _laid_out(batch), work)


def _slots(n: int, batch_size: int, spec: EncoderSpec) -> Iterator[UInt8]:
    """``n`` arrays over and over, uint8 (batch_size, size, size, 3); pinned where a GPU will fetch them."""
    shape = (batch_size, spec.preprocessing.size, spec.preprocessing.size, 3)
    if spec.device.startswith("cuda"):
        import torch

        return cycle([torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy() for _ in range(n)])
    return cycle([np.empty(shape, np.uint8) for _ in range(n)])


def _laid_out(batch: Sequence[Prepared | Failure], slot: UInt8 | None = None) -> UInt8 | None:
    squares = [result.square for result in batch if isinstance(result, Prepared)]
    if not squares:
        return None
    return np.stack(squares, out=None if slot is None else slot[: len(squares)])


def _vectors_of(
    batch: Sequence[Prepared | Failure], squares: UInt8 | None, work: Work
) -> list[Embedded | Failure]:
    vectors = {} if squares is None else work.encoder.encode(squares, work.layers)
    rows = count()

    def finished(result: Prepared | Failure) -> Embedded | Failure:
        if isinstance(result, Failure):
            return result
        row = next(rows)
        own = {layer: vectors[layer][row] for layer in work.layers}
        for layer, vector in own.items():
            if not np.isfinite(vector).all() or not vector.any():
                why = f"the encoder gave no usable vector (layer {layer})"
                return Failure(result.image.item.uri, BAD_VECTOR, why)
        return replace(result.image, vectors=own)

    return [finished(result) for result in batch]
