"""Durable files: everything rd writes into an index goes through here, and every digest it trusts.

The order is always: write a temporary file in the same folder, fsync it, rename it into place,
fsync the folder. A crash at any point leaves the old file or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

TEMPORARY = ".tmp-"
"""Prefix of files being written; whoever holds the writer lock may delete leftovers."""

_REMEMBERED = 100_000
_FULL_BYTES = 1 << 20


def require_folder_of(path: Path) -> None:
    """Raise ``UsageError`` before any work is done if there is no folder to write ``path`` to."""
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} to write {path.name} to")


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, new: bool = False) -> None:
    """Create or replace ``path`` with what ``write`` puts into the open file, all or nothing.

    ``new`` : replace nothing; ``FileExistsError`` if something lies at ``path`` by the time all is written.

    What is no file, such as ``/dev/stdout``, is written to and stays what it is. An ``OSError``
    names ``path`` and has an ``errno`` where the disk is full, whatever library wrote.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        with path.open("wb") as file:
            write(file)
        return
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if new:
            path.open("xb").close()
        temporary.replace(path)
    except BaseException as error:
        told = _told(error, path, temporary)  # before what is deleted makes room again
        with suppress(OSError):
            temporary.unlink()
        if told is error:
            raise
        raise told from error
    sync_folder(path.parent)


def _told(error: BaseException, path: Path, temporary: Path) -> BaseException:
    """The error with the file that was to be written, and with the number that numpy keeps to itself."""
    if not isinstance(error, OSError) or error.filename not in (None, str(temporary)):
        return error
    number = error.errno
    if number is None and shutil.disk_usage(path.parent).free < _FULL_BYTES:
        number = errno.ENOSPC
    return error if number is None else OSError(number, os.strerror(number), str(path))


def write_bytes(path: Path, data: bytes, *, new: bool = False) -> None:
    """``write_atomically`` for bytes at hand."""
    write_atomically(path, lambda file: file.write(data), new=new)


def write_json(path: Path, data: Any) -> None:
    """Canonical JSON: sorted keys, two spaces, one newline at the end."""
    text = json.dumps(data, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def arrays_to_bytes(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """A safetensors file; what is said ``about`` the arrays is JSON. Equal contents give equal bytes."""
    from safetensors.numpy import save

    # One key: the library writes several in any order, and files are known by a digest of these bytes.
    return save(dict(arrays), {"about": json.dumps(about, sort_keys=True)})


def arrays_from_bytes(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Its inverse; raises ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    length = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["about"])
    try:
        return load(data), about
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in ``folder`` durable (a no-op where folders cannot be opened)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_bytes(data: bytes) -> str:
    """Hex sha256 of bytes at hand."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_cache() -> Path:
    """The user's cache folder, outside every index (``RD_CACHE`` names another)."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("RD_CACHE") or user_cache_path("retrieval-detect"))


def read_cache(path: Path) -> dict[str, Any]:
    """What ``write_cache`` kept; nothing where the file is lost or something else."""
    with suppress(OSError, ValueError):
        loaded = json.loads(path.read_text())
        if isinstance(loaded, dict):
            return loaded
    return {}


def write_cache(path: Path, known: dict[str, Any]) -> None:
    """Keep the newest of ``known``, which are its last. A cache that cannot be written is an ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    newest = dict(list(known.items())[-_REMEMBERED:])
    write_bytes(path, json.dumps(newest).encode())  # in order, oldest first


class DigestCache:
    """Remembers the sha256 of file versions, so that opening an index does not reread it.

    A version is (device, inode, size, mtime in ns). The memory is one JSON file in the user's
    cache folder, outside every index: whoever can write an index cannot vouch for it. Losing the
    cache costs one rereading.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = {version: str(digest) for version, digest in read_cache(path).items()}
        self._changed = False

    @classmethod
    def for_user(cls) -> DigestCache:
        """The one in ``user_cache``."""
        return cls(user_cache() / "digests.json")

    @staticmethod
    def _version(path: Path) -> str:
        info = path.stat()
        return f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}"

    def knows(self, path: Path) -> bool:
        """Whether this version of the file was read before; not of a file that is not there."""
        return path.exists() and self._version(path) in self._known

    def sha256(self, path: Path) -> str:
        """Hex sha256 of ``path``, from memory if this version of the file was read before."""
        version = self._version(path)
        digest = self._known.get(version)
        if digest is None:
            digest = sha256_file(path)
            self._known[version] = digest
            self._changed = True
        return digest

    def save(self) -> None:
        """Write new digests out; a cache that cannot be written is no error."""
        if not self._changed:
            return
        with suppress(OSError):
            write_cache(self._path, self._known)
            self._changed = False
