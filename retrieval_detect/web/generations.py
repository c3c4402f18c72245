"""The generation that answers: looked at every second, replaced once the next is ready."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_detect.errors import EncoderMismatch, RdError
from retrieval_detect.report.html.view import Viewer
from retrieval_detect.store.manifest import read_current
from retrieval_detect.web.errors import whereabouts

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.types import DecodedImage

Load = Callable[["Encoder | None"], "Detector"]
Decode = Callable[[bytes], "DecodedImage"]
_LOG = logging.getLogger(__name__)
_AGAIN_S = 60.0
"""After so long a generation that could not be used is tried again: memory or files may have been short."""


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """A detector that is ready to answer, and what shows its verdicts."""

    detector: Detector
    viewer: Viewer

    @property
    def generation(self) -> int:
        """The generation that judges."""
        return self.detector.snapshot.manifest.generation


class Generations:
    """Holds the detector in force. Requests keep the one they began with; it goes with the last of them.

    ``load`` makes a detector of the generation in force, with an encoder at hand or (``None``) the index's
    own; ``decode`` : for pictures of what was judged. ``trouble`` says why a newer generation could not be
    taken up.
    """

    def __init__(self, load: Load, *, decode: Decode, poll_s: float) -> None:
        self._load, self._decode, self._poll_s = load, decode, poll_s
        self.serving = self._ready(load(None))
        self.trouble = ""
        self._seen = self.serving.detector.snapshot.manifest
        self._again = 0.0
        self._one_at_a_time = asyncio.Lock()

    @property
    def folder(self) -> Path:
        """The index."""
        return self.serving.detector.snapshot.folder

    async def watch(self) -> None:
        """Take up each new generation, for ever."""
        while True:
            await asyncio.sleep(self._poll_s)
            await self.refresh()

    async def refresh(self) -> None:
        """Take up the generation in force, if it is another; the one that answers stays until then."""
        async with self._one_at_a_time:
            try:
                current = await asyncio.to_thread(read_current, self.folder)
                # Not by its number alone: an index that is built anew counts from the beginning.
                if current == self.serving.detector.snapshot.manifest:
                    self.trouble = ""
                elif current != self._seen or time.monotonic() >= self._again:
                    self._seen, self._again = current, time.monotonic() + _AGAIN_S
                    self.serving = await asyncio.to_thread(self._next)
                    self.trouble = ""
                    _LOG.info("generation %d answers now", self.serving.generation)
            except Exception as error:  # noqa: BLE001 - the generation that answers goes on, and so does the watch
                said = str(error) if isinstance(error, RdError | OSError) else whereabouts(error)
                if said != self.trouble:
                    _LOG.warning("the newest generation cannot be used: %s", said)
                self.trouble = said

    def _next(self) -> Serving:
        try:
            return self._ready(self._load(self.serving.detector.encoder))
        except EncoderMismatch:  # another index lies there now
            return self._ready(self._load(None))

    def _ready(self, detector: Detector) -> Serving:
        _ = detector.encoder
        detector.open_banks()
        return Serving(detector, Viewer(detector, decode=self._decode))
