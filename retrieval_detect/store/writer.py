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

from retrieval_detect.errors import IndexStateError, UsageError
from retrieval_detect.files import sha256_bytes, write_atomically, write_bytes
from retrieval_detect.store.append import NewRow, append_rows
from retrieval_detect.store.failures import record_failures
from retrieval_detect.store.layout import FAILURES, FITTED, TOMBSTONES
from retrieval_detect.store.manifest import (
    FITTED_NAME,
    FileRecord,
    FittedKind,
    FittedRecord,
    GeneratorFacts,
    Manifest,
    Operation,
    Purge,
    RowStratum,
    ShardRecord,
    Stratum,
    TombstoneRecord,
    commit,
    fitted_path,
    now,
    tool_versions,
)
from retrieval_detect.store.mistakes import read_mistakes, write_mistakes
from retrieval_detect.store.originals import StoredImage, committed, stored_images
from retrieval_detect.store.renaming import renamed
from retrieval_detect.store.schema import VERSION
from retrieval_detect.store.shards import keeps_unused_texts, merge_small, rewrite
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.staging import Staging
from retrieval_detect.store.sweep import erasable, kept_snapshot, keyed_digest, sweep, were_purged
from retrieval_detect.types import ORIGINAL_VIEW, SPLITS

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import MistakesRecord, Tuned
    from retrieval_detect.store.mistakes import Mistakes
    from retrieval_detect.store.renaming import Names
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

    @property
    def n_images(self) -> int:
        """How many references come; views of them, or of stored ones, do not count."""
        return sum(row.view == ORIGINAL_VIEW for row in self.rows)


class Writer:
    """Makes the next generation. Every method commits exactly one generation, or changes nothing."""

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        self.folder = folder
        self.snapshot = snapshot

    def staging(self) -> Staging:
        """Embeddings that are done but not committed."""
        return Staging.of(self.snapshot)

    def add(self, addition: Addition, staging: Staging, *, review: Review | None = None) -> Manifest:
        """Commit ``addition.rows``; they must be staged and not be stored already.

        ``review`` is shown the generation to be before anything refers to it. It returns what it has
        fitted on it, to be committed along, or raises, and the old generation stays in force.
        """
        old = self.snapshot.manifest
        failed = record_failures(self.folder, addition.failures)
        if not addition.rows:
            self._drop_staged(staging)
            return old
        added_at = datetime.now(UTC).replace(microsecond=0)
        new, strata = append_rows(self.folder, addition.rows, staging, self.snapshot, added_at=added_at)
        manifest = self._commit(
            Operation("add", added=addition.n_images, failed=failed, detail=addition.detail),
            review,
            shards=tuple(merge_small(self.folder, [*old.shards, *new], old.layers)),
            strata=strata,
            next_row_id=old.next_row_id + len(addition.rows),
            generators=dict(old.generators) | dict(addition.generators),
            engines=dict(old.engines) | dict(addition.engines),
        )
        self._drop_staged(staging)
        return manifest

    def remove(
        self, row_ids: Sequence[int], *, reason: str, detail: Mapping[str, Any], review: Review | None = None
    ) -> Manifest:
        """Commit tombstones for images, by any of their live rows; all their views go with them.

        ``review`` : see ``add``; it must not raise. Unknown or dead ids raise ``UsageError``.
        """
        images = self._images_of(np.unique(np.asarray(row_ids, dtype=np.int64)))
        ids = np.sort([row_id for image in images for row_id in image.row_ids])
        strata = self._strata_without([image.row_id for image in images])
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
            Operation("remove", removed=len(images), detail=dict(detail) | {"reason": reason}),
            review,
            tombstones=(*self.snapshot.manifest.tombstones, record),
            strata=strata,
        )

    def compact(self, *, purge: bool = False, review: Review | None = None) -> Manifest:
        """Rewrite shards without their removed rows; with ``purge``, erase those rows in every generation.

        After a purge no older generation exists, no text is left that no live row has, and a removed image
        is refused if it is added again. Where nothing is removed and nothing is to be purged, nothing is
        committed. ``review`` : returns what was fitted, to go on without what is erased; see ``add``. Raises
        ``IndexStateError`` where files of what was purged could not be deleted.
        """
        dead = self.snapshot.dead
        if not (purge or len(dead)):
            return self.snapshot.manifest
        erased = self._purged_digests() if purge else None
        operation = Operation("purge" if purge else "compact", removed=len(dead))
        manifest = self._next(operation, shards=tuple(self._rewritten(dead, purge=purge)), tombstones=())
        if erased is None:
            return self._commit_manifest(manifest)
        manifest = replace(
            manifest.of_live_rows(),
            purge=replace(erased, floor=manifest.generation),
            mistakes=self._mistakes_without(erased),
        )
        manifest = self._reviewed(manifest, review)
        # First, so that a crash leaves neither beside an index that says that it was purged.
        staging = self.staging()
        staging.drop(staging.keys())
        (self.folder / FAILURES).unlink(missing_ok=True)
        self._commit_manifest(manifest)
        if left := sweep(self.folder, manifest):
            raise IndexStateError(
                f"{len(left)} files of what was erased could not be deleted, the first is {left[0]}",
                hint="End what reads the index, then run again: rd bank compact --purge",
            )
        return manifest

    def rename(self, names: Names, *, detail: Mapping[str, Any], review: Review | None = None) -> Manifest:
        """Commit references under other names; names that become one are one. ``review`` : see ``add``."""
        new = renamed(self.folder, self.snapshot, names)
        layers = self.snapshot.manifest.layers
        return self._commit(
            Operation("rename", detail=dict(detail) | {"names": names, "references": new.images}),
            review,
            shards=tuple(merge_small(self.folder, new.shards, layers)),
            strata=new.strata,
            generators=new.generators,
            next_row_id=new.next_row_id,
        )

    def rollback(self, generation: int) -> Manifest:
        """Commit a copy of an older generation. Row ids and generation numbers go on growing."""
        back = kept_snapshot(self.folder, generation).manifest
        return self._commit(
            Operation("rollback", detail={"to": generation}),
            shards=back.shards,
            tombstones=back.tombstones,
            strata=back.strata,
            generators=back.generators,
            fitted=back.fitted,
            tuned=back.tuned,
            mistakes=back.mistakes,
            projection=back.projection,
        )

    def write_fitted(
        self,
        kind: FittedKind,
        name: str,
        *,
        method: str,
        files: Mapping[str, bytes],
        rows: tuple[str, tuple[RowStratum, ...]],
    ) -> FittedRecord:
        """Write something fitted; it counts once a manifest names it.

        ``files`` : suffix → bytes. ``rows`` : the digest of what it was fitted on, and the classes of rows
        that covers.
        """
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
        return FittedRecord(kind, name, method, records, *rows)

    def fitted_on(self, seen: Snapshot, strata: tuple[RowStratum, ...]) -> tuple[str, tuple[RowStratum, ...]]:
        """The rows of a generation as ``write_fitted`` names them; ``UsageError`` if it was purged since."""
        if seen.manifest.generation < self.snapshot.manifest.purge.floor:
            raise UsageError(
                "references were purged while this was fitted on them", hint="Run the same command again."
            )
        return seen.rows_digest(strata), strata

    def fit(self, records: Sequence[FittedRecord], *, projection: str | None = None) -> Manifest:
        """Commit what was fitted, in place of what had its names.

        ``projection`` : the one that banks are searched through from now on.
        """
        return self._commit_manifest(self._fitted(records, projection))

    def tune(self, tuned: Tuned | None, *, review: Review) -> Manifest:
        """Commit how banks are searched from now on; ``None`` is exactly. ``review`` : see ``add``."""
        detail = {"kind": tuned.kind if tuned else "exact"}
        return self._commit(Operation("tune", detail=detail), review, tuned=tuned)

    def preview(self, records: Sequence[FittedRecord], *, projection: str | None = None) -> Snapshot:
        """The generation that ``fit`` would commit."""
        return Snapshot(self.folder, self._fitted(records, projection))

    def _fitted(self, records: Sequence[FittedRecord], projection: str | None) -> Manifest:
        old = self.snapshot.manifest
        projection = old.projection if projection is None else projection
        fitted = [{"kind": r.kind, "name": r.name, "method": r.method} for r in records]
        return self._next(
            Operation("fit", detail={"fitted": fitted, "projection": projection}),
            fitted=with_records(old.fitted, records),
            projection=projection,
        )

    def forget(self, kind: FittedKind, name: str, *, along: Sequence[FittedRecord] = ()) -> Manifest:
        """Commit without something fitted. ``along`` : what rests on it and goes with it."""
        old = self.snapshot.manifest
        gone = {(kind, name), *((f.kind, f.name) for f in along)}
        rest = tuple(f for f in old.fitted if (f.kind, f.name) not in gone)
        return self._commit(Operation("forget", detail={"kind": kind, "name": name}), fitted=rest)

    def keep(self, mistakes: Mistakes) -> Manifest:
        """Commit these as the mistakes that are kept, in place of those before."""
        return self._commit(
            Operation("mistake", detail={"kept": len(mistakes)}),
            mistakes=write_mistakes(self.folder, mistakes),
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
            "version": VERSION,
        }
        return replace(old, operation=operation, **fixed, **changes)  # type: ignore[arg-type]

    def _reviewed(self, manifest: Manifest, review: Review | None) -> Manifest:
        """The generation to be, with what was fitted on it."""
        if review is None:
            return manifest
        fitted = with_records(manifest.fitted, review(Snapshot(self.folder, manifest)))
        return replace(manifest, fitted=fitted)

    def _commit(self, operation: Operation, review: Review | None = None, **changes: Any) -> Manifest:
        return self._commit_manifest(self._reviewed(self._next(operation, **changes), review))

    def _commit_manifest(self, manifest: Manifest) -> Manifest:
        commit(self.folder, manifest)
        self.snapshot = Snapshot(self.folder, manifest)
        sweep(self.folder, manifest)
        return manifest

    def _drop_staged(self, staging: Staging) -> None:
        staging.drop(committed(self.snapshot, staging.keys()))

    def _images_of(self, ids: np.ndarray) -> list[StoredImage]:
        try:
            rows = self.snapshot.take(ids.tolist(), ["content_id"])
        except KeyError as error:
            raise UsageError(f"there is no row {error}", hint="See the rows: rd bank list --by row") from None
        if np.isin(ids, self.snapshot.dead).any():
            raise UsageError("some of these rows are removed already")
        content_ids = list(dict.fromkeys(row["content_id"] for row in rows))
        return list(stored_images(self.snapshot, content_ids).values())

    def _strata_without(self, originals: Sequence[int]) -> tuple[Stratum, ...]:
        rows = self.snapshot.take(originals, ["label", "split", "generator", "source"])
        gone = Counter(
            (r["label"], r["generator"] if r["label"] == "fake" else r["source"], r["split"]) for r in rows
        )
        return tuple(
            s.plus(**{split: -gone[s.label, s.name, split] for split in SPLITS})
            for s in self.snapshot.manifest.strata
        )

    def _rewritten(self, dead: np.ndarray, *, purge: bool) -> Iterator[ShardRecord]:
        layers = self.snapshot.manifest.layers
        records: list[ShardRecord] = []
        for shard in self.snapshot.shards():
            hurt = bool(np.isin(shard.row_ids, dead, assume_unique=True).any())
            hurt = hurt or (purge and keeps_unused_texts(shard))
            record = rewrite(self.folder, [shard], layers, dead) if hurt else shard.record
            records += [record] if record else []
        yield from merge_small(self.folder, records, layers)

    def _mistakes_without(self, erased: Purge) -> MistakesRecord | None:
        kept = read_mistakes(self.snapshot)
        gone = were_purged(kept.content_ids.tolist(), erased)
        return write_mistakes(self.folder, kept.take(kept.others(gone)))

    def _purged_digests(self) -> Purge:
        old = self.snapshot.manifest.purge
        key = old.key or secrets.token_hex(32)
        fresh = {keyed_digest(key, content_id) for content_id in erasable(self.snapshot)}
        return Purge(old.floor, key, tuple(sorted({*old.digests, *fresh})))


def with_records(fitted: Iterable[FittedRecord], new: Sequence[FittedRecord]) -> tuple[FittedRecord, ...]:
    """``fitted`` with ``new`` in place of what had their names."""
    replaced = {(record.kind, record.name) for record in new}
    return (*(record for record in fitted if (record.kind, record.name) not in replaced), *new)
