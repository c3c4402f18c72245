"""IPTC's Information Interchange Model, which older programs write where newer ones write XMP."""

from __future__ import annotations

from collections.abc import Iterator

from retrieval_detect.images.provenance.words import short

_WANTED = {65: "program", 70: "version", 110: "credit"}
_MARK, _APPLICATION, _LONGEST = 0x1C, 2, 0x7FFF
_RESOURCE, _RECORDS = b"8BIM", 0x0404


def read_iptc(block: bytes) -> dict[str, str] | None:
    """Program, its version and credit, those that are there; ``None`` where it cannot be read.

    ``block`` : records, or Photoshop's resources with them in one.
    """
    records = block
    if block.startswith(_RESOURCE):
        records = next((content for kind, content in _resources(block) if kind == _RECORDS), b"")
    found: dict[str, str] = {}
    at = 0
    while at < len(records) and records[at]:  # zeros fill up the end
        mark, record, dataset = records[at : at + 3].ljust(3)
        length = int.from_bytes(records[at + 3 : at + 5], "big")
        value = records[at + 5 : at + 5 + length]
        if mark != _MARK or length > _LONGEST or len(value) < length:
            return None
        if record == _APPLICATION and dataset in _WANTED:
            found.setdefault(_WANTED[dataset], short(_text(value)))
        at += 5 + length
    return found


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content; each has a name, padded to be even with its length, and is padded itself."""
    at = 0
    while data[at : at + 4] == _RESOURCE and at + 7 <= len(data):
        start = at + 6 + (data[at + 6] + 2) // 2 * 2 + 4
        length = int.from_bytes(data[start - 4 : start], "big")
        yield int.from_bytes(data[at + 4 : at + 6], "big"), data[start : start + length]
        at = start + length + length % 2


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
