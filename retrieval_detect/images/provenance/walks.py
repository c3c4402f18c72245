"""Walking a container from part to part: bounded in steps, and each length is read before it is believed."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import TypeAlias

PNG = b"\x89PNG\r\n\x1a\n"
CODESTREAM = b"\xff\x4f\xff\x51"
_MAX_STEPS = 100_000
_SUB_BLOCKS = 1_000_000
"""Of a GIF: a quarter of a gigabyte, if they are full."""

Chunk: TypeAlias = tuple[bytes, bytes]
"""Type and content of one part of a container."""


class TooManyParts(Exception):
    """A walk was given up."""


def jpeg_segments(data: bytes) -> Iterator[Chunk]:
    """Segments before the first scan: whatever comes later is pixels."""
    at = 2
    for _ in range(_MAX_STEPS):
        if data[at : at + 1] != b"\xff" or at + 4 > len(data):
            return
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in (0xD9, 0xDA):
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield data[at + 1 : at + 2], data[at + 4 : at + 2 + length]
        at += 2 + length
    raise TooManyParts


def png_chunks(data: bytes, wanted: Container[bytes]) -> Iterator[Chunk]:
    """Chunks up to the end of the picture."""
    at = len(PNG)
    for _ in range(_MAX_STEPS):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        length = int.from_bytes(data[at : at + 4], "big")
        if kind in wanted:
            yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length
    raise TooManyParts


def riff_chunks(data: bytes, wanted: Container[bytes]) -> Iterator[Chunk]:
    """Chunks of a WebP."""
    at = 12
    for _ in range(_MAX_STEPS):
        kind = data[at : at + 4]
        if len(kind) < 4:
            return
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in wanted:
            yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    raise TooManyParts


def boxes(data: bytes, wanted: Container[bytes]) -> Iterator[Chunk]:
    """Top-level boxes of an ISO base media or JPEG 2000 file."""
    at = 0
    for _ in range(_MAX_STEPS):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4:
            return
        length, start = int.from_bytes(data[at : at + 4], "big"), at + 8
        if length == 0:  # to the end of the file
            length = len(data) - at
        elif length == 1:  # a length of 64 bits follows
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if length < start - at:
            return
        if kind in wanted:
            yield kind, data[start : at + length]
        at += length
    raise TooManyParts


def gif_extensions(data: bytes) -> Iterator[Chunk]:
    """Extensions by their label; those of programs begin with the program's name, of eleven bytes."""
    at = 13 + _gif_table(data[10:11])
    budget = iter(range(_SUB_BLOCKS))
    for _ in range(_MAX_STEPS):
        kind = data[at : at + 1]
        if kind == b"!":
            end = _behind_sub_blocks(data, at + 2, budget)
            yield data[at + 1 : at + 2], data[at + 2 : end]
        elif kind == b",":
            end = _behind_sub_blocks(data, at + 11 + _gif_table(data[at + 9 : at + 10]), budget)
        else:
            return
        at = end
    raise TooManyParts


def _gif_table(flags: bytes) -> int:
    """Bytes of a table of colours."""
    return 6 << (flags[0] & 7) if flags and flags[0] & 0x80 else 0


def _behind_sub_blocks(data: bytes, at: int, budget: Iterator[int]) -> int:
    for _ in budget:
        if at >= len(data) or not data[at]:
            return at + 1
        at += 1 + data[at]
    raise TooManyParts


def joined(sub_blocks: bytes) -> bytes:
    """The content of sub-blocks, each of which begins with its length."""
    parts, at = [], 0
    while at < len(sub_blocks) and sub_blocks[at]:
        parts.append(sub_blocks[at + 1 : at + 1 + sub_blocks[at]])
        at += 1 + sub_blocks[at]
    return b"".join(parts)


def codestream_segments(data: bytes) -> Iterator[Chunk]:
    """Of JPEG 2000: segments of the main header."""
    at = data.find(CODESTREAM) + 2
    for _ in range(_MAX_STEPS):
        marker, length = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if at < 2 or marker[:1] != b"\xff" or marker == b"\xff\x90" or length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length
    raise TooManyParts
