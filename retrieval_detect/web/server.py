"""The application on a socket, until it is told to stop."""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from retrieval_detect.errors import UsageError
from retrieval_detect.web.additions import Teacher
from retrieval_detect.web.app import create_app
from retrieval_detect.web.decoding import Decoders
from retrieval_detect.web.generations import Generations
from retrieval_detect.web.metrics import Metrics
from retrieval_detect.web.safety import require_safe
from retrieval_detect.web.service import Service
from retrieval_detect.web.settings import MIB, cores

if TYPE_CHECKING:
    from fastapi import FastAPI

    from retrieval_detect.web.generations import Load
    from retrieval_detect.web.settings import ServeSettings

_GRACE_S = 30
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT_BYTES, _KEPT_BYTES = 32 * MIB, 256 * MIB
"""What is larger goes back to the system as soon as it is free (32 MiB is as large as glibc allows), and all
that is free beyond the second, of one thread's memory."""


def application(load: Load, settings: ServeSettings, *, device: str = "auto") -> FastAPI:
    """An application that is ready to answer: its encoder is loaded, its banks are open."""
    require_safe(settings)
    decoders = Decoders(settings)
    try:
        generations = Generations(load, decode=decoders.decode, poll_s=settings.poll_s)
    except BaseException:
        decoders.close()
        raise
    service = Service(generations, decoders, settings, Metrics())
    return create_app(service, Teacher(generations, decoders, device=device))


def serve(load: Load, settings: ServeSettings, *, device: str = "auto", say: Callable[[str], None]) -> None:
    """Answer until Ctrl-C or SIGTERM; requests that are being worked on are finished."""
    # Read when torch is loaded, below. Of images that share a pass each core has its own. Cores that share
    # the layers of one image wait for one another: one is left free to decode, judge and answer meanwhile.
    one_by_one = settings.batch_images == 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() - one_by_one)))
    _keep_freed_memory()
    with _listening(settings) as listening:
        app = application(load, settings, device=device)
        host, port = listening.getsockname()[:2]
        say(f"http://{f'[{host}]' if ':' in host else host}:{port}  (Ctrl-C ends it)")
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,  # it would write paths and queries
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
            proxy_headers=False,
        )
        with suppress(KeyboardInterrupt):  # raised again once all is done: this is how a server ends
            uvicorn.Server(config).run(sockets=[listening])


def _keep_freed_memory() -> None:
    """Or each pass of the network begins with the system zeroing the pages that the last gave back."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # of glibc alone
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _listening(settings: ServeSettings) -> socket.socket:
    """Bound before the encoder is loaded: a port in use should not take a minute to find out."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {settings.host}:{settings.port}: {error.strerror}",
            hint="Another server may be there; choose another with --port.",
        ) from error
