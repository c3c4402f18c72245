"""One detector for everybody: a bounded queue, shared passes through the network, generations swapped in."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from retrieval_detect.encoders.pipeline import CPU_BATCH, GPU_BATCH, Prepared, Work, prepare, with_vectors
from retrieval_detect.errors import EncoderError
from retrieval_detect.types import ORIGINAL_VIEW, Embedded, Failure
from retrieval_detect.web.errors import Busy, Stopping, whereabouts
from retrieval_detect.web.lanes import Lane
from retrieval_detect.web.settings import cores

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.types import ImageItem
    from retrieval_detect.verdicts import Question, Verdict
    from retrieval_detect.web.decoding import Decoders
    from retrieval_detect.web.generations import Generations, Serving
    from retrieval_detect.web.metrics import Metrics
    from retrieval_detect.web.settings import ServeSettings

_LOG = logging.getLogger(__name__)
_FIRST_GUESS_S = 0.05
_STOP_S = 10.0
"""How long the work in hand may take once the server is stopped."""
_MEMORY = 0.05
"""How much the newest image counts in the running mean of seconds an image."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """Views of one image, ready for the network, and where its verdict is awaited."""

    detector: Detector
    question: Question
    prepared: Sequence[Prepared | Failure]
    started: float
    verdict: Future[Verdict | Failure] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class Laid:
    """Photographs to lay beside an image, for one question; ``supplier`` and ``date`` : of whom, and when."""

    pictures: Sequence[ImageItem]
    supplier: str | None = None
    date: str | None = None


class Service:
    """Answers questions about images, many at a time.

    Each image is decoded in a process of its own, waits at most ``window_s`` for others that share its pass
    through the network and its search, and is judged by the generation that was in force when it arrived.
    ``decoding`` : also for what else decodes, which waits where images to be judged do; ``showing`` : for
    what draws a page, one at a time, beside the judging.
    """

    def __init__(
        self, generations: Generations, decoders: Decoders, settings: ServeSettings, metrics: Metrics
    ) -> None:
        self.generations, self.decoders = generations, decoders
        self.settings, self.metrics = settings, metrics
        self.decoding, self.showing = Lane("decode", settings.decoders), Lane("show")
        self._encoding, self._judging = Lane("encode"), Lane("judge")
        self._ready: SimpleQueue[_Waiting] = SimpleQueue()
        self._waiting = 0
        self._seconds_an_image = _FIRST_GUESS_S
        self._watching: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin to work; within the event loop that will ask."""
        self._watching = asyncio.create_task(self.generations.watch())

    async def stop(self) -> None:
        """Finish what is being worked on, begin nothing more, and end threads and processes."""
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for lane in self._lanes:
            await asyncio.to_thread(lane.stop, _STOP_S)
        while waiting := self._next(0.0):
            waiting.verdict.set_exception(Stopping())
        await asyncio.to_thread(self.decoders.close)

    @property
    def _lanes(self) -> tuple[Lane, ...]:
        """In the order in which an image passes them."""
        return self.decoding, self._encoding, self._judging, self.showing

    def trouble(self) -> list[str]:
        """Which of the threads and processes are gone or stuck, in words."""
        found = [lane.trouble(self.settings.stuck_s) for lane in self._lanes]
        watched = self._watching is None or not self._watching.done()
        found += [self.decoders.trouble(), "" if watched else "new generations are no longer taken up"]
        return [said for said in found if said]

    # ------------------------------------------------------------ asking

    async def ask(
        self, items: Sequence[ImageItem], question: Question, laid: Laid | None = None
    ) -> tuple[Serving, list[Verdict | Failure]]:
        """Verdicts in the order of ``items``, and who gave them; raises ``Busy`` or ``UsageError``."""
        waiting = len(items) + (len(laid.pictures) if laid else 0)
        self.require_room(waiting)
        self._wait_for(waiting)
        serving = self.generations.serving
        detector = serving.detector
        try:
            question = await self._judging.run(detector.checked, question)
            detector = await self._with(laid, detector, question) if laid else detector
        except BaseException:
            self._wait_for(-waiting)
            raise
        self._wait_for(len(items) - waiting)
        asked = [asyncio.ensure_future(self._ask(item, question, detector)) for item in items]
        for one in asked:
            one.add_done_callback(lambda _: self._wait_for(-1))
        return serving, list(await asyncio.gather(*asked))

    async def _with(self, laid: Laid, detector: Detector, question: Question) -> Detector:
        """A detector that judges with photographs beside, and goes with the question."""
        layers = detector.snapshot.manifest.layers
        work = Work(detector.encoder, layers, lambda *_: (ORIGINAL_VIEW,), self.settings.limits)
        prepared = [self.decoding.run(prepare, picture, work) for picture in laid.pictures]
        started = time.perf_counter()
        waiting = [_Waiting(detector, question, one, started) for one in await asyncio.gather(*prepared)]
        embedded = [first for first, *_ in await self._encoding.run(self._vectors, detector, waiting)]
        with_them = partial(detector.with_embedded_beside, supplier=laid.supplier, date=laid.date)
        return await self._judging.run(with_them, embedded, question)

    def require_room(self, n: int = 1) -> None:
        """Raise ``Busy`` where the queue has no place for ``n`` more images."""
        if self._waiting + n > self.settings.queue_images:
            self.metrics.rejected.inc(n)
            after = math.ceil(self._waiting * self._seconds_an_image)
            raise Busy(f"{self._waiting} images are waiting already", retry_after_s=max(1, after))

    def _wait_for(self, n: int) -> None:
        """``n`` images more are waiting; negative: fewer."""
        self._waiting += n
        self.metrics.waiting.set(self._waiting)

    async def _ask(self, item: ImageItem, question: Question, detector: Detector) -> Verdict | Failure:
        started = time.perf_counter()
        layers, views = detector.snapshot.manifest.layers, detector.views(question)
        work = Work(detector.encoder, layers, views, self.settings.limits)
        prepared = await self.decoding.run(prepare, item, work)
        result: Verdict | Failure
        if isinstance(prepared[0], Failure):
            result = prepared[0]
        else:
            waiting = _Waiting(detector, question, prepared, started)
            self._ready.put(waiting)
            self._encoding.submit(self._embed_ready)
            # Shielded: a request that is given up must not end the future that the judging thread will set.
            result = await asyncio.shield(asyncio.wrap_future(waiting.verdict))
        self.metrics.answered(result, time.perf_counter() - started)
        return result

    # ------------------------------------------------------------ shared passes

    def _embed_ready(self) -> None:
        """One pass with all that is ready. It is asked for with every image; most find their work done."""
        if (first := self._next(0.0)) is None:
            return
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
        while len(batch) < most and (waiting := self._next(until - time.monotonic())):
            batch.append(waiting)
        return batch

    def _next(self, within_s: float) -> _Waiting | None:
        with suppress(Empty):
            return self._ready.get(timeout=max(0.0, within_s))
        return None

    def _batch_size(self, detector: Detector) -> int:
        if self.settings.batch_images is not None:
            return self.settings.batch_images
        return CPU_BATCH * cores() if detector.encoder.spec.device == "cpu" else GPU_BATCH

    def _embed(self, detector: Detector, batch: Sequence[_Waiting]) -> None:
        try:
            results = self._vectors(detector, batch)
        except BaseException as error:  # noqa: BLE001 - also of a plug-in: nobody waits for ever
            _LOG.error("the encoder failed on a batch of %d: %s", len(batch), whereabouts(error))
            if len(batch) > 1:  # one by one: an image must not cost others their answer
                for waiting in batch:
                    self._embed(detector, [waiting])
            else:
                hint = "The log of the server says where."
                failure = EncoderError("the encoder failed on this image", hint=hint)
                failure.__cause__ = error
                batch[0].verdict.set_exception(failure)
        else:
            pairs = list(zip(batch, results, strict=True))
            for question in {waiting.question for waiting in batch}:
                asked = [(waiting, views) for waiting, views in pairs if waiting.question == question]
                try:
                    self._judging.submit(self._judge, detector, question, asked)
                except Stopping as error:
                    for waiting, _ in asked:
                        waiting.verdict.set_exception(error)

    def _judge(
        self,
        detector: Detector,
        question: Question,
        asked: Sequence[tuple[_Waiting, list[Embedded | Failure]]],
    ) -> None:
        """Judge images that are asked about in one way, by one search; what fails together, one by one."""
        try:
            started = [waiting.started for waiting, _ in asked]
            verdicts = detector.judge_all([views for _, views in asked], question, started=started)
        except BaseException as error:  # noqa: BLE001 - nobody waits for ever
            if len(asked) > 1:
                for one in asked:
                    self._judge(detector, question, [one])
            else:
                asked[0][0].verdict.set_exception(error)
        else:
            for (waiting, _), verdict in zip(asked, verdicts, strict=True):
                waiting.verdict.set_result(verdict)

    def _vectors(self, detector: Detector, batch: Sequence[_Waiting]) -> list[list[Embedded | Failure]]:
        layers = detector.snapshot.manifest.layers
        work = Work(detector.encoder, layers, lambda *_: (), self.settings.limits)
        flat = [view for waiting in batch for view in waiting.prepared]
        size = self._batch_size(detector)
        found: list[Embedded | Failure] = []
        for start in range(0, len(flat), size):
            found += with_vectors(flat[start : start + size], work)
            self._encoding.beat()
        results = iter(found)
        return [[next(results) for _ in waiting.prepared] for waiting in batch]
