"""One detector for everybody: a bounded queue, shared passes through the network, generations swapped in."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from retrieval_detect.bulk import Together
from retrieval_detect.encoders.pipeline import CPU_BATCH, GPU_BATCH, Prepared, Work, prepare, with_vectors
from retrieval_detect.errors import EncoderError, RdError
from retrieval_detect.types import Embedded, Failure
from retrieval_detect.web.settings import cores

if TYPE_CHECKING:
    from retrieval_detect.detector import Detector
    from retrieval_detect.types import ImageItem
    from retrieval_detect.verdicts import Question, Verdict
    from retrieval_detect.web.decoding import Decoders
    from retrieval_detect.web.generations import Generations, Serving
    from retrieval_detect.web.metrics import Metrics
    from retrieval_detect.web.settings import ServeSettings

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_FIRST_GUESS_S = 0.05
_MEMORY = 0.05
"""How much the newest image counts in the running mean of seconds an image."""


class Busy(RdError):
    """The queue is full; ``retry_after_s`` : when it is worth asking again, whole seconds."""

    def __init__(self, waiting: int, *, retry_after_s: int) -> None:
        super().__init__(
            f"{waiting} images are waiting already", hint=f"Send it again in {retry_after_s} seconds."
        )
        self.retry_after_s = retry_after_s


@dataclass(slots=True, eq=False)
class _Waiting:
    """Views of one image, ready for the network, and where their vectors, and a search, are awaited."""

    detector: Detector
    question: Question
    prepared: Sequence[Prepared | Failure]
    embedded: Future[tuple[list[Embedded | Failure], Together]] = field(default_factory=Future)


class Service:
    """Answers questions about images, many at a time.

    Each image is decoded in a process of its own, waits at most ``window_s`` for others that share its pass
    through the network and its search, and is judged by the generation that was in force when it arrived.
    """

    def __init__(
        self, generations: Generations, decoders: Decoders, settings: ServeSettings, metrics: Metrics
    ) -> None:
        self.generations, self.decoders = generations, decoders
        self.settings, self.metrics = settings, metrics
        self._decoding = ThreadPoolExecutor(settings.decoders, "rd-decode")
        self._encoding = ThreadPoolExecutor(1, "rd-encode")
        self._judging = ThreadPoolExecutor(1, "rd-judge")
        self._showing = ThreadPoolExecutor(1, "rd-show")
        self._ready: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._waiting = 0
        self._seconds_an_image = _FIRST_GUESS_S
        self._watching: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin to work; within the event loop that will ask."""
        self._encoding.submit(self._embed_all)
        self._watching = asyncio.create_task(self.generations.watch())

    async def stop(self) -> None:
        """Finish what is being worked on and end threads and processes."""
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        self._ready.put(None)
        for pool in (self._decoding, self._encoding, self._judging, self._showing):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        await asyncio.to_thread(self.decoders.close)

    # ------------------------------------------------------------ asking

    async def ask(
        self, items: Sequence[ImageItem], question: Question
    ) -> tuple[Serving, list[Verdict | Failure]]:
        """Verdicts in the order of ``items``, and who gave them; raises ``Busy`` or ``UsageError``."""
        serving = self.generations.serving
        question = await self._run(self._judging, serving.detector.checked, question)
        self._admit(len(items))
        asked = (self._ask(item, question, serving.detector) for item in items)
        return serving, list(await asyncio.gather(*asked))

    async def show(self, work: Callable[[], T]) -> T:
        """Run what draws a page, one at a time, beside the judging."""
        return await self._run(self._showing, work)

    async def decode(self, work: Callable[[], T]) -> T:
        """Run what decodes; it waits where images to be judged do."""
        return await self._run(self._decoding, work)

    def _admit(self, n: int) -> None:
        if self._waiting + n > self.settings.queue_images:
            self.metrics.rejected.inc(n)
            after = math.ceil(self._waiting * self._seconds_an_image)
            raise Busy(self._waiting, retry_after_s=max(1, after))
        self._waiting += n
        self.metrics.waiting.set(self._waiting)

    async def _ask(self, item: ImageItem, question: Question, detector: Detector) -> Verdict | Failure:
        started = time.perf_counter()
        try:
            result = await self._answer(item, question, detector, started)
            self.metrics.answered(result, time.perf_counter() - started)
            return result
        finally:
            self._waiting -= 1
            self.metrics.waiting.set(self._waiting)

    async def _answer(
        self, item: ImageItem, question: Question, detector: Detector, started: float
    ) -> Verdict | Failure:
        layers, views = detector.snapshot.manifest.layers, detector.views(question)
        work = Work(detector.encoder, layers, views, self.settings.limits)
        prepared = await self._run(self._decoding, prepare, item, work)
        if isinstance(prepared[0], Failure):
            return prepared[0]
        waiting = _Waiting(detector, question, prepared)
        self._ready.put(waiting)
        # Shielded: a request that is given up must not end the future that the encoding thread will set.
        embedded, together = await asyncio.shield(asyncio.wrap_future(waiting.embedded))
        return await self._run(
            self._judging, partial(detector.judge_views, embedded, together, started=started)
        )

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *args)

    # ------------------------------------------------------------ shared passes

    def _embed_all(self) -> None:
        """The work of the thread that encodes: it takes what is ready by itself."""
        while (first := self._ready.get()) is not None:
            batch = self._gather(first)
            self.metrics.batch.observe(len(batch))
            started = time.perf_counter()
            for detector in {id(w.detector): w.detector for w in batch}.values():
                self._embed(detector, [w for w in batch if w.detector is detector])
            taken = (time.perf_counter() - started) / len(batch)
            self._seconds_an_image += _MEMORY * (taken - self._seconds_an_image)

    def _gather(self, first: _Waiting) -> list[_Waiting]:
        """All that is ready; the first waits a moment for others, unless the batch is full."""
        batch, most = [first], self._batch_size(first.detector)
        until = time.monotonic() + self.settings.window_s
        with suppress(Empty):
            while len(batch) < most:
                waiting = self._ready.get(timeout=max(0.0, until - time.monotonic()))
                if waiting is None:
                    self._ready.put(None)  # the end comes after this batch
                    break
                batch.append(waiting)
        return batch

    def _batch_size(self, detector: Detector) -> int:
        if self.settings.batch_images is not None:
            return self.settings.batch_images
        return CPU_BATCH * cores() if detector.encoder.spec.device == "cpu" else GPU_BATCH

    def _embed(self, detector: Detector, batch: Sequence[_Waiting]) -> None:
        try:
            results = self._vectors(detector, batch)
        except (RuntimeError, MemoryError) as error:  # of the network: costs this batch alone
            _LOG.exception("the encoder failed on a batch of %d", len(batch))
            for waiting in batch:
                failure = EncoderError("the encoder failed", hint="The log of the server says why.")
                failure.__cause__ = error
                waiting.embedded.set_exception(failure)
        else:
            together = _together(detector, batch, results)
            for waiting, embedded in zip(batch, results, strict=True):
                waiting.embedded.set_result((embedded, together[waiting.question]))

    def _vectors(self, detector: Detector, batch: Sequence[_Waiting]) -> list[list[Embedded | Failure]]:
        layers = detector.snapshot.manifest.layers
        work = Work(detector.encoder, layers, lambda *_: (), self.settings.limits)
        flat = [view for waiting in batch for view in waiting.prepared]
        size = self._batch_size(detector)
        parts = (flat[start : start + size] for start in range(0, len(flat), size))
        results = iter([result for part in parts for result in with_vectors(part, work)])
        return [[next(results) for _ in waiting.prepared] for waiting in batch]


def _together(
    detector: Detector, batch: Sequence[_Waiting], results: Sequence[Sequence[Embedded | Failure]]
) -> dict[Question, Together]:
    """For each question, one search for all images it is asked about."""
    asked: dict[Question, list[Embedded]] = {waiting.question: [] for waiting in batch}
    for waiting, (original, *_) in zip(batch, results, strict=True):
        if isinstance(original, Embedded):
            asked[waiting.question].append(original)
    return {question: Together(detector.methods, question, images) for question, images in asked.items()}
