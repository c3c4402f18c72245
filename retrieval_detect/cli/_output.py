"""The one sink: data to stdout in the format asked for, talk to stderr.

A command says what it has, never how it looks:

==========  ==============================  =========================  ==================
            ``record`` (one thing)          ``table`` / ``stream``     ``line``, ``lines``
==========  ==============================  =========================  ==================
human       its text, or key and value      aligned / its text         shown
json        one object                      one array, always          nothing
jsonl       one line                        one line each              nothing
csv         header and one row              header and a row each      nothing
quiet       the essential values            the same, a line each      nothing
==========  ==============================  =========================  ==================

``json`` prints an array for a series of any length, one included: the shape of the answer depends
on what was asked, not on how many files matched. A run prints one document: one ``record``, one
``table`` or one series of ``stream``.

File names are hostile until shown otherwise: whatever a terminal would obey is escaped.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeAlias

import click

from retrieval_detect.errors import UsageError

Record: TypeAlias = Mapping[str, Any]
Part: TypeAlias = str | tuple[str, str]
"""Some text of a line, or (text, name of a style)."""

_STYLES: Mapping[str, Mapping[str, Any]] = {
    "fake": {"fg": "red", "bold": True},
    "real": {"fg": "green", "bold": True},
    "good": {"fg": "green"},
    "warning": {"fg": "yellow"},
    "bad": {"fg": "red"},
    "strong": {"bold": True},
    "weak": {"dim": True},
}
_PIPE_WIDTH = 10_000


# ---------------------------------------------------------------- values as text


def escape(text: str) -> str:
    r"""Make text safe for a terminal: what is not printable is shown as ``\x1b`` or ``\u202e``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def human(value: Any) -> str:
    """One value for people: ``1,495``, ``0.912``, ``yes``, ``a, b``; ``-`` for what is not known."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {human(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(human(inner) for inner in value)
    return str(value)


def human_bytes(size_bytes: float) -> str:
    """A size for people, in decimal units: ``1.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.3g} TB"


class Column(NamedTuple):
    """One column of a table that people see: which key, under what title, shown how."""

    key: str
    title: str = ""
    show: Callable[[Any], str] = human

    @property
    def heading(self) -> str:
        """The title, or the key in words."""
        return self.title or self.key.replace("_", " ")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _json(value: Any, *, indent: int | None = None) -> str:
    # ASCII only: no terminal, locale or undecodable file name can then spoil the document.
    return json.dumps(value, indent=indent, allow_nan=False, default=_plain)


# ---------------------------------------------------------------- one writer a format


class _Writer:
    """How a format shows data. ``echo`` writes one line of stdout."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self.echo = echo

    def item(self, record: Record, *, text: str | None, essential: Sequence[str]) -> None:
        """One of a series."""
        raise NotImplementedError

    def record(self, record: Record, *, text: str | None, essential: Sequence[str]) -> None:
        self.item(record, text=text, essential=essential)

    def table(self, rows: Sequence[Record], columns: Sequence[Column], *, title: str) -> None:  # noqa: ARG002
        for row in rows:
            self.item(row, text=None, essential=[columns[0].key])

    def line(self, line: str) -> None:
        """Text for people."""

    def close(self) -> None:
        """All has been said."""


class _Jsonl(_Writer):
    def item(self, record: Record, *, text: str | None, essential: Sequence[str]) -> None:  # noqa: ARG002
        self.echo(_json(record))


class _Json(_Writer):
    _open = False

    def item(self, record: Record, *, text: str | None, essential: Sequence[str]) -> None:  # noqa: ARG002
        self.echo(("," if self._open else "[") + "\n" + _json(record, indent=2))
        self._open = True

    def record(self, record: Record, *, text: str | None, essential: Sequence[str]) -> None:  # noqa: ARG002
        self.echo(_json(record, indent=2))

    def table(self, rows: Sequence[Record], columns: Sequence[Column], *, title: str) -> None:  # noqa: ARG002
        self.echo(_json(list(rows), indent=2))

    def close(self) -> None:
        if self._open:
            self.echo("]")


class _Csv(_Writer):
    """Nested values become JSON text; the records of a series share their keys."""

    _keys: Sequence[str] = ()

    def item(self, record: Record, *, text: str | None, essential: Sequence[str]) -> None:  # noqa: ARG002
        if not self._keys:
            self._header(list(record))
        if unknown := record.keys() - set(self._keys):
            raise ValueError(f"a csv series began without {', '.join(sorted(unknown))}")
        self._row([self._cell(record.get(key)) for key in self._keys])

    def table(self, rows: Sequence[Record], columns: Sequence[Column], *, title: str) -> None:
        if not rows:
            self._header([column.key for column in columns])
        super().table(rows, columns, title=title)

    def _header(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._row(keys)

    def _row(self, cells: Sequence[str]) -> None:
        import io

        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow(cells)
        self.echo(buffer.getvalue())

    @staticmethod
    def _cell(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, str | Path):
            text = str(value)
            return escape(text) if sys.stdout.isatty() else text
        return _json(value)


class _Quiet(_Writer):
    def item(self, record: Record, *, text: str | None, essential: Sequence[str]) -> None:  # noqa: ARG002
        keys = essential or list(record)[:1]
        self.echo("\t".join(escape("" if record[key] is None else str(record[key])) for key in keys))


class _Human(_Writer):
    def item(self, record: Record, *, text: str | None, essential: Sequence[str]) -> None:  # noqa: ARG002
        shown = "  ".join(human(value) for value in record.values()) if text is None else text
        self._lines(shown)

    def record(self, record: Record, *, text: str | None, essential: Sequence[str]) -> None:
        if text is not None:
            self.item(record, text=text, essential=essential)
            return
        width = max(map(len, record), default=0)
        for key, value in record.items():
            self._lines(f"{key.replace('_', ' '):<{width}}  {human(value)}")

    def table(self, rows: Sequence[Record], columns: Sequence[Column], *, title: str) -> None:
        if title:
            self.echo(escape(title))
        for line in _aligned(rows, columns):
            self.echo(line)

    def line(self, line: str) -> None:
        self.echo(line)

    def _lines(self, text: str) -> None:
        for line in text.split("\n"):
            self.echo(escape(line))


_WRITERS: Mapping[str, type[_Writer]] = {
    "human": _Human,
    "json": _Json,
    "jsonl": _Jsonl,
    "csv": _Csv,
    "quiet": _Quiet,
}


def _aligned(rows: Sequence[Record], columns: Sequence[Column]) -> Iterable[str]:
    """Lines of a table: numbers to the right, nothing cut, as wide as the terminal allows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for column in columns:
        numeric = bool(rows) and all(_is_number(row.get(column.key)) for row in rows)
        grid.add_column(
            Text(escape(column.heading)),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
        )
    for row in rows:
        grid.add_row(*(Text(escape(column.show(row.get(column.key)))) for column in columns))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(grid)
    return [line.rstrip() for line in captured.get().splitlines()]


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


# ---------------------------------------------------------------- the sink


class Output:
    """What a command speaks through.

    Parameters
    ----------
    format : one of ``config.FORMATS``.
    color : whether to colour; ``None`` = on terminals, unless ``NO_COLOR`` is set.
    verbosity : -1 silences notes, 1 shows details.
    """

    def __init__(self, format: str = "human", *, color: bool | None = None, verbosity: int = 0) -> None:
        self.format = format
        self.verbosity = -1 if format == "quiet" else verbosity
        self._color = color
        self._writer = _WRITERS[format](self._echo)

    # data → stdout

    def record(self, record: Record, *, text: str | None = None, essential: Sequence[str] = ()) -> None:
        """Show one thing. ``text`` is what people see, ``essential`` the keys that ``quiet`` prints."""
        self._writer.record(record, text=text, essential=essential)

    def stream(self, record: Record, *, text: str | None = None, essential: Sequence[str] = ()) -> None:
        """Show one of a series, at once. Arguments as in ``record``."""
        self._writer.item(record, text=text, essential=essential)

    def table(self, rows: Iterable[Record], columns: Sequence[str | Column], *, title: str = "") -> None:
        """Show rows. ``columns`` choose and order what people see; other formats get whole rows."""
        shown = [column if isinstance(column, Column) else Column(column) for column in columns]
        self._writer.table(list(rows), shown, title=title)

    def line(self, *parts: Part) -> None:
        """One line for people, in parts that may each have a style; other formats leave it out."""
        self._writer.line(self._styled(parts, sys.stdout))

    def lines(self, text: str) -> None:
        """Several lines for people; other formats leave them out."""
        for line in text.split("\n"):
            self.line(line)

    def close(self) -> None:
        """End the document; called once by whoever made the sink."""
        self._writer.close()

    # talk → stderr

    def note(self, text: str) -> None:
        """Something good to know."""
        if self.verbosity >= 0:
            self._talk(text, "")

    def detail(self, text: str) -> None:
        """Something good to know for who asked with ``-v``."""
        if self.verbosity >= 1:
            self._talk(text, "weak")

    def success(self, text: str) -> None:
        """What was achieved."""
        if self.verbosity >= 0:
            self._talk(text, "good")

    def warning(self, text: str) -> None:
        """Something that may make the answer wrong; shown in every format."""
        self._talk(f"Warning: {text}", "warning")

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask before something that cannot be undone; ``yes`` is the answer given beforehand."""
        if yes:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"{question} Nobody is here to answer.", hint="Add --yes to go ahead.")
        return click.confirm(escape(question), default=False, err=True)

    @property
    def shows_progress(self) -> bool:
        """Whether a moving bar helps: somebody watches stderr and nothing else writes to that screen."""
        alone = self.format == "human" or not sys.stdout.isatty()
        return self.verbosity >= 0 and alone and sys.stderr.isatty()

    # how

    def _echo(self, line: str) -> None:
        click.echo(line, color=self._colored(sys.stdout))

    def _talk(self, text: str, style: str) -> None:
        for line in text.split("\n"):
            click.echo(self._styled([(line, style)], sys.stderr), err=True, color=self._colored(sys.stderr))

    def _styled(self, parts: Iterable[Part], stream: TextIO) -> str:
        colored = self._colored(stream)
        pairs = ((part, "") if isinstance(part, str) else part for part in parts)
        return "".join(
            click.style(escape(text), **_STYLES[style]) if style and colored else escape(text)
            for text, style in pairs
        )

    def _colored(self, stream: TextIO) -> bool:
        if self._color is not None:
            return self._color
        return stream.isatty() and not os.environ.get("NO_COLOR")
