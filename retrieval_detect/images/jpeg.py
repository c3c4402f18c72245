"""JPEGs by a decoder that refuses damage, and which of its complaints touch no pixel.

JPEG has no checksums: that the decoder has nothing to say is all there is. It stops at its first
complaint, so a harmless one could hide damage behind it. What is complained about is therefore mended in
a copy, and the copy decoded again, until nothing is left to say; and then the second decoder must have
the same pixels of the file as it is. Complaints of libjpeg-turbo (``jerror.h``) that are not in
``_HARMLESS`` tell of lost or invented data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.images.codes import refusal

try:
    import simplejpeg
except ImportError:  # no wheel for this machine: Pillow gives the same pixels, and overlooks some damage
    simplejpeg = None

if TYPE_CHECKING:
    from retrieval_detect.types import UInt8

_MAX_SEGMENTS = 10_000
_MAX_REPAIRS = 8
_READ_AHEAD_BYTES = 8
"""The decoder takes up to as many bytes behind a scan before it looks for the next marker."""
_LEAST_PADDING_BYTES = 4
_SOS, _EOI, _APP0, _APP2, _APP14 = 0xDA, 0xD9, 0xE0, 0xE2, 0xEE
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_BEHIND_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def strict_pixels(
    data: bytes, size: tuple[int, int], second: Callable[[], UInt8]
) -> tuple[UInt8, bool] | None:
    """uint8 (height, width, 3), equal to Pillow's (both are libjpeg-turbo); whether mistakes were passed.

    ``size`` : width and height that were found to be within the limits. ``second`` : the pixels as the
    second decoder has them, asked for where there is a mistake. ``None`` : not for this decoder (no wheel,
    or sampling factors that TurboJPEG does not know). Raises ``ValueError`` or ``ImageError`` on damage.
    """
    if simplejpeg is None:
        return None
    try:
        stated = _size_of(data)
    except ValueError:
        return None
    if stated != size:
        raise refusal("corrupt", "it states two sizes")
    try:
        return _decoded(data), False
    except ValueError as complaint:
        rgb = _mended(data, size, complaint)
    if not np.array_equal(rgb, second()):
        raise refusal("corrupt", "two decoders have different pixels")
    return rgb, True


def _size_of(data: bytes) -> tuple[int, int]:
    height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    return width, height


def _decoded(data: bytes) -> UInt8:
    rgb: UInt8 = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    return rgb


def _mended(data: bytes, size: tuple[int, int], complaint: ValueError) -> UInt8:
    """The pixels once every complaint is mended; raises the first that is not harmless."""
    for _ in range(_MAX_REPAIRS):
        found = ((re.search(words, str(complaint)), mend) for words, mend in _HARMLESS)
        mended = next((mend(data, match) for match, mend in found if match), None)
        if mended is None or mended == data or _size_of(mended) != size:
            break
        data = mended
        try:
            return _decoded(data)
        except ValueError as next_complaint:
            complaint = next_complaint
    raise complaint


# ---------------------------------------------------------------- segments


@dataclass(frozen=True, slots=True)
class _Segment:
    """``gap`` to ``start`` : bytes that belong to nothing; to ``end`` : a marker and what it heads."""

    marker: int
    gap: int
    start: int
    end: int


def _segments(data: bytes) -> Iterator[_Segment]:
    """All segments up to the end of the picture; coded data, behind a scan's header, are in none of them."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            return
        marker, start = found[1][0], found.start()
        length = 0 if marker == _EOI else int.from_bytes(data[start + 2 : start + 4], "big")
        yield _Segment(marker, at, start, start + 2 + length)
        if marker == _EOI:
            return
        at = start + 2 + length
        if marker == _SOS:
            behind = _BEHIND_SCAN.search(data, at)
            if behind is None:
                return
            at = behind.start()


# ---------------------------------------------------------------- what is harmless


def _scan_parameters(data: bytes, _words: re.Match[str]) -> bytes:
    """Of a sequential scan they can only be 0, 63, 0 and are not used; one maker of phones writes 0, 0, 0."""
    mended = bytearray(data)
    for segment in _segments(data):
        if segment.marker == _SOS and segment.end <= len(data):
            mended[segment.end - 3 : segment.end] = b"\x00\x3f\x00"
    return bytes(mended)


def _stray_bytes(data: bytes, words: re.Match[str]) -> bytes | None:
    n_bytes, before = int(words[1]), int(words[2], 16)
    segments = list(_segments(data))
    to_scan = next((i for i, segment in enumerate(segments) if segment.marker == _SOS), 0) + 1
    gaps = [s for s in segments[:to_scan] if data[s.gap : s.start].strip(b"\xff")]
    if gaps:
        # A lost segment is missed, and so complained about, but for the one that says what the colours are.
        lost = any(b"Adobe" in data[s.gap : s.start] for s in gaps)
        return None if lost else _without(data, [(s.gap, s.start) for s in gaps])
    last = segments[-1]
    if before != _EOI or last.marker != _EOI or not _is_padding(data[: last.start], n_bytes):
        return None
    return _without(data, [(last.start - n_bytes, last.start)])


def _is_padding(scan: bytes, n_bytes: int) -> bool:
    """Whether what is left of a scan was put behind it, and is not what damage within it left uncounted.

    Coded data do not repeat a byte. One drone maker writes seven zeros and another byte. A picture that is
    flat at its lower edge may end in zeros, but then a decoder stops where they begin by chance alone.
    """
    run = len(scan) - len(scan[:-1].rstrip(scan[-2:-1]))
    return run >= _LEAST_PADDING_BYTES and n_bytes <= run <= n_bytes + _READ_AHEAD_BYTES


def _colour_profile(data: bytes, _words: re.Match[str]) -> bytes:
    """A profile is not applied, be it whole or in pieces that do not fit."""
    profile = [(s.start, s.end) for s in _segments(data) if _begins(data, s, _APP2, b"ICC_PROFILE\0")]
    return _without(data, profile)


_HARMLESS: tuple[tuple[str, Callable[[bytes, re.Match[str]], bytes | None]], ...] = (
    (r"Invalid SOS parameters for sequential JPEG", _scan_parameters),
    (r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})", _stray_bytes),
    # An unknown code is taken for YCbCr by every decoder.
    (r"Unknown Adobe color transform code", lambda data, _: _rewritten(data, _APP14, b"Adobe", 11, b"\x01")),
    (r"unknown JFIF revision number", lambda data, _: _rewritten(data, _APP0, b"JFIF\0", 5, b"\x01")),
    (r"bad ICC marker", _colour_profile),
)
"""Words of a complaint → what mends it in a copy, ``None`` where it may be damage after all."""


def _begins(data: bytes, segment: _Segment, marker: int, name: bytes) -> bool:
    return segment.marker == marker and data.startswith(name, segment.start + 4)


def _rewritten(data: bytes, marker: int, name: bytes, at: int, value: bytes) -> bytes:
    """Another byte in each segment of that name, ``at`` bytes behind its length."""
    mended = bytearray(data)
    for segment in _segments(data):
        if _begins(data, segment, marker, name) and segment.end <= len(data):
            mended[segment.start + 4 + at : segment.start + 5 + at] = value
    return bytes(mended)


def _without(data: bytes, parts: list[tuple[int, int]]) -> bytes:
    starts = [0, *(end for _, end in parts)]
    ends = [*(start for start, _ in parts), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True))
