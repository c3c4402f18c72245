"""Rows of a table with a column of images: Parquet, or Arrow as a file (Feather) or a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from retrieval_detect.errors import ImageError
from retrieval_detect.images.captions import COLUMNS, written
from retrieval_detect.images.items import failed_item, inner_item, suffix_of
from retrieval_detect.images.kept import Kept
from retrieval_detect.types import ImageItem

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
"""Column names tried first, in this order and in any case; then any column of struct<bytes, …>."""

_MOST_NAMED = 8


def table_items(path: Path, folder: str, _passed: Counter[str]) -> Iterator[ImageItem]:
    """One item a row of a table with an image column; ``folder`` goes before ``row:N``."""
    try:
        table = open_table(path)
    except Exception as error:  # noqa: BLE001 - a damaged footer can be anything
        yield failed_item(str(path), f"the table cannot be read: {error}")
        return
    column = image_column(table.schema)
    if column is None:
        yield failed_item(str(path), _no_column(table.schema))
        return
    yield from image_items(path, folder, table, column)
    if table.damage:
        yield failed_item(str(path), table.damage)


def image_items(
    path: Path, folder: str, table: ParquetTable | ArrowTable, column: str
) -> Iterator[ImageItem]:
    """One item a row, by its image column."""
    groups, row = Kept(partial(table.column, column)), 0
    texts = lru_cache(maxsize=1)(partial(_texts, table))
    for group, rows in enumerate(table.rows_of):
        for position in range(rows):
            read, says = partial(_read, groups, group, position), partial(_written, texts, row)
            yield inner_item(path, f"row:{row}", folder, read, says)
            row += 1


def _texts(table: ParquetTable | ArrowTable) -> list[dict[str, Any]]:
    """What is written of each row; nothing where a column cannot be read: its images may be good."""
    columns = {name for names in COLUMNS.values() for name in names}
    names = [name for name in _plain(table.schema) if name in columns]
    try:
        return table.texts(names) if names else []
    except Exception:  # noqa: BLE001 - a damaged table can raise anything
        return []


def _written(texts: Callable[[], list[dict[str, Any]]], row: int) -> dict[str, str]:
    rows = texts()
    return written(rows[row]) if row < len(rows) else {}


def _read(groups: Kept[int, tuple[Sequence[Any], str]], group: int, position: int) -> bytes:
    """The bytes of one row. The last groups stay in memory, since rows are asked for in order."""
    rows, damage = groups.of(group)
    if position >= len(rows):
        raise ImageError(damage, reason="unreadable")
    value = rows[position].as_py()
    if value is None:
        raise ImageError("the row holds no image bytes", reason="unreadable")
    return bytes(value)


def image_column(schema: Any) -> str | None:
    """The column that holds the files' bytes: ``image`` or, in a struct, ``image.bytes``; or ``None``.

    None of those that share a name: it would not say which is meant.
    """
    import pyarrow as pa

    times = Counter(schema.names)
    fields = [field for field in schema if times[field.name] == 1]
    plain = {field.name.lower(): field.name for field in fields if _holds_bytes(field.type)}
    structs = {
        field.name.lower(): f"{field.name}.bytes"
        for field in fields
        if pa.types.is_struct(field.type)
        and [_holds_bytes(f.type) for f in field.type if f.name == "bytes"] == [True]
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
        "images are binary, or a struct with binary 'bytes', under a name of their own"
    )


# ---------------------------------------------------------------- kinds of tables


def _plain(schema: Any) -> list[str]:
    """Columns whose values are texts, numbers or times."""
    from pyarrow import types

    return [f.name for f in schema if not (_holds_bytes(f.type) or types.is_nested(f.type))]


def open_table(path: Path) -> ParquetTable | ArrowTable:
    """A table by its suffix; no image is read. Raises whatever damaged files raise."""
    return ParquetTable(path) if suffix_of(path.name) == ".parquet" else ArrowTable(path)


class ParquetTable:
    """``rows_of`` : how many rows each row group has. No handle is kept."""

    damage = ""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._path = path
        with pq.ParquetFile(path) as table:
            self.schema, metadata = table.schema_arrow, table.metadata
            self.rows_of = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if sum(self.rows_of) != metadata.num_rows or min(self.rows_of, default=0) < 0:
            raise ValueError("its footer contradicts itself")

    def texts(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The values of all rows in some columns, or all but images; raises whatever damaged files raise."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._path, page_checksum_verification=True) as table:
            found: list[dict[str, Any]] = table.read(columns=names or _plain(self.schema)).to_pylist()
        return found

    def column(self, column: str, group: int) -> tuple[Sequence[Any], str]:
        """A column of a group up to where it is damaged, and what is wrong there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows: list[Any] = []
        try:
            with pq.ParquetFile(self._path, page_checksum_verification=True) as table:
                try:
                    whole = table.read_row_group(group, columns=[column]).flatten().column(0)
                    return whole, "the table ends before this row"
                except (pa.ArrowException, OSError):  # then row by row, as far as it goes
                    for batch in table.iter_batches(1, row_groups=[group], columns=[column]):
                        rows += pa.Table.from_batches([batch]).flatten().column(0)
        except (pa.ArrowException, OSError) as error:
            return rows, f"the table is damaged at this row or before it: {error}"
        return rows, "the table ends before this row"


class ArrowTable:
    """``rows_of`` : how many rows each record batch has. ``damage`` : why there are no more of them.

    The file is mapped, so that a batch that is not packed takes no memory. Those of a stream are found one
    after the other.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._path = path
        self.schema = self._opened().schema
        for field in self.schema:
            _ = [inner.name for inner in field.flatten()]  # raises for one that is no text, as Parquet does
        self.rows_of: list[int] = []
        self.damage = ""
        self._next = 0
        self._batches: Iterator[Any] = iter(())
        try:
            self.rows_of += (batch.num_rows for batch in self._from(0))
        except (pa.ArrowException, OSError) as error:
            self.damage = f"the table is damaged behind row {sum(self.rows_of) - 1:,}: {error}"

    def texts(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """As ``ParquetTable.texts``."""
        found: list[dict[str, Any]] = []
        for batch in self._from(0):
            plain = batch.select(names or _plain(self.schema))
            plain.validate(full=True)
            found += plain.to_pylist()
        return found

    def column(self, column: str, group: int) -> tuple[Sequence[Any], str]:
        """A column of a batch; empty if it is damaged, with what is wrong. For one thread at a time."""
        import pyarrow as pa

        batches = self._batches if 0 < group == self._next else self._from(group)
        last = group + 1 == len(self.rows_of)  # then nothing stays open
        self._next, self._batches = group + 1, iter(()) if last else batches
        top = column if column in self.schema.names else column.removesuffix(".bytes")
        try:
            batch = pa.Table.from_batches([next(batches)]).select([top])
            batch.validate(full=True)  # or its offsets may lead anywhere in memory
            return batch.flatten().column(column), "the table ends before this row"
        except (pa.ArrowException, OSError) as error:
            return [], f"the table is damaged at this row or before it: {error}"

    def _opened(self) -> Any:
        import pyarrow as pa

        source = pa.memory_map(str(self._path))
        try:
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source)

    def _from(self, batch: int) -> Iterator[Any]:
        table = self._opened()
        if hasattr(table, "get_batch"):
            return map(table.get_batch, range(batch, table.num_record_batches))
        return islice(table, batch, None)
