"""The rows file of a shard: a mapped Arrow file, or in format 1 a Parquet file.

Either is a table in memory whose buffers never change, so that any number of threads read it. What is wrong
with a file is one of ``WRONG``, which shards make ``IndexCorrupt``. Nothing here refers to its shard: what
refers to one another stays, with all that it maps, until the garbage is collected, and a server takes up one
generation after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval_detect.store.schema import ADDED_AT_FIELD, ASIDE, THUMBNAIL, rows_schema

if TYPE_CHECKING:
    from retrieval_detect.types import Int64

ARROW, PARQUET = "rows.arrow", "rows.parquet"
"""Suffixes of the rows file in formats 2 and 1."""
WRONG = (OSError, UnicodeDecodeError, pa.ArrowException)
_LATEST_S = 253_402_300_799
"""The last second of the year 9999: Python knows no later one."""
_ROW_GROUP = 4096
"""Rows of a group in files of format 1."""


class ArrowRows:
    """An Arrow IPC file of one record batch, mapped.

    ``n_rows``, ``layers`` : what its shard has; a file with other rows or columns is damaged.
    """

    def __init__(self, path: Path, n_rows: int, layers: Sequence[str]) -> None:
        self.path, self._n_rows, self._layers = path, n_rows, layers

    @cached_property
    def _table(self) -> pa.Table:
        """All columns, one chunk each."""
        # A buffer, not a file: Arrow hands reads of files to threads of its own, at more than reading costs.
        mapped = pa.memory_map(str(self.path)).read_buffer()
        file = pa.ipc.open_file(mapped, options=pa.ipc.IpcReadOptions(use_threads=False))
        if file.num_record_batches != 1:
            raise pa.ArrowInvalid("another number of batches")
        table = file.read_all()
        if len(table) != self._n_rows:
            raise pa.ArrowInvalid("another number of rows")
        fields = {field.name: field for field in table.schema}
        for wanted in (
            *rows_schema(self._layers),
            *(field for name, field in ASIDE.items() if name in fields),
        ):
            if wanted.name not in fields or fields[wanted.name] != wanted:
                raise pa.ArrowInvalid(f"column {wanted.name} is missing or of another type")
        if len(fields) != len(table.schema):
            raise pa.ArrowInvalid("two columns have one name")
        table.validate()
        for column in table.columns:
            if pa.types.is_dictionary(column.type):
                _ = column.chunk(0).dictionary  # made at first use, by some versions not safely for threads
        return table

    def validate(self) -> None:
        """Read it all: whether every offset, index, text and time can be used, and no value is missing."""
        self._table.validate(full=True)
        for field, column in zip(self._table.schema, self._table.columns, strict=True):
            if column.null_count and not field.nullable:
                raise pa.ArrowInvalid(f"column {field.name} has empty values")
        times = pc.min_max(self._table[ADDED_AT_FIELD.name].cast(pa.int64())).as_py()
        if times["min"] < 0 or times["max"] > _LATEST_S:
            raise pa.ArrowInvalid(f"column {ADDED_AT_FIELD.name} has times that are none")

    @property
    def names(self) -> list[str]:
        """All columns."""
        return list(self._table.column_names)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of all rows, not copied."""
        return self._table.select(list(names))

    def take(self, positions: Int64, names: Sequence[str]) -> pa.Table:
        """Some columns of some rows; ``positions`` : int64 (m,)."""
        return self.columns(names).take(positions)


class ParquetRows:
    """A file of format 1. A column is read when it is first asked for, and kept; pictures are not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: dict[str, pa.ChunkedArray] = {}
        self._one_at_a_time = Lock()
        """Two threads within one reader of Parquet corrupt memory."""

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(pa.memory_map(str(self.path)))

    @cached_property
    def _fields(self) -> dict[str, pa.Field]:
        """All columns, as an Arrow file would have them: Parquet knows no whole seconds."""
        fields = {field.name: field for field in self._file.schema_arrow}
        return fields | {ADDED_AT_FIELD.name: ADDED_AT_FIELD}

    def validate(self) -> None:
        """Nothing: a Parquet reader checks what it reads."""

    @property
    def names(self) -> list[str]:
        """All columns."""
        with self._one_at_a_time:
            return list(self._fields)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of all rows."""
        with self._one_at_a_time:
            found = dict(self._kept)
            if wanted := [name for name in names if name not in found]:
                read = self._file.read(columns=wanted).unify_dictionaries().combine_chunks()
                found |= {name: read[name].cast(self._fields[name].type) for name in read.column_names}
                self._kept = {name: column for name, column in found.items() if name != THUMBNAIL}
        schema = pa.schema([self._fields[name] for name in names])
        return pa.table([found[name] for name in names], schema=schema)

    def take(self, positions: Int64, names: Sequence[str]) -> pa.Table:
        """Some columns of some rows; ``positions`` : int64 (m,)."""
        table = self.columns([name for name in names if name != THUMBNAIL]).take(positions)
        if THUMBNAIL not in names:
            return table
        found = dict(zip(table.column_names, table.columns, strict=True))
        found[THUMBNAIL] = self._pictures(positions)
        schema = pa.schema([self._fields[name] for name in names])
        return pa.table([found[name] for name in names], schema=schema)

    def _pictures(self, positions: Int64) -> pa.ChunkedArray:
        """Read from the row groups they lie in alone: all would fill the memory."""
        groups, at = np.unique(positions // _ROW_GROUP, return_inverse=True)
        with self._one_at_a_time:
            parts = [self._file.read_row_group(int(group), columns=[THUMBNAIL]) for group in groups]
        return pa.concat_tables(parts)[THUMBNAIL].take(at * _ROW_GROUP + positions % _ROW_GROUP)


Rows: TypeAlias = ArrowRows | ParquetRows


def encoded(table: pa.Table) -> bytes:
    """The bytes of an Arrow file with these rows; ``table`` : one chunk a column."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return bytes(memoryview(sink.getvalue()))
