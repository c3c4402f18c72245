"""Images inside other files: members of a tar archive (WebDataset), rows of a Parquet table.

Nothing is ever extracted to disk. An archive that breaks off is listed as far as it goes; then one
item says so when it is read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from retrieval_detect.errors import ImageError
from retrieval_detect.images.items import failed_item, is_image_name, printable, read_slice
from retrieval_detect.types import ImageItem

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
"""Column names tried first, in this order and in any case; then any column of struct<bytes, …>."""

_ROW_GROUPS_KEPT = 2


def tar_items(path: Path, folder: str) -> Iterator[ImageItem]:
    """The images of an uncompressed tar archive, in its order; ``folder`` goes before their names."""
    found = False
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
                parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
                if _is_image_member(member, parts):
                    found = True
                    yield _member_item(path, member, parts, folder)
    except (tarfile.TarError, OSError, ValueError) as error:
        yield failed_item(str(path), f"the archive cannot be read: {error}")
    else:
        if not found:
            yield failed_item(str(path), "the archive holds no image")


def _is_image_member(member: tarfile.TarInfo, parts: list[str]) -> bool:
    hidden = any(part.startswith(".") for part in parts)
    return member.isreg() and not member.issparse() and not hidden and is_image_name(parts[-1])


def _member_item(path: Path, member: tarfile.TarInfo, parts: list[str], folder: str) -> ImageItem:
    name = "/".join(parts)
    read = partial(_read_member, path, member.offset_data, member.size)
    relative = f"{folder}/{name}" if folder else name
    return ImageItem(printable(f"{path}::{name}"), read, printable(relative))


def _read_member(path: Path, offset: int, size_bytes: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(offset)
        return read_slice(stream, size_bytes)


def table_items(path: Path, folder: str) -> Iterator[ImageItem]:
    """One item a row of a Parquet table with an image column; ``folder`` goes before ``row:N``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            schema, metadata = table.schema_arrow, table.metadata
            rows_of = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        yield failed_item(str(path), f"the table cannot be read: {error}")
        return
    column = _image_column(schema)
    if column is None:
        yield failed_item(str(path), f"the table has no image column, only {', '.join(schema.names)}")
        return
    groups, row = _RowGroups(path, column), 0
    for group, rows in enumerate(rows_of):
        for position in range(rows):
            name = f"row:{row}"
            relative = f"{folder}/{name}" if folder else name
            yield ImageItem(
                printable(f"{path}::{name}"), partial(groups.read, group, position), printable(relative)
            )
            row += 1


def _image_column(schema: Any) -> str | None:
    """The Parquet column that holds the files' bytes: ``image`` or, in a struct, ``image.bytes``."""
    import pyarrow as pa

    def holds_bytes(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    plain = {field.name.lower(): field.name for field in schema if holds_bytes(field.type)}
    structs = {
        field.name.lower(): f"{field.name}.bytes"
        for field in schema
        if pa.types.is_struct(field.type)
        and any(f.name == "bytes" and holds_bytes(f.type) for f in field.type)
    }
    columns = plain | structs
    named = [columns[name] for name in IMAGE_COLUMNS if name in columns]
    return next(iter([*named, *structs.values()]), None)


class _RowGroups:
    """Reads rows of one column. The last row groups stay in memory, since rows are asked for in order."""

    def __init__(self, path: Path, column: str) -> None:
        self._path = path
        self._column = column
        self._lock = Lock()
        self._kept: dict[int, Any] = {}

    def read(self, group: int, position: int) -> bytes:
        """The bytes of one row."""
        with self._lock:
            if group not in self._kept:
                if len(self._kept) == _ROW_GROUPS_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[group] = self._load(group)
            value = self._kept[group][position].as_py()
        if value is None:
            raise ImageError("the row holds no image bytes", reason="unreadable")
        return bytes(value)

    def _load(self, group: int) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self._path) as table:
                return table.read_row_group(group, columns=[self._column]).flatten().column(0)
        except (pa.ArrowException, OSError) as error:
            raise ImageError(f"the table cannot be read: {error}", reason="unreadable") from error
