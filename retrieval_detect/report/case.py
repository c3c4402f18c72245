"""An examiner's case: a log that only grows, and whether what it says can be had again.

::

    CASE/log.jsonl     one line a verdict; each names the sha256 of the line before it
    CASE/.lock         one writer

A line that was changed, taken out or put in breaks the chain, and lines cut off at the end are missed
where somebody kept the last line's digest: ``rd report CASE --verify`` prints it. The log holds paths,
digests and the verdict; the image itself stays where it is. The generation that judged is pinned, so that
it can be asked again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from retrieval_detect.errors import CaseDamaged, IndexLocked, UsageError
from retrieval_detect.files import sha256_bytes, sync_folder

Entry: TypeAlias = Mapping[str, Any]
_Version: TypeAlias = tuple[int, int]
SCHEMA = 1
LOG, LOCK = "log.jsonl", ".lock"
START = "0" * 64
"""What the first line names as the digest of the line before it."""
_WAIT_S = 10


@dataclass(frozen=True, slots=True)
class Log:
    """The lines of a case, oldest first, and the digest of the last."""

    entries: Sequence[Entry]
    digest: str


class Case:
    """A folder with a log. It is made with its first entry."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._followed: tuple[_Version, int, str] | None = None
        """Version, entries and digest of the log after our last entry: its chain was followed to there."""

    @property
    def exists(self) -> bool:
        """Whether there is a log already."""
        return (self.folder / LOG).exists()

    def read(self) -> Log:
        """Every entry; raises ``UsageError`` where there is none and ``CaseDamaged`` where it was changed."""
        path = self.folder / LOG
        if not path.exists():
            raise UsageError(f"{self.folder} is no case: it has no {LOG}", hint="rd query IMAGE --case DIR")
        digest, entries = START, []
        # Lines that end: what a writer killed while writing left behind was never an entry.
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            told = isinstance(entry, dict) and (entry.get("number"), entry.get("previous"))
            if told != (number, digest):
                raise CaseDamaged(
                    f"line {number} of {path} is not the one that was written after line {number - 1}",
                    hint="Lines were changed, removed or put in. Compare with a copy kept elsewhere.",
                )
            entries.append(entry)
            digest = sha256_bytes(line)
        return Log(entries, digest)

    def append(self, facts: Mapping[str, Any]) -> str:
        """Write one entry behind the others, durably; returns the digest of its line.

        Number, time and the digest of the line before are filled in. Raises ``CaseDamaged`` where the log
        was changed: nothing is put behind what cannot be vouched for.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            number, digest = self._end()
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            entry = {"schema": SCHEMA, "number": number, "at": at, **facts, "previous": digest}
            line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode()
            self._write(line + b"\n")
            digest = sha256_bytes(line)
            self._followed = _version(self.folder / LOG), number, digest
            return digest

    def _write(self, line: bytes) -> None:
        """Durably, behind the last whole line."""
        path = self.folder / LOG
        new = not path.exists()
        with path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            if size and file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(path.parent)

    def _end(self) -> tuple[int, str]:
        """Number of the next entry, and digest of the last; a log that only we wrote to is not read again."""
        path = self.folder / LOG
        if self._followed and self.exists and _version(path) == self._followed[0]:
            return self._followed[1] + 1, self._followed[2]
        log = self.read() if self.exists else Log((), START)
        return len(log.entries) + 1, log.digest

    @contextmanager
    def _locked(self) -> Iterator[None]:
        import filelock

        try:
            with filelock.FileLock(self.folder / LOCK, timeout=_WAIT_S):
                yield
        except filelock.Timeout:
            raise IndexLocked(f"another rd is writing to case {self.folder}", hint="Try again.") from None


def _version(path: Path) -> _Version:
    info = path.stat()
    return info.st_size, info.st_mtime_ns
