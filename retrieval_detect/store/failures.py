"""``failures.jsonl``: what could not be used, and why, one line an input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from retrieval_detect.files import write_bytes
from retrieval_detect.store.layout import FAILURES
from retrieval_detect.types import Failure


def read_failures(folder: Path) -> list[Failure]:
    """Failures of all additions so far; lines that are no failures are passed over."""
    found = []
    with suppress(FileNotFoundError):
        for line in (folder / FAILURES).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError):
                found.append(Failure(**json.loads(line)))
    return found


def record_failures(folder: Path, failures: Sequence[Failure]) -> int:
    """Add to the list; an input that failed before keeps its newest reason. Returns how many were given."""
    if failures:
        merged = {failure.uri: failure for failure in [*read_failures(folder), *failures]}
        lines = [
            json.dumps(asdict(failure), ensure_ascii=True, sort_keys=True) for failure in merged.values()
        ]
        write_bytes(folder / FAILURES, ("\n".join(lines) + "\n").encode())
    return len(failures)
