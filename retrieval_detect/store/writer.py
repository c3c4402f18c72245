"""The one writer: turns a generation into the next, crash-safe at every step."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_detect.errors import UsageError
from retrieval_detect.files import sha256_bytes, write_atomically, write_bytes
from retrieval_detect.store.append import NewRow, append_rows
from retrieval_detect.store.failures import record_failures
from retrieval_detect.store.layout import FITTED, TOMBSTONES
from retrieval_detect.store.manifest import (
    FITTED_NAME,
    FileRecord,
    FittedKind,
    FittedRecord,
    GeneratorFacts,
    Manifest,
    Operation,
    Purge,
    ShardRecord,
    Stratum,
    TombstoneRecord,
    commit,
    fitted_path,
    now,
    tool_versions,
)
from retrieval_detect.store.purge import erasable, kept_manifest, keyed_digest
from retrieval_detect.store.shards import merge_small, rewrite
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.staging import Staging
from retrieval_detect.store.sweep import sweep

if TYPE_CHECKING:
    from retrieval_detect.types import Failure

Review: TypeAlias = Callable[[Snapshot], Sequence[FittedRecord]]


@dataclass(frozen=True, slots=True)
class Addition:
    """What one addition brings.

    ``rows`` are references whose vectors are staged; ``generators`` what is known about theirs;
    ``engines`` the engine that embedded them, with its canaries' largest centred cosine distance.
    """

    rows: Sequence[NewRow]
    failures: Sequence[Failure] = ()
    generators: Mapping[str, GeneratorFacts] = field(default_factory=dict)
    engines: Mapping[str, float] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


class Writer:
    """Makes the next generation. Every method commits exactly one generation, or changes nothing."""

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        self.folder = folder
        self.snapshot = snapshot

    def staging(self) -> Staging:
        """Embeddings that are done but not committed."""
        manifest = self.snapshot.manifest
        return Staging(self.folder, fingerprint=manifest.encoder.fingerprint, layers=manifest.layers)

    def add(self, addition: Addition, staging: Staging, *, review: Review | None = None) -> Manifest:
        """Commit ``addition.rows``; their content ids must be staged and not be stored already.

        ``review`` is shown the generation to be before anything refers to it. It returns what it has
        fitted on it, to be committed along, or raises, and the old generation stays in force.
        """
        old = self.snapshot.manifest
        failed = record_failures(self.folder, addition.failures)
        if not addition.rows:
            self._drop_staged(staging)
            return old
        added_at = datetime.now(UTC).replace(microsecond=0)
        new = append_rows(self.folder, addition.rows, staging, self.snapshot, added_at=added_at)
        manifest = self._next(
            Operation("add", added=len(addition.rows), failed=failed, detail=addition.detail),
            shards=tuple(merge_small(self.folder, [*old.shards, *new.shards], old.layers)),
            strata=new.strata,
            next_row_id=new.next_row_id,
            generators=dict(old.generators) | dict(addition.generators),
            engines=dict(old.engines) | dict(addition.engines),
        )
        if review is not None:
            manifest = replace(manifest, fitted=_with(old.fitted, review(Snapshot(self.folder, manifest))))
        self._commit_manifest(manifest)
        self._drop_staged(staging)
        return manifest

    def remove(self, row_ids: Sequence[int], *, reason: str, detail: Mapping[str, Any]) -> Manifest:
        """Commit tombstones for live rows; unknown or dead ids raise ``UsageError``."""
        ids = np.unique(np.asarray(row_ids, dtype=np.int64))
        strata = self._strata_without(ids)
        date = datetime.now(UTC).replace(microsecond=0)
        columns = {
            "row_id": pa.array(ids),
            "reason": pa.array([reason] * len(ids)),
            "date": pa.array([date] * len(ids), pa.timestamp("s", tz="UTC")),
        }
        name = hashlib.sha256(ids.tobytes() + date.isoformat().encode()).hexdigest()[:16]
        path = self.folder / TOMBSTONES / f"{name}.parquet"
        write_atomically(path, lambda file: pq.write_table(pa.table(columns), file))
        record = TombstoneRecord(name, len(ids), FileRecord.of(path))
        return self._commit(
            Operation("remove", removed=len(ids), detail=dict(detail) | {"reason": reason}),
            tombstones=(*self.snapshot.manifest.tombstones, record),
            strata=strata,
        )

    def compact(self, *, purge: bool = False) -> Manifest:
        """Rewrite shards without their removed rows; with ``purge``, erase those rows in every generation.

        After a purge no older generation exists, and a removed image is refused if it is added again.
        Where nothing is removed and nothing is to be purged, nothing is committed.
        """
        old = self.snapshot.manifest
        dead = self.snapshot.dead
        if not (purge or len(dead)):
            return old
        purged = self._purged_digests() if purge else old.purge
        manifest = self._commit(
            Operation("purge" if purge else "compact", removed=len(dead)),
            shards=tuple(self._rewritten(dead)),
            tombstones=(),
            purge=replace(purged, floor=old.generation + 1) if purge else purged,
        )
        if purge:
            staging = self.staging()
            staging.drop(staging.content_ids())
            sweep(self.folder, manifest)
        return manifest

    def rollback(self, generation: int) -> Manifest:
        """Commit a copy of an older generation. Row ids and generation numbers go on growing."""
        back = kept_manifest(self.folder, generation)
        return self._commit(
            Operation("rollback", detail={"to": generation}),
            shards=back.shards,
            tombstones=back.tombstones,
            strata=back.strata,
            generators=back.generators,
            fitted=back.fitted,
        )

    def write_fitted(
        self, kind: FittedKind, name: str, *, method: str, files: Mapping[str, bytes], rows_digest: str
    ) -> FittedRecord:
        """Write something fitted; it counts once a manifest names it. ``files`` : suffix → bytes."""
        if not FITTED_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot name a {kind}", hint="Use lower-case letters, digits, '-' and '_'."
            )
        (self.folder / FITTED[kind]).mkdir(exist_ok=True)
        records = {}
        for suffix, data in files.items():
            path = fitted_path(self.folder, kind, name, suffix, sha256_bytes(data))
            write_bytes(path, data)
            records[suffix] = FileRecord.of(path)
        return FittedRecord(kind, name, method, records, rows_digest)

    def fit(self, record: FittedRecord) -> Manifest:
        """Commit something fitted, in place of what had its name."""
        detail = {"kind": record.kind, "name": record.name, "method": record.method}
        return self._commit(
            Operation("fit", detail=detail), fitted=_with(self.snapshot.manifest.fitted, [record])
        )

    # ------------------------------------------------------------ parts

    def _next(self, operation: Operation, **changes: Any) -> Manifest:
        """The manifest of the next generation, not committed."""
        old = self.snapshot.manifest
        fixed = {
            "generation": old.generation + 1,
            "parent": old.generation,
            "created_at": now(),
            "tools": tool_versions(),
        }
        return replace(old, operation=operation, **fixed, **changes)  # type: ignore[arg-type]

    def _commit(self, operation: Operation, **changes: Any) -> Manifest:
        return self._commit_manifest(self._next(operation, **changes))

    def _commit_manifest(self, manifest: Manifest) -> Manifest:
        commit(self.folder, manifest)
        self.snapshot = Snapshot(self.folder, manifest)
        sweep(self.folder, manifest)
        return manifest

    def _drop_staged(self, staging: Staging) -> None:
        ids = staging.content_ids()
        staging.drop({ids[index] for index, *_ in self.snapshot.find(ids)})

    def _strata_without(self, ids: np.ndarray) -> tuple[Stratum, ...]:
        try:
            rows = self.snapshot.take(ids.tolist(), ["label", "split", "generator", "source"])
        except KeyError as error:
            raise UsageError(f"there is no row {error}", hint="See the rows: rd bank list --by row") from None
        gone = Counter(
            (r["label"], r["generator"] if r["label"] == "fake" else r["source"], r["split"]) for r in rows
        )
        if np.isin(ids, self.snapshot.dead).any():
            raise UsageError("some of these rows are removed already")
        return tuple(
            replace(
                s, bank=s.bank - gone[s.label, s.name, "bank"], calib=s.calib - gone[s.label, s.name, "calib"]
            )
            for s in self.snapshot.manifest.strata
        )

    def _rewritten(self, dead: np.ndarray) -> Iterator[ShardRecord]:
        layers = self.snapshot.manifest.layers
        records: list[ShardRecord] = []
        for shard in self.snapshot.shards():
            hurt = np.isin(shard.row_ids, dead, assume_unique=True).any()
            record = rewrite(self.folder, [shard], layers, dead) if hurt else shard.record
            records += [record] if record else []
        yield from merge_small(self.folder, records, layers)

    def _purged_digests(self) -> Purge:
        old = self.snapshot.manifest.purge
        key = old.key or secrets.token_hex(32)
        fresh = {keyed_digest(key, content_id) for content_id in erasable(self.snapshot)}
        return Purge(old.floor, key, tuple(sorted({*old.digests, *fresh})))


def _with(fitted: Iterable[FittedRecord], new: Sequence[FittedRecord]) -> tuple[FittedRecord, ...]:
    replaced = {(record.kind, record.name) for record in new}
    return (*(record for record in fitted if (record.kind, record.name) not in replaced), *new)
