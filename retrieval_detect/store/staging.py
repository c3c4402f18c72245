"""Staging: embeddings that are done but not committed, so that an interrupted build goes on where it stopped.

It is a cache keyed by content id and view: what a reference is called is decided by the plan at commit.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_detect.files import sha256_file, sync_folder, write_atomically
from retrieval_detect.store.layout import STAGING
from retrieval_detect.store.schema import CONTENT_ID_BYTES, THUMBNAIL, norm_column
from retrieval_detect.store.shards import write_array
from retrieval_detect.types import ORIGINAL_VIEW, Embedded
from retrieval_detect.vectors import normalise

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Float16

Key: TypeAlias = tuple[bytes, str]
"""Content id and view."""

FOUND = {
    "content_id": pa.binary(CONTENT_ID_BYTES),
    "view": pa.string(),
    "phash": pa.uint64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "format": pa.string(),
    "notes": pa.string(),
}
"""What is found out about images on the way to their vectors: column → Arrow type."""


def found_facts(rows: Sequence[Embedded]) -> dict[str, list[Any]]:
    """The columns of ``FOUND``."""
    columns = {name: [getattr(row, name) for row in rows] for name in FOUND}
    return columns | {"notes": [" ".join(row.notes) for row in rows]}


class Staging:
    """The staged parts of one index. A part is its vector files plus a Parquet file written last.

    Vectors and pictures stay on disk; only what else is known of each view is in memory.
    """

    def __init__(self, folder: Path, *, fingerprint: str, layers: Sequence[str]) -> None:
        self._folder = folder / STAGING
        self._fingerprint = fingerprint
        self._layers = tuple(layers)
        self._tables: list[pa.Table] = []
        self._names: list[str] = []
        self._where: dict[Key, tuple[int, int]] = {}
        for path in sorted(self._folder.glob("*.parquet")):
            self._open(path)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Staging:
        """What is staged beside a generation; to be written to only by who holds the writer lock."""
        manifest = snapshot.manifest
        return cls(snapshot.folder, fingerprint=manifest.encoder.fingerprint, layers=manifest.layers)

    def __contains__(self, key: Key) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def _path(self, name: str, layer: str) -> Path:
        return self._folder / f"{name}.{layer}.npy"

    def _open(self, path: Path) -> None:
        """Take a part in if it is whole and of this encoder; others are left to ``drop``."""
        with suppress(OSError, pa.ArrowInvalid):  # torn, or gone meanwhile: another process has committed it
            names = pq.read_schema(path).names
            table = pq.read_table(path, columns=[name for name in names if name != THUMBNAIL])
            facts = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
            if (
                facts.get("fingerprint") == self._fingerprint
                and set(FOUND) <= set(names)
                and all(
                    sha256_file(self._path(path.stem, layer)) == facts.get(layer) for layer in self._layers
                )
            ):
                self._take_in(path.stem, table)

    def _take_in(self, name: str, table: pa.Table) -> None:
        part = len(self._tables)
        self._tables.append(table)
        self._names.append(name)
        for position, key in enumerate(_keys(table)):
            self._where.setdefault(key, (part, position))

    def add(self, done: Iterable[Embedded]) -> None:
        """Write one part, durably. An empty part writes nothing."""
        rows = list(done)
        if not rows:
            return
        self._folder.mkdir(exist_ok=True)
        name = secrets.token_hex(8)
        arrays = {name: pa.array(values, FOUND[name]) for name, values in found_facts(rows).items()}
        metadata = {"fingerprint": self._fingerprint}
        for layer in self._layers:
            unit, norms = normalise(np.stack([row.vectors[layer] for row in rows]))
            metadata[layer] = write_array(self._path(name, layer), unit).sha256
            arrays[norm_column(layer)] = pa.array(norms, pa.float32())
        if any(row.thumbnail for row in rows):
            kept = [row.thumbnail if row.view == ORIGINAL_VIEW else None for row in rows]
            arrays[THUMBNAIL] = pa.array(kept, pa.binary())
        table = pa.table(arrays).replace_schema_metadata(metadata)
        write_atomically(self._folder / f"{name}.parquet", lambda file: pq.write_table(table, file))
        self._take_in(name, table.select([column for column in arrays if column != THUMBNAIL]))

    def facts(self, keys: Sequence[Key]) -> pa.Table:
        """What was found out about staged views, in the order asked for; one at least is staged."""
        starts = np.cumsum([0, *(len(table) for table in self._tables)])
        flat = [starts[part] + position for part, position in map(self._where.__getitem__, keys)]
        tables = [table.replace_schema_metadata(None) for table in self._tables]
        return pa.concat_tables(tables, promote_options="default").take(pa.array(flat, pa.int64()))

    def vectors(self, keys: Sequence[Key], layer: str) -> Float16:
        """float16 (n, d), unit norm, in the order asked for; n >= 1."""
        parts = [np.load(self._path(name, layer), mmap_mode="r", allow_pickle=False) for name in self._names]
        rows = [parts[part][position] for part, position in map(self._where.__getitem__, keys)]
        return np.stack(rows)

    def thumbnails(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The pictures staged with some views, in the order asked for; ``None`` where there is none."""
        found: list[bytes | None] = [None] * len(keys)
        of_part: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for place, (part, position) in enumerate(map(self._where.__getitem__, keys)):
            of_part[part].append((place, position))
        for part, wanted in of_part.items():
            path = self._folder / f"{self._names[part]}.parquet"
            if THUMBNAIL in pq.read_schema(path).names:
                kept = pq.read_table(path, columns=[THUMBNAIL])[THUMBNAIL]
                for place, position in wanted:
                    found[place] = kept[position].as_py()
        return found

    def keys(self) -> list[Key]:
        """What is staged."""
        return list(self._where)

    def drop(self, committed: Container[Key]) -> None:
        """Delete parts that hold committed views alone, and what is left of torn ones.

        What another, interrupted addition has staged stays for it. A part's Parquet file goes first,
        so that a crash leaves no part without its vectors.
        """
        if not self._folder.exists():
            return
        keep = {
            name
            for name, table in zip(self._names, self._tables, strict=True)
            if not all(key in committed for key in _keys(table))
        }
        for path in sorted(self._folder.iterdir(), key=lambda path: path.suffix != ".parquet"):
            if path.name.split(".")[0] not in keep:
                path.unlink(missing_ok=True)
        sync_folder(self._folder)
        if not keep:
            self._folder.rmdir()


def _keys(table: pa.Table) -> list[Key]:
    return list(zip(table["content_id"].to_pylist(), table["view"].to_pylist(), strict=True))
