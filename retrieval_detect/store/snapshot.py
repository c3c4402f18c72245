"""A reader's view of one generation. It never locks and never changes, whatever writers do."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_detect.errors import IndexCorrupt
from retrieval_detect.files import DigestCache
from retrieval_detect.store.layout import CANARIES, TOMBSTONES
from retrieval_detect.store.manifest import (
    ALL_ROWS,
    GROWTH,
    FileRecord,
    FittedKind,
    FittedRecord,
    Manifest,
    RowStratum,
    TombstoneRecord,
    fitted_path,
    mistakes_path,
    read_current,
)
from retrieval_detect.store.schema import ASIDE, content_words, find_keys, rows_schema
from retrieval_detect.store.shards import Shard, check_file, damaged
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.types import Bool, Float32, Int64, Label, Split


class Snapshot:
    """One generation of one index.

    Opening checks that every file is what the manifest says (by size always, by sha256 once per
    version of the file, see ``DigestCache``) and maps it, so that the generation stays readable
    however many follow, and wherever the process goes.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder.absolute()
        self.manifest = manifest
        self._shards = [Shard(self.folder, record) for record in manifest.shards]
        self._mapped: dict[Path, mmap] = {}

    def __repr__(self) -> str:
        manifest = self.manifest
        real, fake = (f"{manifest.live_rows(label):,} {label}" for label in LABELS)
        generators = ", ".join(manifest.names("fake")[:3]) + ", …" * (len(manifest.names("fake")) > 3)
        about = f"{real}, {fake} ({generators}), encoder {manifest.encoder.name}"
        return f"<index {self.folder.name!r}, generation {manifest.generation}: {about}>"

    @classmethod
    def open(cls, folder: Path, *, digests: DigestCache | None = None) -> Snapshot:
        """The generation in force; raises ``IndexNotFound``, ``IndexCorrupt`` or ``FormatUnsupported``."""
        digests = digests or DigestCache.for_user()
        while True:
            snapshot = cls(folder, read_current(folder))
            try:
                snapshot.check(digests)
                snapshot.hold()
            except IndexCorrupt:
                if read_current(folder) == snapshot.manifest:
                    raise
                continue  # it was swept meanwhile: another is in force
            digests.save()
            return snapshot

    def hold(self) -> None:
        """Map every file now, so that all stays readable after a writer has swept it."""
        for shard in self._shards:
            shard.hold(self.manifest.layers)
        for path, _ in self._small_files():
            self._map(path)
        _ = self.dead

    def check(self, digests: DigestCache) -> None:
        """Raise ``IndexCorrupt`` for the first file that is not what the manifest says."""
        for shard in self._shards:
            shard.check(digests)
        for path, record in self._other_files():
            check_file(path, record, digests)

    def files(self) -> Iterator[tuple[Path, FileRecord]]:
        """Every file this generation needs, with its record."""
        for shard in self._shards:
            for suffix, record in shard.record.files.items():
                yield shard.path(suffix), record
        yield from self._other_files()

    def _other_files(self) -> Iterator[tuple[Path, FileRecord]]:
        for tombstone in self.manifest.tombstones:
            yield self.tombstone_path(tombstone), tombstone.file
        yield from self._small_files()

    def _small_files(self) -> Iterator[tuple[Path, FileRecord]]:
        for layer, record in self.manifest.canaries.items():
            yield self.canary_path(layer), record
        for fitted in self.manifest.fitted:
            for suffix, record in fitted.files.items():
                yield self.fitted_path(fitted, suffix), record
        if mistakes := self.manifest.mistakes:
            yield mistakes_path(self.folder, mistakes), mistakes.file

    def read(self, path: Path) -> bytes:
        """A canary file, one of something fitted or of mistakes, as it was when first read or held."""
        return self._map(path)[:]

    def _map(self, path: Path) -> mmap:
        if path not in self._mapped:
            try:
                with path.open("rb") as file:
                    self._mapped[path] = mmap(file.fileno(), 0, access=ACCESS_READ)
            except (OSError, ValueError) as error:  # an empty file is a ValueError
                raise damaged(path) from error
        return self._mapped[path]

    def tombstone_path(self, record: TombstoneRecord) -> Path:
        """Where the row ids of one removal lie."""
        return self.folder / TOMBSTONES / f"{record.id}.parquet"

    def canary_path(self, layer: str) -> Path:
        """Where the canary images' vectors of one layer lie."""
        return self.folder / CANARIES / f"{layer}-{self.manifest.canaries[layer].sha256[:16]}.npy"

    def fitted_path(self, fitted: FittedRecord, suffix: str) -> Path:
        """Where one file of something fitted lies."""
        return fitted_path(self.folder, fitted.kind, fitted.name, suffix, fitted.files[suffix].sha256)

    def fitted(self, kind: FittedKind, name: str) -> FittedRecord | None:
        """The record of something fitted, if there is one."""
        return next((f for f in self.manifest.fitted if (f.kind, f.name) == (kind, name)), None)

    def stale(self) -> list[FittedRecord]:
        """What was fitted on other rows than those that are live now, or has grown too much since."""
        return [
            f
            for f in self.manifest.fitted
            if f.rows_digest != self.rows_digest(f.strata, until=f.until)
            or (f.until is not None and self.n_rows(f.strata) > (1 + GROWTH) * f.n_rows)
        ]

    def without(self, row_ids: Sequence[int]) -> Snapshot:
        """The live rows as they would be without some; nothing is written, and the manifest stays."""
        left = Snapshot(self.folder, self.manifest)
        left.dead = np.union1d(self.dead, np.asarray(row_ids, np.int64))
        return left

    def rows_digest(self, strata: Sequence[RowStratum] = ALL_ROWS, *, until: int | None = None) -> str:
        """Hex sha256 over the ids of the live rows of some classes: what a fitted thing was fitted on.

        ``until`` : only of row ids below it.
        """
        digest = hashlib.sha256()
        for label, split in strata:
            ids = self._row_ids(label, split)
            digest.update(f"{label}/{split}:".encode())
            digest.update((ids if until is None else ids[: np.searchsorted(ids, until)]).tobytes())
        return digest.hexdigest()

    def n_rows(self, strata: Sequence[RowStratum]) -> int:
        """Live rows of some classes, views included."""
        return sum(len(self._row_ids(*stratum)) for stratum in strata)

    def _row_ids(self, label: Label, split: Split) -> Int64:
        """Live, ascending, little-endian."""
        ids = [shard.row_ids[self.live(shard)] for shard in self.shards(label, split)]
        return np.sort(np.concatenate([np.empty(0, np.int64), *ids])).astype("<i8")

    def canaries(self) -> dict[str, np.ndarray]:
        """Layer → float32 (16, d), not unit norm."""
        return {
            layer: np.load(io.BytesIO(self.read(self.canary_path(layer))), allow_pickle=False)
            for layer in self.manifest.canaries
        }

    # ------------------------------------------------------------ rows

    def shards(self, label: Label | None = None, split: Split | None = None) -> list[Shard]:
        """Shards of one class, in order of their row ids."""
        return [
            s for s in self._shards if label in (None, s.record.label) and split in (None, s.record.split)
        ]

    @cached_property
    def dead(self) -> Int64:
        """Removed row ids, int64, sorted."""
        ids = [np.empty(0, np.int64)]
        for record in self.manifest.tombstones:
            path = self.tombstone_path(record)
            try:
                ids.append(pq.read_table(path, columns=["row_id"])["row_id"].to_numpy())
            except (OSError, pa.ArrowInvalid) as error:
                raise damaged(path) from error
        return np.unique(np.concatenate(ids))

    def live(self, shard: Shard) -> Bool:
        """Which rows of a shard have not been removed: bool (n,)."""
        return ~np.isin(shard.row_ids, self.dead, assume_unique=True)

    def scan(
        self, names: Sequence[str], *, label: Label | None = None, split: Split | None = None
    ) -> pa.Table:
        """Columns of all live rows of a class, in shard order."""
        tables = [
            shard.columns(names).filter(pa.array(self.live(shard))) for shard in self.shards(label, split)
        ]
        if not tables:
            schema = rows_schema(self.manifest.layers)
            return pa.schema([ASIDE.get(name) or schema.field(name) for name in names]).empty_table()
        return pa.concat_tables(tables).unify_dictionaries()

    def take(self, row_ids: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of some rows, a dictionary each, in the order asked for; unknown ids raise ``KeyError``."""
        found: dict[int, dict[str, Any]] = {}
        wanted = np.unique(np.asarray(row_ids, dtype=np.int64))
        for shard in self._shards:
            first, last = shard.record.first_row_id, shard.record.last_row_id
            if not len(wanted) or wanted[-1] < first or wanted[0] > last:
                continue
            _, positions = shard.positions(wanted)
            if len(positions):
                rows = shard.take(positions, ["row_id", *names]).to_pylist()
                found |= {row["row_id"]: row for row in rows}
        return [found[int(row_id)] for row_id in row_ids]

    def gather(self, row_ids: Sequence[int], layer: str) -> Float32:
        """One layer's vectors of some rows, float32 (m, d), unit norm to float16 rounding, as asked for."""
        wanted = np.asarray(row_ids, dtype=np.int64)
        found = np.empty((len(wanted), self.manifest.encoder.layers[layer]), np.float32)
        missing = np.ones(len(wanted), bool)
        for shard in self._shards:
            here, positions = shard.positions(wanted)
            found[here] = shard.vectors(layer)[positions]
            missing &= ~here
        if missing.any():
            raise KeyError(int(wanted[missing][0]))
        return found

    def find(self, content_ids: Sequence[bytes]) -> list[tuple[int, int, int, bool]]:
        """Live rows of some images.

        Returns (index into ``content_ids``, row id, view code, label is fake) for every live row.
        """
        if not content_ids:
            return []
        words = content_words(content_ids)
        hits: list[tuple[int, int, int, bool]] = []
        for shard in self._shards:
            asked, column = find_keys(shard.keys, words)
            views, tagged = shard.keys[4, column].tolist(), shard.keys[5, column].tolist()
            hits += [
                (index, tag >> 1, view, bool(tag & 1))
                for index, view, tag in zip(asked.tolist(), views, tagged, strict=True)
            ]
        removed = set(self.dead.tolist()) if hits else set()
        return [hit for hit in hits if hit[1] not in removed]
