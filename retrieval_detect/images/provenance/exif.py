"""EXIF: which camera or program says it made a file, and when. Where it was taken is never read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags, Image

from retrieval_detect.images.provenance.words import short

_BASE, _IFD = ExifTags.Base, ExifTags.IFD
_FACTS = {"make": _BASE.Make, "model": _BASE.Model, "software": _BASE.Software, "date": _BASE.DateTime}
_TEXTS = {"ImageDescription": _BASE.ImageDescription, "UserComment": _BASE.UserComment}
_XMP = 700
_PREFIXED = ("workflow:", "prompt:")
"""What ComfyUI writes into Make and Model of files that have no place for text."""


@dataclass(frozen=True, slots=True)
class Exif:
    """``facts`` : make, model, software, date, and ``gps`` if a position is stored; those that are there.

    ``texts`` : comments, keyword → text. ``xmp`` : a packet that a TIFF file keeps in a tag.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    xmp: bytes = b""


def read_exif(tiff: bytes) -> Exif | None:
    """What a TIFF structure says; ``None`` where it cannot be read."""
    try:
        exif = Image.Exif()
        exif.load(tiff)
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
    xmp = tags.get(_XMP)
    return Exif(facts | ({"gps": True} if gps else {}), texts, xmp if isinstance(xmp, bytes) else b"")


def _text(value: object) -> str:
    """A tag as text; a comment says in its first eight bytes how it is written (EXIF 2.3, 4.6.5)."""
    if isinstance(value, str):
        return value.strip("\0 \t\r\n")
    if not isinstance(value, bytes):
        return ""
    charset, content = value[:8], value[8:]
    if charset == b"UNICODE\0":
        # Either order of bytes is met in the wild: in most scripts the high ones are the equal ones.
        big = len(set(content[::2])) <= len(set(content[1::2]))
        text = content.decode("utf-16-be" if big else "utf-16-le", "replace")
    elif charset in (b"ASCII\0\0\0", bytes(8)):
        text = content.decode("utf-8", "replace")
    else:
        text = value.decode("utf-8", "replace")
    return text.strip("\0 \t\r\n")
