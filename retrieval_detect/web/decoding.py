"""Decoding in processes of their own: an image may kill its decoder, and costs its own request alone."""

from __future__ import annotations

import json
import multiprocessing
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import ImageError
from retrieval_detect.types import Claim, DecodedImage, ImageItem, Provenance
from retrieval_detect.web import _worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from retrieval_detect.web.settings import ServeSettings

DIED = "decoder-died"
TOO_SLOW = "decoder-too-slow"
_HEAD_BYTES = 1 << 20
_CLOSED_WITHIN_S = 2.0


class Decoders:
    """A fixed number of decoding processes; ``read`` may be called from as many threads at once.

    One that dies, or takes longer than ``decode_s``, is replaced. They are spawned, not forked: a copy of a
    process that runs threads of FAISS and torch would hang.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._all = [_Decoder(settings) for _ in range(settings.decoders)]
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()
        for decoder in self._all:
            self._idle.put(decoder)

    def item(self, uri: str, read: Callable[[], bytes]) -> ImageItem:
        """An input that is decoded here, and whose claims about itself are read on the same trip."""
        said: list[Provenance] = []

        def decode(data: bytes) -> DecodedImage:
            image, provenance = self.read(data)
            said[:] = [provenance]
            return image

        return ImageItem(uri, read, decode=decode, facts=lambda _: said[0])

    def read(self, data: bytes) -> tuple[DecodedImage, Provenance]:
        """What ``images.decode.decode`` and ``read_provenance`` give.

        Raises ``ImageError``, also with the reasons ``DIED`` and ``TOO_SLOW``.
        """
        decoder = self._idle.get()
        try:
            return decoder.read(data)
        finally:
            self._idle.put(decoder)

    def decode(self, data: bytes) -> DecodedImage:
        """The pixels alone."""
        return self.read(data)[0]

    @property
    def pids(self) -> list[int]:
        """Process ids of the decoders as they are now."""
        return [pid for decoder in self._all if (pid := decoder.pid) is not None]

    def close(self) -> None:
        """End all of them."""
        for decoder in self._all:
            decoder.close()


class _Decoder:
    """One process and the pipe to it."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        arguments = (theirs, self._settings.limits, self._settings.decode_bytes)
        self._process = spawn.Process(target=_worker.run, args=arguments, name="rd-decoder", daemon=True)
        self._process.start()
        theirs.close()  # or the end of the process would not be the end of the pipe
        self._pipe: Connection = ours

    def read(self, data: bytes) -> tuple[DecodedImage, Provenance]:
        try:
            return self._exchange(data)
        except ImageError:
            raise
        except (EOFError, OSError, LookupError, TypeError, ValueError) as error:
            late = isinstance(error, TimeoutError)
            self.close(at_once=True)
            self._start()
            raise _refusal(late=late, limit_s=self._settings.decode_s) from error

    def _exchange(self, data: bytes) -> tuple[DecodedImage, Provenance]:
        until = time.monotonic() + self._settings.decode_s
        self._pipe.send_bytes(data)
        head = json.loads(self._receive(until, _HEAD_BYTES))
        if "reason" in head:
            raise _refused(head)
        width, height = int(head["width"]), int(head["height"])
        pixels = self._receive(until, 3 * self._settings.limits.max_pixels)
        rgb = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        image = DecodedImage(rgb, width, height, str(head["format"]), tuple(map(str, head["notes"])))
        return image, _provenance(head["provenance"])

    def _receive(self, until: float, most_bytes: int) -> bytes:
        if not self._pipe.poll(max(0.0, until - time.monotonic())):
            raise TimeoutError
        return self._pipe.recv_bytes(most_bytes)

    def close(self, *, at_once: bool = False) -> None:
        self._pipe.close()
        if at_once:
            self._process.kill()
        self._process.join(_CLOSED_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        with suppress(ValueError):
            self._process.close()


def _provenance(data: dict[str, Any]) -> Provenance:
    claims = tuple(Claim(**claim) for claim in data["claims"])
    return Provenance(**data | {"claims": claims, "damaged": tuple(data["damaged"])})


def _refused(head: dict[str, Any]) -> ImageError:
    texts = {name: str(head[name]) for name in ("message", "reason", "hint")}
    return ImageError(texts["message"], reason=texts["reason"], hint=texts["hint"])


def _refusal(*, late: bool, limit_s: float) -> ImageError:
    if late:
        return ImageError(f"decoding took longer than {limit_s:g} s", reason=TOO_SLOW)
    return ImageError("the decoder ended on this image", reason=DIED, hint="Save it anew as PNG or JPEG.")
