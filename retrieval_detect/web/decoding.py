"""Decoding in processes of their own: an image may kill its decoder, and costs its own request alone."""

from __future__ import annotations

import json
import logging
import multiprocessing
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import ImageError
from retrieval_detect.types import Claim, DecodedImage, ImageItem, Provenance
from retrieval_detect.web import _worker
from retrieval_detect.web.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from retrieval_detect.web.settings import ServeSettings

DIED = "decoder-died"
TOO_SLOW = "decoder-too-slow"
_LOG = logging.getLogger(__name__)
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

        Raises ``ImageError``, also with the reasons ``DIED`` and ``TOO_SLOW``, and ``Refused`` where the
        system starts no process.
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

    def trouble(self) -> str:
        """What is wrong with the processes, in words; empty while any of them runs."""
        running = any(decoder.runs for decoder in self._all)
        return "" if running else f"all {len(self._all)} decoding processes are gone"

    def close(self) -> None:
        """End all of them."""
        for decoder in self._all:
            decoder.close()


class _Decoder:
    """One process and the pipe to it; none where the system would not start one, until it does."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._process: SpawnProcess | None = None
        self._pipe: Connection
        self._start()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def runs(self) -> bool:
        process = self._process
        with suppress(ValueError):  # closed by the thread that replaces it
            return process is not None and process.is_alive()
        return False

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        arguments = (theirs, self._settings.limits, self._settings.decode_bytes)
        process = spawn.Process(target=_worker.run, args=arguments, name="rd-decoder", daemon=True)
        try:
            process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()  # or the end of the process would not be the end of the pipe
        self._process, self._pipe = process, ours

    def read(self, data: bytes) -> tuple[DecodedImage, Provenance]:
        process = self._running()
        until = time.monotonic() + self._settings.decode_s
        # One that is stopped takes nothing from the pipe either: to be killed is all that it still answers.
        watch = threading.Timer(self._settings.decode_s, process.kill)
        watch.daemon = True
        watch.start()
        try:
            return self._exchange(data)
        except ImageError:
            raise
        except Exception as error:  # whatever hostile bytes made of it: what is left in the pipe is of no use
            watch.cancel()
            self.close(at_once=True)
            with suppress(OSError):  # then the next image tries again
                self._start()
            if time.monotonic() < until:
                message, hint = "the decoder ended on this image", "Save it anew as PNG or JPEG."
                raise ImageError(message, reason=DIED, hint=hint) from error
            message = f"decoding took longer than {self._settings.decode_s:g} s"
            raise ImageError(message, reason=TOO_SLOW) from error
        finally:
            watch.cancel()

    def _running(self) -> SpawnProcess:
        try:
            if self._process is None:
                self._start()
        except OSError as error:
            _LOG.error("no decoding process can be started: %s", error.strerror)
            message, hint = (
                "the server cannot start a process to decode in",
                "Its log says why; try again later.",
            )
            raise Refused(503, "no-decoder", message, hint=hint) from error
        assert self._process is not None  # noqa: S101 - started, or raised
        return self._process

    def _exchange(self, data: bytes) -> tuple[DecodedImage, Provenance]:
        self._pipe.send_bytes(data)
        head = json.loads(self._pipe.recv_bytes(_HEAD_BYTES))
        if "reason" in head:
            reason, hint = str(head["reason"]), str(head["hint"])
            raise ImageError(str(head["message"]), reason=reason, hint=hint)
        width, height = int(head["width"]), int(head["height"])
        pixels = self._pipe.recv_bytes(3 * self._settings.limits.max_pixels)
        rgb = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        image = DecodedImage(rgb, width, height, str(head["format"]), tuple(map(str, head["notes"])))
        said = head["provenance"]
        claims = tuple(Claim(**claim) for claim in said["claims"])
        return image, Provenance(**said | {"claims": claims, "damaged": tuple(said["damaged"])})

    def close(self, *, at_once: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self._pipe.close()
        if at_once:
            process.kill()
        process.join(_CLOSED_WITHIN_S)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
