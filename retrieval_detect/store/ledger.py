"""Which files of a folder are finished, so that long work goes on where it stopped.

A line a file, appended once the file is in place: JSON with its own checksum. A line that is torn or
altered counts for nothing, and its file is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_detect.files import sha256_bytes, write_bytes
from retrieval_detect.store.manifest import FileRecord

if TYPE_CHECKING:
    from retrieval_detect.files import DigestCache


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished file: its name in the folder, the key of what it was made from, and what is known of it."""

    name: str
    key: str
    file: FileRecord
    facts: Mapping[str, Any] = field(default_factory=dict)


class Ledger:
    """The finished files beside ``path``; only one process may write at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Finished] = {}
        lines = path.read_bytes().splitlines() if path.exists() else []
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):
                entry = _parsed(line)
                self._known[entry.name] = entry

    def __len__(self) -> int:
        return len(self._known)

    def keep(self, keys: Mapping[str, str], digests: DigestCache) -> None:
        """Forget and delete all files but those that are as they were written, from what ``keys`` say.

        ``keys`` : name → key.
        """
        for entry in list(self._known.values()):
            if keys.get(entry.name) != entry.key or not self._is_whole(entry, digests):
                (self._path.parent / entry.name).unlink(missing_ok=True)
                del self._known[entry.name]
        write_bytes(self._path, b"".join(_line(entry) for entry in self._known.values()))

    def _is_whole(self, entry: Finished, digests: DigestCache) -> bool:
        with suppress(OSError):
            return entry.file.holds(self._path.parent / entry.name, digests.sha256)
        return False

    def finished(self, name: str) -> Finished | None:
        """The entry of a file, if it is finished."""
        return self._known.get(name)

    def add(self, entry: Finished) -> None:
        """Note that a file, which is in place, is finished; durable on return."""
        self._known[entry.name] = entry
        with self._path.open("ab") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())


def _line(entry: Finished) -> bytes:
    text = json.dumps(asdict(entry), sort_keys=True)
    return f"{sha256_bytes(text.encode())} {text}\n".encode()


def _parsed(line: bytes) -> Finished:
    digest, _, text = line.partition(b" ")
    if sha256_bytes(text) != digest.decode():
        raise ValueError("the line is not as it was written")
    data = json.loads(text)
    if Path(data["name"]).name != data["name"]:
        raise ValueError(f"{data['name']} is no name of a file here")
    return Finished(**data | {"file": FileRecord(**data["file"])})
