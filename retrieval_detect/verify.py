"""Is an index whole? The store's own checks, FAISS against the store, and images against their vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.detector import Detector
from retrieval_detect.encoders.canaries import CANARY_TOLERANCE
from retrieval_detect.errors import RdError
from retrieval_detect.images.sources import scan
from retrieval_detect.store.verify import findings
from retrieval_detect.types import LABELS, Embedded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from retrieval_detect.store.snapshot import Snapshot

_PROBES = 64
"""Stored vectors asked for their nearest neighbour, which must be themselves."""


def problems(
    snapshot: Snapshot, *, sample: int = 0, weights: Path | None = None, offline: bool = False
) -> Iterator[str]:
    """Problems in words; none means the index is whole.

    ``sample`` references whose files can still be read are embedded again and compared.
    """
    found = list(findings(snapshot))
    yield from found
    if found:
        return
    detector = Detector(snapshot, weights=weights, offline=offline, device="cpu")
    for label in LABELS:
        if snapshot.manifest.live_rows(label, "bank"):
            yield from detector.banks.disagreements(label, _PROBES)
    if sample:
        yield from _changed_vectors(detector, sample)


def _changed_vectors(detector: Detector, sample: int) -> Iterator[str]:
    from retrieval_detect.encoders.pipeline import embed

    snapshot = detector.snapshot
    rows = snapshot.scan(["row_id", "content_id", "uri"]).to_pylist()
    step = max(1, len(rows) // sample)
    chosen = rows[::step][:sample]
    items = [next(scan([row["uri"]])) for row in chosen if _readable(row["uri"])]
    by_content = {row["content_id"]: row["row_id"] for row in chosen}
    for result in embed(items, detector.encoder, layers=[detector.layer]):
        if isinstance(result, Embedded) and result.content_id in by_content:
            row_id = by_content[result.content_id]
            distance = 1 - _cosine(result.vectors[detector.layer], _stored(snapshot, row_id, detector.layer))
            if distance > CANARY_TOLERANCE:
                yield f"row {row_id} ({result.item.uri}) embeds otherwise now: cosine distance {distance:.1e}"


def _readable(uri: str) -> bool:
    try:
        return any(True for _ in scan([uri]))
    except (RdError, OSError):
        return False


def _stored(snapshot: Snapshot, row_id: int, layer: str) -> np.ndarray:
    for shard in snapshot.shards():
        position = int(np.searchsorted(shard.row_ids, row_id))
        if position < len(shard) and shard.row_ids[position] == row_id:
            return np.asarray(shard.vectors(layer)[position], dtype=np.float32)
    raise KeyError(row_id)


def _cosine(a: Sequence[float] | np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
