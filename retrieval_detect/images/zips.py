"""Members of a ZIP archive as images; nothing is ever extracted to disk.

What an archive says of itself is not believed: lists of members that would fill the memory, members that lie
over one another, that unpack to more than images do or to another size than stated are refused. Links are
not followed.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

from retrieval_detect.errors import ImageError
from retrieval_detect.images.captions import MOST_BYTES
from retrieval_detect.images.items import UNREADABLE, exactly, failed_item
from retrieval_detect.images.kept import FileKey, Kept
from retrieval_detect.images.members import member_item, most_unpacked, nameless, parts_of, passed_as
from retrieval_detect.types import ImageItem

_MOST_DIRECTORY_BYTES = 128 << 20
"""Of the list of members, which takes a multiple in memory: a million and more by names of usual length."""
_ENCRYPTED = 0x1
_READ = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Of the others no library unpacks only as much as is asked for."""


def zip_items(path: Path, folder: str, passed: Counter[str]) -> Iterator[ImageItem]:
    """The images of a ZIP archive, in its order; ``folder`` and ``passed`` as in ``archives.tar_items``."""
    try:
        archive = FileKey.of(path)
        members = _OPEN.of(archive).infolist()
        lying = sorted((m.header_offset, m.header_offset + m.compress_size) for m in members)
        if any(end > begin for (_, end), (begin, _) in pairwise(lying)):
            raise zipfile.BadZipFile("its members lie over one another")
    except Exception as error:  # noqa: BLE001 - a list of members is hostile
        yield failed_item(str(path), f"the archive cannot be read: {error}")
        return
    for member in members:
        parts = parts_of(member.filename)
        if member.is_dir():
            continue
        if not parts:
            yield nameless(path, member.filename)
        elif kind := passed_as(parts):
            passed[kind] += 1
        else:
            read, beside = partial(_read, archive, member), partial(_beside, archive)
            yield member_item(path, member.filename, folder, read, beside)


class _Bounded(io.FileIO):
    """A file of which no more than ``most_bytes`` are read at once: as many as it says that its list has."""

    most_bytes = _MOST_DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file; raises ``zipfile.BadZipFile``."""
        if size is not None and size > self.most_bytes:
            raise zipfile.BadZipFile("its list of members is too long: unpack the archive")
        return super().read(size)

    def __del__(self) -> None:
        self.close()  # with the archive that is not kept any more


def _opened(archive: FileKey) -> zipfile.ZipFile:
    stream = _Bounded(archive.path)
    found = zipfile.ZipFile(stream)
    stream.most_bytes = sys.maxsize
    return found


_OPEN = Kept(_opened)


def _read(archive: FileKey, member: zipfile.ZipInfo) -> bytes:
    if member.flag_bits & _ENCRYPTED:
        raise ImageError("this member is encrypted: unpack the archive", reason=UNREADABLE)
    if member.compress_type not in _READ:
        raise ImageError(
            "this member is packed in a way that is not read: unpack the archive", reason=UNREADABLE
        )
    if member.file_size > (most := most_unpacked(member.compress_size)):
        message = f"it unpacks to {member.file_size:,} bytes, the limit for its size is {most:,}"
        raise ImageError(message, reason="too-many-bytes")
    try:
        with _OPEN.of(archive).open(member) as stream:
            return exactly(stream.read, member.file_size)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"this member is damaged: {error}", reason=UNREADABLE) from error


def _beside(archive: FileKey, name: str) -> bytes | None:
    """A member's bytes, if it is there and may be a caption."""
    try:
        member = _OPEN.of(archive).NameToInfo.get(name)
        return _read(archive, member) if member and member.file_size <= MOST_BYTES else None
    except (OSError, ImageError):
        return None
