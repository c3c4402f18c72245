"""The last few of what takes long to open: archives unpacked, groups of rows read."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

AT_ONCE = 2
"""Images are asked for in order, by several threads: one may read the last of one, another the next."""


class FileKey(NamedTuple):
    """A file as it was when it was listed."""

    path: Path
    inode: int
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileKey:
        """The file as it is now; raises ``OSError``."""
        found = path.stat()
        return cls(path, found.st_ino, found.st_size, found.st_mtime_ns)


class Kept(Generic[K, V]):
    """What ``make`` gives for the last ``AT_ONCE`` keys, made once each while they are kept.

    What is let go is closed once nobody reads it any more.
    """

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._lock = Lock()
        self._kept: dict[K, V] = {}

    def of(self, key: K) -> V:
        """What is kept under a key, made now if it is not; raises what ``make`` raises."""
        with self._lock:
            if key not in self._kept:
                if len(self._kept) == AT_ONCE:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = self._make(key)
            return self._kept[key]
