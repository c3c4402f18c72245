"""The process that decodes: it sees hostile bytes, may die of them, and can neither write files nor grow.

Its answers cross the pipe as JSON and plain pixels, never as pickles: whoever takes it over gains no
hold on the server.
"""

from __future__ import annotations

import json
import resource
import signal
import warnings
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from retrieval_detect.errors import ImageError
from retrieval_detect.images.decode import Limits, decode
from retrieval_detect.images.provenance import read_provenance

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def run(pipe: Connection, limits: Limits, memory_bytes: int) -> None:
    """Decode what comes through ``pipe``, one file after another, until it is closed."""
    _confine(memory_bytes)
    warnings.simplefilter("ignore")  # Pillow on broken metadata; what matters of it is in the notes
    with suppress(EOFError, BrokenPipeError):
        while True:
            _answer(pipe, pipe.recv_bytes(), limits)


def _confine(memory_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer: it closes the pipe
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with suppress(ValueError, OSError):  # not every system lets a process limit its address space
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _answer(pipe: Connection, data: bytes, limits: Limits) -> None:
    try:
        image = decode(data, limits=limits)
    except ImageError as error:
        _send(pipe, {"reason": error.reason, "message": error.message, "hint": error.hint})
        return
    facts = {"width": image.width, "height": image.height, "format": image.format, "notes": image.notes}
    _send(pipe, facts | {"provenance": asdict(read_provenance(data))})
    pipe.send_bytes(image.rgb.data.cast("B"))


def _send(pipe: Connection, head: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(head).encode())
