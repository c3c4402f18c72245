"""Is an index whole? The store's own checks, FAISS against the store, and images against their vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.ask.banks import Banks
from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.fitted import KINDS, read
from retrieval_detect.ask.methods import Methods
from retrieval_detect.encoders.canaries import CANARY_TOLERANCE
from retrieval_detect.errors import IndexStateError, RdError
from retrieval_detect.images.stored import stored_items
from retrieval_detect.search.approximate import caveat
from retrieval_detect.store.manifest import manifest_path
from retrieval_detect.store.verify import findings
from retrieval_detect.types import LABELS, ORIGINAL_VIEW, Embedded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from retrieval_detect.store.snapshot import Snapshot

_PROBES = 64
"""Stored vectors asked for their nearest neighbour, which must be themselves."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Problems in words; none means the index is whole.

    ``compared`` : how many of the ``sampled`` references were embedded again; the files of the others
    are gone or have changed. ``left_out`` : what cannot be compared, in words.
    """

    problems: tuple[str, ...]
    sampled: int = 0
    compared: int = 0
    left_out: tuple[str, ...] = ()


def verify(
    snapshot: Snapshot, *, sample: int = 0, weights: Path | None = None, offline: bool = False
) -> Findings:
    """Reread the store, compare FAISS with it, and embed ``sample`` references again."""
    damage = tuple(findings(snapshot)) or tuple(dict.fromkeys(e.message for e in _unusable(snapshot)))
    if damage:
        generation = snapshot.manifest.generation
        if not manifest_path(snapshot.folder, generation).exists():  # swept meanwhile
            raise IndexStateError(
                f"generation {generation} of {snapshot.folder} has gone while it was verified",
                hint="Verify the one that is in force now: rd index verify",
            )
        return Findings(damage)
    snapshot.hold()
    detector = Detector(snapshot, weights=weights, offline=offline, device="cpu")
    # Approximate banks may answer otherwise; what they measure candidates by is compared all the same.
    banks = Banks(snapshot, device="cpu", exact=True)
    wrong = [
        problem
        for label in LABELS
        if snapshot.manifest.live_rows(label, "bank")
        for problem in banks.disagreements(label, _PROBES)
    ]
    rows = snapshot.scan(["row_id", "content_id", "uri", "view"]).to_pylist() if sample else []
    rows = [row for row in rows if row["view"] == ORIGINAL_VIEW]
    chosen = rows[:: max(1, len(rows) // sample)][:sample] if rows else []
    distances = list(_distances(detector, chosen))
    wrong += [
        f"row {row_id} ({uri}) embeds otherwise now: cosine distance {distance:.1e}"
        for row_id, uri, distance in distances
        if not distance <= CANARY_TOLERANCE
    ]
    tuned = detector.banks.tuned
    left_out = (f"only exact search was compared; banks use {caveat(tuned)}",) if tuned else ()
    return Findings(tuple(wrong), len(chosen), len(distances), left_out)


def require_fitted(snapshot: Snapshot) -> None:
    """Read all that was fitted, as asking would; raises ``IndexCorrupt`` for a file that is none."""
    for error in _unusable(snapshot):
        raise error


def _unusable(snapshot: Snapshot) -> Iterator[RdError]:
    fitted: list[partial[Any]] = [
        partial(read, snapshot, KINDS[f.kind], f.name) for f in snapshot.manifest.fitted
    ]
    for look in (partial(Methods(snapshot, device="cpu").banks), *fitted):
        try:
            look()
        except RdError as error:
            yield error


def _distances(detector: Detector, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str, float]]:
    """Row id, uri and cosine distance between stored and new vector, where the file is what it was."""
    from retrieval_detect.encoders.pipeline import embed

    if not rows:
        return
    items = stored_items((row["uri"], row["content_id"]) for row in rows)
    for row, result in zip(rows, embed(items, detector.encoder, layers=[detector.layer]), strict=True):
        if isinstance(result, Embedded):
            stored = detector.snapshot.gather([row["row_id"]], detector.layer)[0]
            yield row["row_id"], row["uri"], 1 - _cosine(result.vectors[detector.layer], stored)


def _cosine(a: Sequence[float] | np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
