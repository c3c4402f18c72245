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
    import csv
    import io

    from retrieval_detect.files import write_bytes, write_json

    if out.suffix.lower() == ".json":
        write_json(out, rows)
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(out, text.getvalue().encode())
