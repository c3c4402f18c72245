"""Lists of images that say what each one is: CSV, JSON lines, and tables with the images themselves.

A row names a file beside the list, or holds an image; its other columns are what is known of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from retrieval_detect.errors import UsageError
from retrieval_detect.images.captions import written
from retrieval_detect.images.items import file_item, suffix_of
from retrieval_detect.images.tables import ArrowTable, ParquetTable, image_column, image_items, open_table
from retrieval_detect.names import WRITTEN, printable
from retrieval_detect.texts import read_csv, read_text
from retrieval_detect.types import LABELS, Facts, ImageItem, Label

SUFFIXES = (".csv", ".jsonl", ".parquet", ".arrow", ".feather")
PATHS = ("path", "file_name", "filename", "file", "image")
"""Columns that may name a file; the first that there is does."""
Row: TypeAlias = "dict[str, str]"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns say what. ``real``, ``fake`` : what the label's column holds for either, in any case."""

    label: str = "label"
    real: str = "real"
    fake: str = "fake"
    generator: str = "generator"
    source: str = "source"

    def label_of(self, row: Row, where: str) -> Label:
        """The label of a row; raises ``UsageError`` for what is neither, which says ``where``."""
        said = row.get(self.label, "").strip()
        for label, name in zip(LABELS, (self.real, self.fake), strict=True):
            if said.casefold() == name.strip().casefold():
                return label
        raise UsageError(
            f"{where}: {self.label} is {printable(said)!r}, not {self.real} or {self.fake}",
            hint="Whatever they are called there: --labelled FILE,real=0,fake=1",
        )


def list_rows(path: Path) -> list[Row]:
    """What the rows of a list say, as text; of a table without its images and whatever else is no text.

    Raises ``UsageError`` for what is no list.
    """
    suffix = suffix_of(path.name)
    if suffix == ".csv":
        return read_csv(path).rows
    if suffix == ".jsonl":
        return list(_json_rows(path))
    return _table(path)[1]


def listed(path: Path) -> list[tuple[ImageItem, str, Row]]:
    """Each row's image, where in the list it stands, in words, and what is said of it.

    Raises ``UsageError`` for what is no list, or lists no image.
    """
    if suffix_of(path.name) in (".csv", ".jsonl"):
        rows = list_rows(path)
        table = None
    else:
        table, rows = _table(path)
    if not rows:
        raise UsageError(f"{path} lists no image", hint="One a row: path, label.")
    if table is not None and (column := image_column(table.schema)):
        items = list(image_items(path, "", table, column))
    else:
        name = next((name for name in PATHS if name in rows[0]), None)
        if name is None:
            raise UsageError(f"{path} has no column 'path'", hint=f"Files are named by {', '.join(PATHS)}.")
        items = [file_item(path.parent / row.get(name, ""), row.get(name, "")) for row in rows]
    first = 1 + (suffix_of(path.name) == ".csv")
    return [
        (item, f"{path}, row {number}", row)
        for number, (item, row) in enumerate(zip(items, rows, strict=True), start=first)
    ]


def labelled(path: Path, columns: Columns) -> Iterator[tuple[ImageItem, Facts]]:
    """The images of a list, in its order, with what it says of them in columns named as fields of ``Facts``.

    A photograph has no generator. Raises ``UsageError`` for what is no such list, before any image is read.
    """
    rows = listed(path)
    require_columns(path, rows[0][2], columns)
    own = {"generator": columns.generator, "source": columns.source}
    names = {field.name: own.get(field.name, field.name) for field in fields(Facts)}
    for item, where, row in rows:
        label = columns.label_of(row, where)
        said = {name: row.get(column, "") for name, column in names.items()}
        said |= dict.fromkeys(WRITTEN, "") | written(row) | {"label": label}
        yield item, Facts(**said | {"generator": said["generator"] * (label == "fake")})  # type: ignore[arg-type]


def require_columns(path: Path, row: Row, columns: Columns) -> None:
    """Raise ``UsageError`` where the label's column, or one that was named, is not there."""
    usual = Columns()
    for name in ("label", "generator", "source"):
        column = getattr(columns, name)
        if column not in row and (name == "label" or column != getattr(usual, name)):
            there = ", ".join(list(row)[:12]) or "none"
            raise UsageError(f"{path} has no column {column!r}", hint=f"Columns: {printable(there)}.")


# ---------------------------------------------------------------- rows


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}, line {number}: this is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise UsageError(f"{path}, line {number}: this is no JSON object")
        yield {name: _text(value) for name, value in found.items()}


def _table(path: Path) -> tuple[ParquetTable | ArrowTable, list[Row]]:
    if suffix_of(path.name) not in SUFFIXES:
        raise UsageError(f"'{path}' is no list of images", hint=f"Lists are {', '.join(SUFFIXES)} files.")
    try:
        table = open_table(path)
        names = _names_of_classes(table.schema.metadata)
        rows = [{key: _text(names.get((key, v), v)) for key, v in row.items()} for row in table.texts()]
    except Exception as error:
        raise UsageError(f"{path} cannot be read as a table: {error}") from error
    return table, rows


def _text(value: Any) -> str:
    """A value as text; ``""`` for none, and for what has parts."""
    return "" if value is None or isinstance(value, list | dict) else str(value)


def _names_of_classes(metadata: Mapping[bytes, bytes] | None) -> dict[tuple[str, Any], str]:
    """(column, number) → the name that Hugging Face's ``ClassLabel`` gives a number."""
    about = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    return {
        (column, number): str(name)
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        for number, name in enumerate(feature.get("names") or ())
    }
