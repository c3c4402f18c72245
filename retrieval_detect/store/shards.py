"""Shards: immutable files that hold the rows of one label and one split, and how they are merged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retrieval_detect.errors import IndexCorrupt
from retrieval_detect.files import write_atomically, write_bytes
from retrieval_detect.store.groups import near_keys
from retrieval_detect.store.layout import SHARDS
from retrieval_detect.store.manifest import FileRecord, ShardRecord
from retrieval_detect.store.rows import ARROW, PARQUET, WRONG, ArrowRows, ParquetRows, encoded
from retrieval_detect.store.schema import ASIDE, exact_dictionaries, key_columns, rows_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.files import DigestCache
    from retrieval_detect.store.rows import Rows
    from retrieval_detect.types import Bool, Float16, Int64, UInt64

SMALL_ROWS = 4096
"""Shards below this are merged, so that many small additions do not become many files."""
SHARD_ROWS = 65_536
"""Larger additions are cut into shards of this size."""

IDS, PHASHES, KEYS, NEAR = "ids.npy", "phashes.npy", "keys.npy", "near.npy"


def layer_file(layer: str) -> str:
    """Suffix of the file that holds one layer's vectors."""
    return f"{layer}.npy"


class Shard:
    """One shard, opened lazily: arrays and rows are memory maps. Any number of threads may read it."""

    def __init__(self, folder: Path, record: ShardRecord) -> None:
        self.record = record
        self._folder = folder
        self._vectors: dict[str, Float16] = {}
        self._rows: Rows
        if ARROW in record.files:
            arrays = {suffix for suffix in record.files if suffix.endswith(".npy")}
            layers = [suffix.removesuffix(".npy") for suffix in arrays - {IDS, PHASHES, KEYS, NEAR}]
            self._rows = ArrowRows(self.path(ARROW), record.rows, layers)
        else:
            self._rows = ParquetRows(self.path(PARQUET))

    def path(self, suffix: str) -> Path:
        """Where one of the shard's files lies."""
        return self._folder / SHARDS / f"{self.record.id}.{suffix}"

    def positions(self, row_ids: Int64) -> tuple[Bool, Int64]:
        """Which of some row ids, int64 (m,), are in the shard: bool (m,), and where those are."""
        at = np.minimum(np.searchsorted(self.row_ids, row_ids), len(self) - 1)
        here: Bool = self.row_ids[at] == row_ids
        return here, at[here]

    def __len__(self) -> int:
        return self.record.rows

    def _array(self, suffix: str) -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(self.path(suffix), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise damaged(self.path(suffix)) from error
        return array

    @cached_property
    def row_ids(self) -> Int64:
        """int64 (n,), strictly increasing."""
        return self._array(IDS)

    @cached_property
    def phashes(self) -> UInt64:
        """uint64 (n,), perceptual hashes."""
        return self._array(PHASHES)

    @cached_property
    def keys(self) -> UInt64:
        """uint64 (6, n); see ``schema.key_columns``."""
        return self._array(KEYS)

    @cached_property
    def near(self) -> UInt64:
        """uint64 (4 n,); see ``groups.near_keys``."""
        return self._array(NEAR)

    def vectors(self, layer: str) -> Float16:
        """float16 (n, d), unit norm to float16 rounding, C order, memory-mapped."""
        if layer not in self._vectors:
            self._vectors[layer] = self._array(layer_file(layer))
        return self._vectors[layer]

    def hold(self, layers: Sequence[str]) -> None:
        """Map every file now, so that the shard stays readable after a writer has swept it."""
        _ = self.row_ids, self.phashes, self.keys, self.near, self.names
        for layer in layers:
            self.vectors(layer)

    @property
    def names(self) -> list[str]:
        """The columns of the rows file."""
        with self._reading():
            return self._rows.names

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of all rows; of a mapped file nothing is copied. Those ``ASIDE`` may be null throughout."""
        return self._whole(self._rows.columns, names)

    def take(self, positions: Int64, names: Sequence[str]) -> pa.Table:
        """The same of some rows. ``positions`` : int64 (m,)."""
        return self._whole(partial(self._rows.take, positions), names)

    def _whole(self, read: Callable[[Sequence[str]], pa.Table], names: Sequence[str]) -> pa.Table:
        with self._reading():
            absent = [name for name in names if name in ASIDE and name not in self._rows.names]
            table = read([name for name in names if name not in absent])
        for name in absent:
            table = table.append_column(ASIDE[name], pa.nulls(len(table), ASIDE[name].type))
        return table.select(list(names)) if absent else table

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except WRONG as error:
            raise damaged(self._rows.path) from error

    def validate(self) -> None:
        """Read all rows and raise ``IndexCorrupt`` if they could not be used, whatever their checksum."""
        with self._reading():
            self._rows.validate()

    def check(self, digests: DigestCache) -> None:
        """Compare every file with its record; raises ``IndexCorrupt`` naming the first that differs.

        Rows that were not read before are validated as well: a checksum does not say that whoever wrote the
        file meant well.
        """
        seen = digests.knows(self._rows.path)
        for suffix, record in self.record.files.items():
            check_file(self.path(suffix), record, digests)
        if not seen:
            self.validate()


def check_file(path: Path, record: FileRecord, digests: DigestCache) -> None:
    """Raise ``IndexCorrupt`` for a file that is not as its record says."""
    with suppress(FileNotFoundError):
        if record.holds(path, digests.sha256):
            return
    raise damaged(path)


def damaged(path: Path) -> IndexCorrupt:
    """The error for a file that is not what the manifest says."""
    return IndexCorrupt(
        f"{path} is missing, truncated or altered",
        hint="See how much is hurt: rd index verify. Then go back to a whole generation\n"
        "(rd bank list --by generation, rd bank rollback N), restore the file from a copy, or delete "
        "the index and build it anew.",
    )


# ---------------------------------------------------------------- writing


def write_shard(folder: Path, table: pa.Table, vectors: Mapping[str, Float16]) -> ShardRecord:
    """Write the rows of one label and one split, ascending by row id, and return their record.

    ``table`` : ``schema.rows_schema``; ``vectors`` : layer → float16 (n, d), in the table's order.
    The shard's id is a digest of its content, so writing it again after a crash changes nothing.
    """
    row_ids = table["row_id"].to_numpy()
    content_ids = table["content_id"].to_pylist()
    label, split = _only(table, "label"), _only(table, "split")
    keys = key_columns(content_ids, table["view"].to_pylist(), row_ids, fake=label == "fake")
    phashes = table["phash"].to_numpy()
    arrays: dict[str, NDArray[Any]] = {layer_file(layer): array for layer, array in vectors.items()}
    arrays |= {IDS: row_ids, PHASHES: phashes, KEYS: keys, NEAR: near_keys(phashes)}
    table = table.replace_schema_metadata(rows_schema(()).metadata)  # of format 1, it may be
    rows = encoded(exact_dictionaries(table.combine_chunks()))
    identity = hashlib.sha256(rows)
    for array in vectors.values():
        identity.update(np.ascontiguousarray(array).data)
    shard_id = identity.hexdigest()[:16]
    base = folder / SHARDS
    write_bytes(base / f"{shard_id}.{ARROW}", rows)
    files = {ARROW: FileRecord.of(base / f"{shard_id}.{ARROW}")}
    files |= {suffix: write_array(base / f"{shard_id}.{suffix}", array) for suffix, array in arrays.items()}
    return ShardRecord(shard_id, label, split, len(table), int(row_ids[0]), int(row_ids[-1]), files)  # type: ignore[arg-type]


def _only(table: pa.Table, column: str) -> str:
    (value,) = table[column].unique().to_pylist()
    return str(value)


def write_array(path: Path, array: NDArray[Any]) -> FileRecord:
    """One array as an ``.npy`` file."""
    write_atomically(path, lambda file: np.save(file, array))
    return FileRecord.of(path)


def read_whole(shard: Shard, layers: Sequence[str]) -> tuple[pa.Table, dict[str, Float16]]:
    """A shard's rows and vectors, for rewriting it."""
    kept = [name for name in ASIDE if name in shard.names]
    table = shard.columns([*rows_schema(layers).names, *kept])
    return table, {layer: shard.vectors(layer) for layer in layers}


def rewrite(folder: Path, shards: Sequence[Shard], layers: Sequence[str], dead: Int64) -> ShardRecord | None:
    """Several shards of one label and split → one, without the ``dead`` rows; ``None`` if all are dead."""
    parts = [read_whole(shard, layers) for shard in shards]
    keep: Bool = ~np.isin(np.concatenate([shard.row_ids for shard in shards]), dead)
    if not keep.any():
        return None
    joined = pa.concat_tables([table for table, _ in parts], promote_options="default")
    table = joined.unify_dictionaries().filter(pa.array(keep))
    vectors = {layer: np.concatenate([arrays[layer] for _, arrays in parts])[keep] for layer in layers}
    return write_shard(folder, table.combine_chunks(), vectors)


def keeps_unused_texts(shard: Shard) -> bool:
    """Whether its dictionaries name what none of its rows has, as those of earlier versions of rd may."""
    schema = rows_schema(())
    table = shard.columns([field.name for field in schema if pa.types.is_dictionary(field.type)])
    columns = [column.chunk(0) for column in table.unify_dictionaries().combine_chunks().columns]
    return any(len(column.indices.unique()) < len(column.dictionary) for column in columns)


def merge_small(folder: Path, records: Sequence[ShardRecord], layers: Sequence[str]) -> list[ShardRecord]:
    """Size-tiered merging: keeps small shards of a class geometric in size.

    Each row is rewritten O(log ``SMALL_ROWS``) times in its life; shards of ``SMALL_ROWS`` and more
    are never touched.
    """
    merged: list[ShardRecord] = []
    for label, split in sorted({(record.label, record.split) for record in records}):
        rest = [record for record in records if (record.label, record.split) == (label, split)]
        tail = _mergeable_tail(rest)
        if len(tail) > 1:
            one = rewrite(folder, [Shard(folder, record) for record in tail], layers, np.empty(0, np.int64))
            rest = [*rest[: -len(tail)], one] if one else rest[: -len(tail)]
        merged += rest
    return merged


def _mergeable_tail(records: Sequence[ShardRecord]) -> list[ShardRecord]:
    tail: list[ShardRecord] = []
    rows = 0
    for record in reversed(records):
        if record.rows >= SMALL_ROWS or (tail and record.rows > 2 * rows):
            break
        tail.insert(0, record)
        rows += record.rows
    return tail


def cut(n: int) -> list[slice]:
    """``n`` rows in pieces of at most ``SHARD_ROWS``."""
    return [slice(start, min(start + SHARD_ROWS, n)) for start in range(0, n, SHARD_ROWS)]
