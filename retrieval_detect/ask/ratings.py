"""Use case: how good people would find images, by a quality head; says nothing about fakes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from retrieval_detect.ask.evidence import doubts
from retrieval_detect.ask.methods import QUALITY
from retrieval_detect.types import Failure
from retrieval_detect.vectors import as_stored

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import ImageItem
    from retrieval_detect.verdicts import IndexRef


@dataclass(frozen=True, slots=True)
class Rating:
    """``quality`` : predicted, on the scale of the scores that the head ``method`` learnt; more = better.

    It is no score in rd's sense: it has no sign.
    """

    input: str
    sha256: str
    quality: float
    method: str
    warnings: tuple[str, ...]
    index: IndexRef
    encoder: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"quality": round(self.quality, 4), "warnings": list(self.warnings)}


def is_quality(snapshot: Snapshot, method: str) -> bool:
    """Whether a method is a head that tells how good an image looks."""
    record = snapshot.fitted("head", method)
    return record is not None and record.method == QUALITY


def rate(
    detector: Detector,
    items: Iterable[ImageItem],
    name: str,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[Rating | Failure]:
    """Ratings by the quality head ``name``, in the order of ``items``, streamed."""
    from retrieval_detect.encoders.pipeline import embed

    head = detector.methods.head(name)
    spec = detector.encoder.spec
    images = embed(items, detector.encoder, layers=head.layers, batch_size=batch_size, workers=workers)
    for image in images:
        if isinstance(image, Failure):
            yield image
            continue
        quality = head.decision_function({layer: as_stored(image.vectors[layer]) for layer in head.layers})
        yield Rating(
            image.item.uri,
            image.content_id.hex(),
            float(quality[0]),
            name,
            tuple(doubts(image, (), spec)),
            detector.reference,
            spec.name,
        )
