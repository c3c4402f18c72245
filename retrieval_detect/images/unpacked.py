"""Tar archives packed by gzip, in which nothing is found before what lies ahead of it is unpacked.

Each is unpacked once, into a temporary file that is gone with whoever reads it; the last two are kept. It may
be made to fill the disk, so it is unpacked only as far as archives of images ever go.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from retrieval_detect.images.items import read_file
from retrieval_detect.images.kept import FileKey, Kept
from retrieval_detect.images.members import most_unpacked

_AT_ONCE_BYTES = 1 << 20


class Unpacked(NamedTuple):
    """``wrong`` : why what was unpacked is not all, in words; empty if it is."""

    file: IO[bytes]
    wrong: str

    @property
    def path(self) -> Path:
        """Where it lies for as long as this is held."""
        return Path(self.file.name)


def read_unpacked(packed: FileKey, offset: int, size_bytes: int) -> bytes:
    """As ``items.read_file``, of an archive once unpacked."""
    held = UNPACKED.of(packed)
    return read_file(held.path, offset, size_bytes)


def _unpack(packed: FileKey) -> Unpacked:
    """As much of an archive as can be unpacked; an ``OSError`` where that is nothing."""
    file = tempfile.NamedTemporaryFile(prefix="rd-unpacked-")  # noqa: SIM115 - closed once nobody holds it
    half_the_disk = shutil.disk_usage(tempfile.gettempdir()).free // 2
    most, size, wrong = min(most_unpacked(packed.size_bytes), half_the_disk), 0, ""
    with gzip.open(packed.path) as stream:
        try:
            while chunk := stream.read1(_AT_ONCE_BYTES):
                size += len(chunk)
                if size > most:
                    wrong = f"it unpacks to more than {most:,} bytes: the rest is not read"
                    break
                file.write(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if not size:
                raise OSError(str(error)) from error
            wrong = f"the archive cannot be unpacked to its end: {error}"
    file.flush()
    return Unpacked(file, wrong)


UNPACKED = Kept(_unpack)
