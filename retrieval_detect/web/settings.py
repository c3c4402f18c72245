"""What a server allows, and how much it takes on at once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from retrieval_detect.images.decode import Limits
from retrieval_detect.verdicts import Question

MIB = 1 << 20


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Limits of one server. Sizes in bytes, times in seconds.

    ``token`` : what writing asks for; ``None`` = nobody may write. ``hosts`` : further names by which the
    server may be called, besides loopback and ``host`` itself. ``queue_images`` : images that may wait or be
    worked on; one more is turned away with 429. ``batch_images`` : images in one pass of the network
    (``None``: what suits the device); ``window_s`` : how long the first of a batch waits for others.
    ``held_bytes`` : bodies of requests in memory, all together. ``receive_s`` : how long a request may take
    to arrive; ``decode_s``, ``decode_bytes`` : what decoding an image may take; ``stuck_s`` : how long a
    thread may be at one thing before the server calls itself stuck. ``question`` : what is asked where a
    request says nothing else.
    """

    host: str = "127.0.0.1"
    port: int = 8321
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    queue_images: int = 64
    batch_images: int | None = None
    window_s: float = 0.005
    poll_s: float = 1.0
    limits: Limits = field(default_factory=Limits)
    file_bytes: int = 32 * MIB
    body_bytes: int = 256 * MIB
    files: int = 64
    held_bytes: int = 1024 * MIB
    receive_s: float = 60.0
    decode_s: float = 20.0
    decode_bytes: int = 2048 * MIB
    decoders: int = field(default_factory=cores)
    stuck_s: float = 120.0
    question: Question = field(default_factory=Question)

    @property
    def most_files(self) -> int:
        """Images in one request: no more than can ever wait at once."""
        return min(self.files, self.queue_images)
