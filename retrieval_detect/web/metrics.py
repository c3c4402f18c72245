"""What is counted, in the words of Prometheus. No name of a file or an image is ever a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from retrieval_detect.types import Failure

if TYPE_CHECKING:
    from retrieval_detect.verdicts import Verdict

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.judged = Counter("rd_images", "Images judged.", ["verdict"], registry=registry)
        self.failed = Counter("rd_failures", "Images that could not be used.", ["reason"], registry=registry)
        self.rejected = Counter("rd_rejected", "Images turned away: the queue was full.", registry=registry)
        self.waiting = Gauge("rd_waiting", "Images waiting or worked on.", registry=registry)
        self.generation = Gauge("rd_generation", "Generation that answers.", registry=registry)
        self.batch = Histogram(
            "rd_batch_images", "Images in one pass of the network.", buckets=_BATCHES, registry=registry
        )
        self.seconds = Histogram(
            "rd_image_seconds", "From arrival to verdict.", buckets=_SECONDS, registry=registry
        )

    def answered(self, result: Verdict | Failure, elapsed_s: float) -> None:
        """Count what became of one image."""
        self.seconds.observe(elapsed_s)
        if isinstance(result, Failure):
            self.failed.labels(result.reason).inc()
        else:
            self.judged.labels(result.verdict).inc()

    def text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self._registry)
