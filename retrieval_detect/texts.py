"""Texts that people and other programs wrote: settings, recipes, tokens, lists, tables.

All of them are read here: as UTF-8, or as what a byte order mark says (Windows writes UTF-16). Anything else
is refused, for a guessed letter would name another file.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from retrieval_detect.errors import ConfigError, UsageError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAVE = "Save it as UTF-8: Excel calls it CSV UTF-8, PowerShell Out-File -Encoding utf8."


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a cell begins with that a spreadsheet computes (OWASP, CSV injection)."""


class Table(NamedTuple):
    """A CSV file: the names in its header, and its rows by name; what a row lacks is ``""``."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]


def decoded(data: bytes, where: str, *, file_names: bool = False) -> str:
    """The text that ``data`` is, without its byte order mark; ``where`` it is from is said in errors.

    ``file_names`` : keep what is not UTF-8 as ``os.fsdecode`` does, for names of files may be anything.
    Raises ``UsageError`` for what is no text.
    """
    mark, encoding = next((found for found in _MARKS if data.startswith(found[0])), (b"", "utf-8"))
    if not mark and _looks_like_utf16(data):
        raise UsageError(f"{where} is UTF-16 without a byte order mark", hint=_SAVE)
    kept = file_names and encoding == "utf-8"
    try:
        return data[len(mark) :].decode(encoding, "surrogateescape" if kept else "strict")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].decode(encoding, "replace").count("\n") + 1
        raise UsageError(
            f"{where}, line {line}: this is no {encoding[:6].upper()} text", hint=_SAVE
        ) from error


def read_text(path: Path) -> str:
    """The text of a file. Raises ``UsageError`` for what is no text, ``OSError`` for what cannot be read."""
    text = decoded(path.read_bytes(), str(path))
    if "\0" in text:
        raise UsageError(f"{path} holds NUL bytes: it is no text", hint=_SAVE)
    return text


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file. Raises ``ConfigError`` that names it."""
    import tomllib

    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UsageError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def read_csv(path: Path) -> Table:
    """A CSV file with a header. Raises ``UsageError`` that names the line, as where a quote never closes."""
    lines = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="", strict=True)
    try:
        columns = tuple(map(_meant, lines.fieldnames or ()))
        lines.fieldnames = columns
        rows = [{name: _meant(value) for name, value in row.items() if name} for row in lines]
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {lines.reader.line_num}: {error}",
            hint="A quote that is opened must be closed; leave out columns of more than 131,072 characters.",
        ) from error
    return Table(columns, rows)


def _looks_like_utf16(data: bytes) -> bool:
    """Whether lines end as Windows ends them in UTF-16, or two in three characters are ASCII in two bytes.

    Paths that end in NUL are not like that: but for a few names of one letter, which are too short to tell.
    """
    even, odd = data[::2].count(0), data[1::2].count(0)
    wide = max(even, odd) > max(3, len(data) // 3) and 8 * min(even, odd) <= max(even, odd)
    return wide or b"\r\0\n\0" in data or b"\0\r\0\n" in data


def csv_text(lines: Iterable[Iterable[object]]) -> str:
    """Lines of cells as CSV, harmless to a spreadsheet; ``read_csv`` reads them back as they were.

    Names of files and generators are hostile: text that begins like a formula gets an apostrophe before
    it. Numbers stay as they are, ``None`` is an empty cell.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_harmless(cell) for cell in line] for line in lines)
    return text.getvalue()


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def _meant(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    # Behind apostrophes, too: so that what had some of its own is read back with them.
    return text.lstrip("'").startswith(_FORMULA)
