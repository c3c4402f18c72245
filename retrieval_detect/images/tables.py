"""Rows of a Parquet table with a column of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from retrieval_detect.errors import ImageError
from retrieval_detect.images.items import failed_item, inner_item
from retrieval_detect.types import ImageItem

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
"""Column names tried first, in this order and in any case; then any column of struct<bytes, …>."""

_ROW_GROUPS_KEPT = 2
_MOST_NAMED = 8


def table_items(path: Path, folder: str, _passed: Counter[str]) -> Iterator[ImageItem]:
    """One item a row of a Parquet table with an image column; ``folder`` goes before ``row:N``."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            schema, metadata = table.schema_arrow, table.metadata
            rows_of = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    except Exception as error:  # noqa: BLE001 - a damaged footer can be anything
        yield failed_item(str(path), f"the table cannot be read: {error}")
        return
    if sum(rows_of) != metadata.num_rows or min(rows_of, default=0) < 0:
        yield failed_item(str(path), "the table cannot be read: its footer contradicts itself")
        return
    column = _image_column(schema)
    if column is None:
        yield failed_item(str(path), _no_column(schema))
        return
    groups, row = _RowGroups(path, column), 0
    for group, rows in enumerate(rows_of):
        for position in range(rows):
            yield inner_item(path, f"row:{row}", folder, partial(groups.read, group, position))
            row += 1


def _image_column(schema: Any) -> str | None:
    """The Parquet column that holds the files' bytes: ``image`` or, in a struct, ``image.bytes``."""
    import pyarrow as pa

    plain = {field.name.lower(): field.name for field in schema if _holds_bytes(field.type)}
    structs = {
        field.name.lower(): f"{field.name}.bytes"
        for field in schema
        if pa.types.is_struct(field.type)
        and any(f.name == "bytes" and _holds_bytes(f.type) for f in field.type)
    }
    columns = plain | structs
    named = [columns[name] for name in IMAGE_COLUMNS if name in columns]
    return next(iter([*named, *structs.values()]), None)


def _holds_bytes(kind: Any) -> bool:
    """Whether values of an Arrow type are bytes, also where each is kept once (pandas' categories)."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    kinds = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(is_one(kind) for is_one in kinds)


def _no_column(schema: Any) -> str:
    """What there is instead, by type: lists of images, paths, base64."""
    shown = [f"{field.name} ({str(field.type)[:80]})" for field in list(schema)[:_MOST_NAMED]]
    more = ["…"] * (len(schema) > _MOST_NAMED)
    return (
        f"the table has no image column, only {', '.join(shown + more)}; "
        "images are binary, or a struct with binary 'bytes'"
    )


class _RowGroups:
    """Reads rows of one column. The last row groups stay in memory, since rows are asked for in order."""

    def __init__(self, path: Path, column: str) -> None:
        self._path = path
        self._column = column
        self._lock = Lock()
        self._kept: dict[int, tuple[Any, str]] = {}

    def read(self, group: int, position: int) -> bytes:
        """The bytes of one row."""
        with self._lock:
            if group not in self._kept:
                if len(self._kept) == _ROW_GROUPS_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[group] = self._load(group)
            rows, damage = self._kept[group]
            if position >= len(rows):
                raise ImageError(damage, reason="unreadable")
            value = rows[position].as_py()
        if value is None:
            raise ImageError("the row holds no image bytes", reason="unreadable")
        return bytes(value)

    def _load(self, group: int) -> tuple[Any, str]:
        """The rows of a group up to where it is damaged, and what is wrong there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows: list[Any] = []
        try:
            with pq.ParquetFile(self._path, page_checksum_verification=True) as table:
                try:
                    column = table.read_row_group(group, columns=[self._column]).flatten().column(0)
                    return column, "the table ends before this row"
                except (pa.ArrowException, OSError):  # then row by row, as far as it goes
                    for batch in table.iter_batches(1, row_groups=[group], columns=[self._column]):
                        rows += pa.Table.from_batches([batch]).flatten().column(0)
        except (pa.ArrowException, OSError) as error:
            return rows, f"the table is damaged at this row or before it: {error}"
        return rows, "the table ends before this row"
