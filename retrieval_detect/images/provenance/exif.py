"""EXIF: which camera or program says it made a file, and when. Where it was taken is never read."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags, Image

from retrieval_detect.images.provenance.words import short

_BASE, _IFD = ExifTags.Base, ExifTags.IFD
_FACTS = {"make": _BASE.Make, "model": _BASE.Model, "software": _BASE.Software, "date": _BASE.DateTime}
_TEXTS = {"ImageDescription": _BASE.ImageDescription, "UserComment": _BASE.UserComment}
_XMP, _IPTC, _PHOTOSHOP, _C2PA = 700, 33723, 34377, 52545
_PREFIX = b"Exif\x00\x00"
_BLANK = "\0 \t\r\n\ufeff"
_MARKS = {b"\xfe\xff": True, b"\xff\xfe": False}
"""Byte order mark → whether the high bytes come first."""
_PREFIXED = ("workflow:", "prompt:")
"""What ComfyUI writes into Make and Model of files that have no place for text."""


@dataclass(frozen=True, slots=True)
class Exif:
    """``facts`` : make, model, software, date, and ``gps`` if a position is stored; those that are there.

    ``texts`` : comments, keyword → text. ``xmp``, ``iptc`` : what a TIFF file keeps in tags; ``c2pa`` :
    whether a manifest store is in one.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    xmp: bytes = b""
    iptc: bytes = b""
    c2pa: bool = False


def read_exif(tiff: bytes) -> Exif | None:
    """What a TIFF structure says; ``None`` where it cannot be read."""
    try:
        exif = _loaded(tiff)
        tags = {**exif, **exif.get_ifd(_IFD.Exif)}
        gps = _IFD.GPSInfo in exif
    except Exception:  # noqa: BLE001 - hostile bytes make Pillow's parser raise anything
        return None
    strings = {name: text for name, tag in _FACTS.items() if (text := _text(tags.get(tag)))}
    strings |= {"date": date} if (date := _text(tags.get(_BASE.DateTimeOriginal))) else {}
    texts = {name: text for name, tag in _TEXTS.items() if (text := _text(tags.get(tag)))}
    for value in strings.values():
        if value.startswith(_PREFIXED):
            keyword, _, graph = value.partition(":")
            texts[keyword] = graph
    facts: dict[str, Any] = {
        name: short(value) for name, value in strings.items() if not value.startswith(_PREFIXED)
    }
    kept = {tag: held for tag in (_XMP, _IPTC, _PHOTOSHOP) if isinstance(held := tags.get(tag), bytes)}
    return Exif(
        facts | ({"gps": True} if gps else {}),
        texts,
        kept.get(_XMP, b""),
        kept.get(_IPTC) or kept.get(_PHOTOSHOP, b""),
        _C2PA in tags,
    )


def _loaded(tiff: bytes) -> Image.Exif:
    """``Exif.load`` copies what it is given, here whole files, and knows no BigTIFF."""
    stream = io.BytesIO(tiff.removeprefix(_PREFIX).removeprefix(_PREFIX))
    head = stream.getbuffer()[:16].tobytes()
    exif = Image.Exif()
    if head[2:4] not in (b"+\0", b"\0+"):
        exif.load_from_fp(stream)
        return exif
    little = head.startswith(b"II")
    exif.bigtiff, exif.endian = True, "<" if little else ">"
    exif.load_from_fp(stream, int.from_bytes(head[8:16], "little" if little else "big"))
    return exif


def _text(value: object) -> str:
    """A tag as text; a comment says in its first eight bytes how it is written (EXIF 2.3, 4.6.5)."""
    if isinstance(value, str):
        return value.strip(_BLANK)
    if not isinstance(value, bytes):
        return ""
    charset, content = value[:8], value[8:]
    if charset == b"UNICODE\0":
        # Either order of bytes is met in the wild, seldom with a mark: the high ones are the equal ones.
        big = len(set(content[::2])) <= len(set(content[1::2]))
        big = _MARKS.get(content[:2], big)
        text = content.decode("utf-16-be" if big else "utf-16-le", "replace")
    elif charset in (b"ASCII\0\0\0", bytes(8)):
        text = content.decode("utf-8", "replace")
    else:
        text = value.decode("utf-8", "replace")
    return text.strip(_BLANK)
