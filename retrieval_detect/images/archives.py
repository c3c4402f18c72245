"""Members of a tar archive (WebDataset) as images; none is ever extracted to disk.

Archives break: a header is damaged, a download ended early, bytes are missing. Each such place becomes one
item that says so when it is read, and the next header with a true checksum is looked for: what can still be
read is read, and nothing is lost in silence.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from retrieval_detect.errors import ImageError
from retrieval_detect.images.captions import MOST_BYTES
from retrieval_detect.images.items import failed_item, is_image_name, read_file
from retrieval_detect.images.kept import FileKey
from retrieval_detect.images.members import failed_member, member_item, nameless, parts_of, passed_as
from retrieval_detect.images.unpacked import UNPACKED, read_unpacked
from retrieval_detect.types import ImageItem

_MAGIC, _MAGIC_AT = b"ustar", 257
_AT_ONCE_BYTES = 1 << 20
_MOST_PADDING_BYTES = 1 << 20
"""Of zeros behind an archive, or between two: tar itself fills up to some kilobytes."""
_MOST_DAMAGES = 100
"""Places in one archive; made to be slow, an archive could have a million."""
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK": "ZIP",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "RAR",
}
_NO_FILES = (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)


def tar_items(path: Path, folder: str, passed: Counter[str]) -> Iterator[ImageItem]:
    """The images of a tar archive, in its order; ``folder`` goes before their names.

    Links are the images they lead to; those that lead further on come last. ``passed`` receives what is no
    image, as in ``sources.scan``.
    """
    items = _Items(path, folder, passed, partial(read_file, path))
    try:
        with path.open("rb") as stream:
            yield from items.in_stream(stream)
    except OSError as error:
        yield failed_item(str(path), f"the archive cannot be read: {error.strerror or error}")


def packed_tar_items(path: Path, folder: str, passed: Counter[str]) -> Iterator[ImageItem]:
    """The same of one packed by gzip: unpacked into a file without a name, for as long as it is read."""
    try:
        packed = FileKey.of(path)
        unpacked = UNPACKED.of(packed)
    except OSError as error:
        yield failed_item(str(path), f"the archive cannot be unpacked: {error.strerror or error}")
        return
    with unpacked.path.open("rb") as stream:
        yield from _Items(path, folder, passed, partial(read_unpacked, packed)).in_stream(stream)
    if unpacked.wrong:
        yield failed_item(str(path), unpacked.wrong)


# ---------------------------------------------------------------- members as items


class _Items:
    """Makes items of members, and remembers where the data of each lies, for the links to it."""

    def __init__(
        self, path: Path, folder: str, passed: Counter[str], read: Callable[[int, int], bytes]
    ) -> None:
        self._path = path
        self._read = read
        self._folder = folder
        self._passed = passed
        self._places: dict[str, tuple[int, int]] = {}
        self._leading_on: list[tarfile.TarInfo] = []

    def in_stream(self, stream: BinaryIO) -> Iterator[ImageItem]:
        """Those of an archive that lies in a stream."""
        for member in _members(stream):
            item = failed_item(str(self._path), member) if isinstance(member, str) else self.of(member)
            if item is not None:
                yield item
        yield from map(self.linked, self._leading_on)

    def of(self, member: tarfile.TarInfo) -> ImageItem | None:
        """What a member is: an image, why it cannot be read, or nothing to look at (yet)."""
        if member.type in _NO_FILES:
            return None
        whole = member.isreg() and not member.issparse()
        if whole:
            self._places[_key(member.name)] = member.offset_data, member.size
        parts = parts_of(member.name)
        if not parts:
            return nameless(self._path, member.name)
        if kind := passed_as(parts):
            self._passed[kind] += 1
            return None
        if member.islnk() or member.issym():
            leads_back = _target(member) in self._places
            if not leads_back:
                self._leading_on.append(member)
            return self.linked(member) if leads_back else None
        if whole:
            return self._reading(member, (member.offset_data, member.size))
        kind = "sparse" if member.issparse() else f"of type {ascii(member.type)[1:]}"
        return self._failed(member, f"this member is {kind}, which is not read: unpack the archive")

    def linked(self, member: tarfile.TarInfo) -> ImageItem:
        """The image that a link leads to."""
        place = self._places.get(_target(member))
        if place is None:
            return self._failed(member, f"this is a link to '{member.linkname}', which the archive lacks")
        self._places[_key(member.name)] = place
        return self._reading(member, place)

    def _reading(self, member: tarfile.TarInfo, place: tuple[int, int]) -> ImageItem:
        read = partial(self._read, *place)
        return member_item(self._path, member.name, self._folder, read, self._beside)

    def _beside(self, name: str) -> bytes | None:
        """A member's bytes, if it is there and may be a caption; asked for once all are listed."""
        offset, size_bytes = self._places.get(_key(name), (0, MOST_BYTES + 1))
        try:
            return self._read(offset, size_bytes) if size_bytes <= MOST_BYTES else None
        except (OSError, ImageError):
            return None

    def _failed(self, member: tarfile.TarInfo, message: str) -> ImageItem:
        return failed_member(self._path, member.name, message)


def _key(name: str) -> str:
    """A member's name as links may spell it, too: below the root of the archive."""
    return posixpath.normpath("/" + name.lstrip("/"))


def _target(member: tarfile.TarInfo) -> str:
    """Hard links are named from the root of the archive, symbolic ones from where they lie."""
    if member.islnk():
        return _key(member.linkname)
    return _key(posixpath.join(posixpath.dirname(member.name), member.linkname))


# ---------------------------------------------------------------- headers


class _Archive(tarfile.TarFile):
    """Does not look at the first header while it is opened: that one may be damaged, too."""

    def next(self) -> None:
        """Nothing: ``_member_at`` reads the headers."""


def _members(stream: BinaryIO) -> Iterator[tarfile.TarInfo | str]:
    """Every member that can be found, and in its place what is wrong where one should be."""
    size = stream.seek(0, os.SEEK_END)
    archive = _Archive(fileobj=stream)
    at = resume = damages = 0
    ended = False
    while at < size:
        if damages > _MOST_DAMAGES:
            yield f"the archive is damaged in more than {_MOST_DAMAGES} places: the rest is not read"
            return
        begin = _after_zeros(stream, at)
        ended = ended or begin > at
        if _is_hole(at, begin, size):
            yield f"{begin - at:,} bytes from byte {at:,} are zero: members that were there are lost"
        at = begin
        if at >= size:
            break
        member = _member_at(archive, at)
        if member is None:
            found = _next_header(stream, resume or at + 1, at, size)
            yield _damage(stream, at, found)
            at, resume, ended, damages = found or size, 0, found is None, damages + 1
            continue
        yield member
        # An image whose end is missing takes the headers behind it for its own bytes.
        resume = member.offset_data if is_image_name(member.name) else 0
        at, ended = archive.offset, False
    if not size:
        yield "the archive cannot be read: it is empty"
    elif not ended:
        yield "the archive ends without the mark of its end: what came behind may be cut off"


def _member_at(archive: tarfile.TarFile, at: int) -> tarfile.TarInfo | None:
    """The member whose headers begin at a byte; ``None`` if none does."""
    archive.offset = at
    try:
        archive.fileobj.seek(at)
        member = tarfile.TarInfo.fromtarfile(archive)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - headers are hostile: endless chains, sizes of exabytes
        return None
    return member if member.size >= 0 and archive.offset > at else None


def _after_zeros(stream: BinaryIO, at: int) -> int:
    """The first byte from ``at`` on, in steps of a block, whose block is not all zero; or the end."""
    stream.seek(at)
    n = tarfile.BLOCKSIZE  # behind a member stands the next one, but for the last
    while chunk := stream.read(n):
        if rest := chunk.lstrip(b"\0"):
            return at + (len(chunk) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        at, n = at + len(chunk), _AT_ONCE_BYTES
    return at


def _is_hole(at: int, begin: int, size: int) -> bool:
    """Whether zeros are not the mark of an end: two blocks, or filled up to a whole record.

    Behind the last member some programs write one block, or fill up to more.
    """
    n, mark = begin - at, 2 * tarfile.BLOCKSIZE
    if begin >= size or n == 0:
        return n > _MOST_PADDING_BYTES
    return n < mark or n > _MOST_PADDING_BYTES or (n > mark and begin % tarfile.RECORDSIZE > 0)


def _next_header(stream: BinaryIO, at: int, damaged: int, size: int) -> int | None:
    """Where the next header with a true checksum begins, but for the one that is damaged all the same.

    At any byte, for what is missing may be a few. Nothing of a packed archive is looked for.
    """
    if damaged == 0 and _packing(stream):
        return None
    while at < size:
        stream.seek(at)
        chunk = stream.read(_AT_ONCE_BYTES + tarfile.BLOCKSIZE)
        start = chunk.find(_MAGIC, _MAGIC_AT) - _MAGIC_AT
        while 0 <= start < _AT_ONCE_BYTES:
            if at + start != damaged and _is_header(chunk[start : start + tarfile.BLOCKSIZE]):
                return at + start
            start = chunk.find(_MAGIC, start + _MAGIC_AT + 1) - _MAGIC_AT
        at += _AT_ONCE_BYTES
    return None


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except Exception:  # noqa: BLE001 - bytes that may be anything
        return False
    return True


def _packing(stream: BinaryIO) -> str:
    stream.seek(0)
    begin = stream.read(8)
    return next((name for mark, name in _PACKED.items() if begin.startswith(mark)), "")


def _damage(stream: BinaryIO, at: int, found: int | None) -> str:
    if at == 0 and found is None:
        packing = _packing(stream)
        what = f"it is packed ({packing}): repack it as a plain .tar" if packing else "it is no tar file"
        return f"the archive cannot be read: {what}"
    rest = "nothing behind it can be read" if found is None else f"reading goes on at byte {found:,}"
    return f"the archive is damaged at byte {at:,}, where a member should begin: {rest}"
