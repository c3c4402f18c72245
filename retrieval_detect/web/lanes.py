"""Threads that work for the event loop: whatever goes wrong in a piece of work ends that piece alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

from retrieval_detect.web.errors import Stopping

T = TypeVar("T")
_Work: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"


class Lane:
    """``n`` threads of one task, first come, first served.

    They are daemons: one that never comes back must not keep the server from ending.
    """

    def __init__(self, name: str, n: int = 1) -> None:
        self.name = name
        self._waiting: SimpleQueue[_Work | None] = SimpleQueue()
        self._since: dict[int, float] = {}
        """When each thread at work last showed that it gets on."""
        self._closing = threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"rd-{name}-{i}", daemon=True) for i in range(n)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Have it done; the future gives its answer or its exception. Raises ``Stopping`` after ``stop``."""
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                raise Stopping
            self._waiting.put((future, lambda: work(*args)))
        return future

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """``submit``, and wait."""
        return await asyncio.wrap_future(self.submit(work, *args))

    def beat(self) -> None:
        """Say, from within a long piece of work, that it gets on."""
        self._since[threading.get_ident()] = time.monotonic()

    def trouble(self, limit_s: float) -> str:
        """What is wrong with the threads, in words; empty if nothing is."""
        gone = sum(not thread.is_alive() for thread in self._threads)
        if gone:
            return f"{gone} of {len(self._threads)} threads that {self.name} are gone"
        now = time.monotonic()
        age = now - min(list(self._since.values()), default=now)
        return f"a thread that {self.name}s is stuck: no progress for {age:.0f} s" if age > limit_s else ""

    def stop(self, within_s: float) -> None:
        """Begin nothing more; wait so long for what is being done."""
        with self._closing:
            self._closed = True
            with suppress(Empty):
                while work := self._waiting.get_nowait():
                    if work[0].set_running_or_notify_cancel():
                        work[0].set_exception(Stopping())
            for _ in self._threads:
                self._waiting.put(None)
        until = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            self.beat()
            _done(*work)
            del self._since[threading.get_ident()], work  # or the last image would be held until the next


def _done(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - it ends this piece of work, not the thread
        # An event loop ends on SystemExit and cannot hand on StopIteration: one would wait for ever.
        if not isinstance(error, Exception) or isinstance(error, StopIteration):
            wrapped = RuntimeError(f"the work ended by {type(error).__name__}")
            wrapped.__cause__ = error
            error = wrapped
        future.set_exception(error)
    else:
        future.set_result(result)
