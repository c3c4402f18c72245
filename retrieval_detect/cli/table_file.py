"""Tables that a command writes beside what it prints: CSV or JSON, by the name of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def check_table_file(out: Path | None) -> None:
    """Raise ``UsageError`` before the work is done if ``out`` could not be written afterwards."""
    from retrieval_detect.errors import UsageError
    from retrieval_detect.files import require_folder_of

    if out is None:
        return
    if out.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"{out.name} ends in neither .csv nor .json")
    require_folder_of(out)


def write_table_file(out: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write ``rows`` to a file that ``check_table_file`` has passed."""
    from retrieval_detect.files import write_bytes, write_json
    from retrieval_detect.texts import csv_text

    if out.suffix.lower() == ".json":
        write_json(out, rows)
        return
    write_bytes(out, csv_text([columns, *([row[name] for name in columns] for row in rows)]).encode())
