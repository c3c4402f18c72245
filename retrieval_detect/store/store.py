"""The store: one writer at a time turns generations into the next, crash-safe at every step."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_detect.errors import IndexLocked, UsageError
from retrieval_detect.files import TEMPORARY, DigestCache, write_atomically
from retrieval_detect.store.append import NewRow, append_rows
from retrieval_detect.store.failures import record_failures
from retrieval_detect.store.layout import (
    BANKS,
    CANARIES,
    CURRENT,
    LOCK,
    MANIFESTS,
    SHARDS,
    STAGING,
    TOMBSTONES,
)
from retrieval_detect.store.manifest import (
    FileRecord,
    GeneratorFacts,
    Manifest,
    Operation,
    Purge,
    ShardRecord,
    Stratum,
    TombstoneRecord,
    commit,
    manifest_path,
    read_current,
    read_manifest,
)
from retrieval_detect.store.shards import merge_small, rewrite, write_array
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.staging import Staging
from retrieval_detect.store.sweep import KEPT_GENERATIONS, kept_generations, sweep

if TYPE_CHECKING:
    from retrieval_detect.types import EncoderSpec, Failure, Float32

_OURS = {CURRENT, MANIFESTS, SHARDS, TOMBSTONES, CANARIES, STAGING, BANKS, LOCK}
_TOOLS = ("retrieval-detect", "numpy", "pyarrow", "pillow", "torch", "open_clip_torch", "timm")


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


class Store:
    """The files of one index.

    Reading needs no lock: ``snapshot()`` opens the generation in force. Writing goes through
    ``writer()``, which holds ``.lock`` and refuses a second writer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, spec: EncoderSpec, *, canaries: Mapping[str, Float32]) -> Store:
        """A new, empty index: generation 0.

        ``canaries`` : layer → float32 (16, d), the canary images' vectors; its keys are the layers
        that every reference will have. Raises ``UsageError`` where something else lies already.
        """
        if (folder / CURRENT).exists():
            raise UsageError(
                f"{folder} is an index already", hint="Add to it: rd bank add, or choose another name."
            )
        if folder.exists() and not (
            folder.is_dir() and all(_is_ours(path.name) for path in folder.iterdir())
        ):
            raise UsageError(f"{folder} exists and is not an index", hint="Give a new or empty folder.")
        for name in (MANIFESTS, SHARDS, TOMBSTONES, CANARIES):
            (folder / name).mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            records = {layer: _write_canaries(folder, layer, vectors) for layer, vectors in canaries.items()}
            operation = Operation("create")
            empty = Manifest(
                0,
                None,
                _now(),
                operation,
                spec,
                tuple(canaries),
                records,
                engines={spec.engine: 0.0},
                tools=_tools(),
            )
            commit(folder, empty)
        return cls(folder)

    def snapshot(self, *, digests: DigestCache | None = None) -> Snapshot:
        """The generation in force, checked; see ``Snapshot.open``."""
        return Snapshot.open(self.folder, digests=digests)

    def kept(self, generation: int) -> Manifest:
        """A generation that can be gone back to, its files checked.

        Raises ``UsageError`` where it is not kept and ``IndexCorrupt`` where it is damaged.
        """
        current = read_current(self.folder)
        path = manifest_path(self.folder, generation)
        if generation not in kept_generations(self.folder, current):
            raise UsageError(
                f"there is no generation {generation} to go back to",
                hint=f"See which are kept (the last {KEPT_GENERATIONS}): rd bank history",
            )
        manifest = read_manifest(path)
        Snapshot(self.folder, manifest).check(DigestCache.for_user())
        return manifest

    def erasable(self) -> set[bytes]:
        """Content ids that some kept generation calls removed and that have no live row now."""
        snapshot = self.snapshot()
        removed: set[bytes] = set()
        for generation in kept_generations(self.folder, snapshot.manifest):
            then = Snapshot(self.folder, read_manifest(manifest_path(self.folder, generation)))
            dead = np.concatenate([np.empty(0, np.int64), *(s.row_ids[~then.live(s)] for s in then.shards())])
            removed |= {row["content_id"] for row in then.take(dead.tolist(), ["content_id"])}
        content_ids = sorted(removed)
        return removed - {content_ids[index] for index, *_ in snapshot.find(content_ids)}

    @contextmanager
    def writer(self, *, checked: bool = True) -> Iterator[Writer]:
        """Hold the lock and sweep what a crashed writer left; ``IndexLocked`` at once if another holds it.

        ``checked=False`` opens an index whose files are damaged, to go back to when they were not.
        """
        read_current(self.folder)  # no lock file where there is no index
        with _locked(self.folder):
            snapshot = self.snapshot() if checked else Snapshot(self.folder, read_current(self.folder))
            sweep(self.folder, snapshot.manifest)
            yield Writer(self.folder, snapshot)


class Writer:
    """Makes the next generation. Every method commits exactly one generation, or changes nothing."""

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        self.folder = folder
        self.snapshot = snapshot

    def staging(self) -> Staging:
        """Embeddings that are done but not committed."""
        manifest = self.snapshot.manifest
        return Staging(self.folder, fingerprint=manifest.encoder.fingerprint, layers=manifest.layers)

    def add(self, addition: Addition, staging: Staging) -> Manifest:
        """Commit ``addition.rows``; their content ids must be staged and not be stored already."""
        old = self.snapshot.manifest
        failed = record_failures(self.folder, addition.failures)
        if not addition.rows:
            self._drop_staged(staging)
            return old
        added_at = datetime.now(UTC).replace(microsecond=0)
        new = append_rows(self.folder, addition.rows, staging, self.snapshot, added_at=added_at)
        manifest = self._commit(
            Operation("add", added=len(addition.rows), failed=failed, detail=addition.detail),
            shards=tuple(merge_small(self.folder, [*old.shards, *new.shards], old.layers)),
            strata=new.strata,
            next_row_id=new.next_row_id,
            generators=dict(old.generators) | dict(addition.generators),
            engines=dict(old.engines) | dict(addition.engines),
        )
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
        back = Store(self.folder).kept(generation)
        return self._commit(
            Operation("rollback", detail={"to": generation}),
            shards=back.shards,
            tombstones=back.tombstones,
            strata=back.strata,
            generators=back.generators,
        )

    # ------------------------------------------------------------ parts

    def _commit(self, operation: Operation, **changes: Any) -> Manifest:
        old = self.snapshot.manifest
        fixed = {
            "generation": old.generation + 1,
            "parent": old.generation,
            "created_at": _now(),
            "tools": _tools(),
        }
        manifest = replace(old, operation=operation, **fixed, **changes)  # type: ignore[arg-type]
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
        fresh = {keyed_digest(key, content_id) for content_id in Store(self.folder).erasable()}
        return Purge(old.floor, key, tuple(sorted({*old.digests, *fresh})))


def _is_ours(name: str) -> bool:
    # A creation that was killed leaves some of these behind; it must be possible to try again.
    return name in _OURS or name.startswith(TEMPORARY)


def keyed_digest(key: str, content_id: bytes) -> str:
    """HMAC-SHA256, hex: enough to refuse an image again, not enough to list what was purged."""
    return hmac.new(bytes.fromhex(key), content_id, hashlib.sha256).hexdigest()


def _write_canaries(folder: Path, layer: str, vectors: Float32) -> FileRecord:
    plain = folder / CANARIES / f"{layer}.npy"
    record = write_array(plain, vectors)
    plain.replace(folder / CANARIES / f"{layer}-{record.sha256[:16]}.npy")
    return record


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise IndexLocked(
            f"another rd is writing to {folder}",
            hint="Wait until it has finished, then run the command again.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def _tools() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
