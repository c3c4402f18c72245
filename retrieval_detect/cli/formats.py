"""How each output format shows data: one writer a format, and values as text for people."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from retrieval_detect.errors import UsageError
from retrieval_detect.files import require_folder_of, write_bytes, write_json
from retrieval_detect.texts import csv_text

Record: TypeAlias = Mapping[str, Any]

_PIPE_WIDTH = 10_000

# ---------------------------------------------------------------- values as text


def escape(text: str) -> str:
    r"""Make text safe for a terminal: what is not printable is shown as ``\x1b`` or ``\u202e``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def human(value: Any) -> str:
    """One value for people: ``1,495``, ``0.912``, ``yes``, ``a, b``; ``-`` for what is not known."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {human(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(human, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value or "-")


def human_bytes(size_bytes: float) -> str:
    """A size for people, in decimal units: ``1.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


def _json(value: Any, *, indent: int | None = None) -> str:
    # ASCII only: no terminal, locale or undecodable file name can then spoil the document.
    return json.dumps(value, indent=indent, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


# ---------------------------------------------------------------- what there is to show


class Item(NamedTuple):
    """One thing: its data, the lines people see instead (already safe), the keys ``quiet`` prints."""

    record: Record
    lines: Sequence[str] | None = None
    essential: Sequence[str] = ()


class Column(NamedTuple):
    """One column of a table that people see: which key, under what title, shown how."""

    key: str
    title: str = ""
    show: Callable[[Any], str] = human

    @property
    def heading(self) -> str:
        """The title, or the key in words."""
        return self.title or self.key.replace("_", " ")


class Rows(NamedTuple):
    """A table: whole rows for machines, the columns of them that people see."""

    rows: Sequence[Record]
    columns: Sequence[Column]
    title: str = ""
    most_wide: int = _PIPE_WIDTH
    """Characters of a line; what is wider goes on below, each part with the first column."""


# ---------------------------------------------------------------- the writers


class Writer(ABC):
    """Shows data in one format; ``echo`` puts a line on stdout."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self.echo = echo

    @abstractmethod
    def item(self, item: Item) -> None:
        """Show one of a series."""

    def single(self, item: Item) -> None:
        """Show the one thing asked for."""
        self.item(item)

    def table(self, table: Rows) -> None:
        """Show rows."""
        for row in table.rows:
            self.item(Item(row, essential=[table.columns[0].key]))

    def text(self, line: str) -> None:  # noqa: B027 - most formats leave it out
        """Show a line meant for people."""

    def close(self) -> None:  # noqa: B027 - most have no end
        """End the document."""


class _Jsonl(Writer):
    """One JSON object a line."""

    def item(self, item: Item) -> None:
        self.echo(_json(item.record))


class _Json(Writer):
    """One JSON document: an object, or an array that grows as results come."""

    _open = False

    def item(self, item: Item) -> None:
        self.echo("," if self._open else "[")
        self.echo(_json(item.record, indent=2))
        self._open = True

    def single(self, item: Item) -> None:
        self.echo(_json(item.record, indent=2))

    def table(self, table: Rows) -> None:
        self.echo(_json(list(table.rows), indent=2))

    def close(self) -> None:
        if self._open:
            self.echo("]")


class _Csv(Writer):
    """A header and rows. Nested values become JSON text; records of a series share their keys.

    Text that a spreadsheet would compute is made harmless (``texts.csv_text``).
    """

    _keys: Sequence[str] = ()

    def item(self, item: Item) -> None:
        if not self._keys:
            self._header(list(item.record))
        if unknown := item.record.keys() - set(self._keys):
            raise ValueError(f"the csv series began without {', '.join(sorted(unknown))}")
        self._row([self._cell(item.record.get(key)) for key in self._keys])

    def table(self, table: Rows) -> None:
        if not table.rows:  # the header even where there are none
            self._header([column.key for column in table.columns])
        super().table(table)

    def _header(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._row(keys)

    def _row(self, cells: Sequence[str | float | None]) -> None:
        self.echo(csv_text([cells]).removesuffix("\r\n"))

    @staticmethod
    def _cell(value: Any) -> str | float | None:
        if value is None:
            return None
        if isinstance(value, str | Path):
            return escape(str(value)) if sys.stdout.isatty() else str(value)
        said = _json(value)  # refuses what is no number, too
        number = value.tolist() if hasattr(value, "tolist") else value
        return number if isinstance(number, int | float) and not isinstance(number, bool) else said


class _Quiet(Writer):
    """The essential values, tab-separated: by default the first of each record."""

    def item(self, item: Item) -> None:
        keys = item.essential or list(item.record)[:1]
        values = (item.record.get(key) for key in keys)
        self.echo("\t".join("" if value is None else escape(str(value)) for value in values))


class _Human(Writer):
    """Text, and tables in aligned columns."""

    def item(self, item: Item) -> None:
        shown = "  ".join(human(value) for value in item.record.values())
        self._lines([escape(shown)] if item.lines is None else item.lines)

    def single(self, item: Item) -> None:
        width = max(map(len, item.record), default=0)
        pairs = ((key.replace("_", " "), human(value)) for key, value in item.record.items())
        self._lines(
            [escape(f"{key:<{width}}  {value}") for key, value in pairs] if item.lines is None else item.lines
        )

    def table(self, table: Rows) -> None:
        self._lines([escape(table.title)] if table.title else [])
        for number, part in enumerate(folded(table)):
            self._lines([""] * (number > 0))
            self._lines(aligned(part))

    def text(self, line: str) -> None:
        self.echo(line)

    def _lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.echo(line)


WRITERS: Mapping[str, type[Writer]] = {
    "human": _Human,
    "json": _Json,
    "jsonl": _Jsonl,
    "csv": _Csv,
    "quiet": _Quiet,
}


def folded(table: Rows) -> list[Rows]:
    """A table in parts of which none is wider than it may be, but for a column that is so alone.

    Rows that say nothing in a part are left out there.
    """
    width = {
        column: max(
            len(escape(text)) for text in (column.heading, *(_shown(column, row) for row in table.rows))
        )
        for column in table.columns
    }
    first, others = table.columns[:1], table.columns[1:]
    parts: list[list[Column]] = [[]]
    for column in others:
        if parts[-1] and sum(width[c] + 2 for c in (*first, *parts[-1])) + width[column] > table.most_wide:
            parts.append([])
        parts[-1].append(column)
    return [
        Rows([row for row in table.rows if any(_shown(c, row) for c in part)], [*first, *part])
        for part in (parts if len(parts) > 1 else [])
    ] or [table]


def _shown(column: Column, row: Record) -> str:
    return column.show(row.get(column.key))


def aligned(table: Rows) -> list[str]:
    """Lines of a table: numbers to the right, nothing cut, no wider than the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns:
        numeric = bool(table.rows) and all(_is_number(row.get(column.key)) for row in table.rows)
        heading = Text(escape(column.heading))
        grid.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(escape(_shown(column, row))) for column in table.columns))
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(grid)
    return [line.rstrip() for line in captured.get().splitlines()]


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


# ---------------------------------------------------------------- tables beside what is printed


def check_table_file(out: Path | None) -> None:
    """Raise ``UsageError`` before the work is done if ``out`` could not be written afterwards."""
    if out is None:
        return
    if out.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"{out.name} ends in neither .csv nor .json")
    require_folder_of(out)


def write_table_file(out: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write ``rows`` to a file that ``check_table_file`` has passed."""
    if out.suffix.lower() == ".json":
        write_json(out, rows)
        return
    write_bytes(out, csv_text([columns, *([row[name] for name in columns] for row in rows)]).encode())
