"""Where files keep what they say of themselves: found by walking the container, no pixel is touched.

Every format that is judged is walked to its end, in a bounded number of steps, and each length is read before
it is believed. What is kept is bounded, too.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from retrieval_detect.images.formats import sniffed

MAX_BLOCK_BYTES = 1 << 20
"""Larger metadata are left unread: a whole ComfyUI workflow takes a tenth of it."""
_MAX_TEXTS = 64
_MAX_STEPS = 100_000
_SUB_BLOCKS = 1_000_000
"""Of a GIF: a quarter of a gigabyte, if they are full."""

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_CODESTREAM = b"\xff\x4f\xff\x51"
_EXIF = b"Exif\x00\x00"
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_PHOTOSHOP = b"Photoshop 3.0\x00"
_XMP_KEYWORD = "XML:com.adobe.xmp"
_RAW_PROFILE = "raw profile type "
_C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_IPTC_BOX = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_EXIF_BOX = b"JpgTiffExif->JP2"
_XMP_TRAILER = b"\x01" + bytes(range(255, -1, -1))


@dataclass(slots=True)
class Blocks:
    """Metadata as they stand in a file.

    ``exif`` : a TIFF structure, which may be the whole file. ``xmp`` : an XML packet. ``iptc`` : records of
    IPTC's Information Interchange Model, or Photoshop's resources with such within. ``texts`` : keyword →
    text. ``c2pa`` : whether there is a manifest store. ``damaged`` : what could not be taken out.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    texts: dict[str, str] = field(default_factory=dict)
    c2pa: bool = False
    damaged: list[str] = field(default_factory=list)

    def keep(self, name: str, content: bytes) -> bytes:
        """``content``, or nothing and a note where it is too large."""
        if len(content) <= MAX_BLOCK_BYTES:
            return content
        self.damaged.append(f"{name}: {len(content):,} bytes, the limit is {MAX_BLOCK_BYTES:,}")
        return b""

    def add_text(self, keyword: str, text: str) -> None:
        """Keep a text, the first of its keyword."""
        if len(self.texts) < _MAX_TEXTS:
            self.texts.setdefault(keyword, text.removeprefix("\ufeff"))


def blocks_of(data: bytes) -> Blocks:
    """The metadata of a file; of BMP, which has no place for any, and of what is no image, none."""
    blocks, kind = Blocks(), sniffed(data)
    if data.startswith(_TIFF):
        blocks.exif = data
    elif kind == "JPEG":
        _read_all(data, 2, _jpeg_segment, _JPEG, blocks)
    elif kind == "PNG":
        _read_all(data, 8, _png_chunk, _PNG, blocks)
    elif kind == "WEBP":
        _read_all(data, 12, _riff_chunk, _WEBP, blocks)
    elif kind == "GIF":
        extension = partial(_gif_extension, budget=iter(range(_SUB_BLOCKS)))
        _read_all(data, 13 + _gif_table(data[10:11]), extension, _GIF, blocks)
    elif kind in ("AVIF", "HEIF"):
        _read_all(data, 0, _box, _BMFF, blocks)
        _avif_items(data, blocks)
    elif kind == "JPEG2000":
        _read_all(data, 0, _box, _JP2, blocks)
        if (at := data.find(_CODESTREAM)) >= 0:
            _read_all(data, at + 2, _codestream_segment, _J2K, blocks)
    return blocks


# ---------------------------------------------------------------- walking: a part, and where the next begins

_Part: TypeAlias = "tuple[bytes, int, int, int] | None"
"""Kind, begin and end of what a part holds, and where the next part begins; ``None`` where the walk ends."""


class _TooManyParts(Exception):
    """A walk was given up."""


def _read_all(
    data: bytes,
    at: int,
    part: Callable[[bytes, int], _Part],
    readers: Mapping[bytes, Callable[[bytes, Blocks], None]],
    blocks: Blocks,
) -> None:
    try:
        for _ in range(_MAX_STEPS):
            if (found := part(data, at)) is None:
                return
            kind, begin, end, at = found
            if kind in readers:
                readers[kind](data[begin:end], blocks)
        raise _TooManyParts
    except _TooManyParts:
        blocks.damaged.append("the file: it has too many parts to look through")


def _number(data: bytes, at: int, n_bytes: int) -> int:
    return int.from_bytes(data[at : at + n_bytes], "big")


def _jpeg_segment(data: bytes, at: int) -> _Part:
    """Up to the first scan: whatever comes later is pixels."""
    if data[at : at + 1] != b"\xff" or at + 4 > len(data):
        return None
    marker, length = data[at + 1 : at + 2], _number(data, at + 2, 2)
    if marker == b"\xff":  # padding
        return b"", at, at, at + 1
    if marker in (b"\xd9", b"\xda") or length < 2:
        return None
    return marker, at + 4, at + 2 + length, at + 2 + length


def _png_chunk(data: bytes, at: int) -> _Part:
    kind, end = data[at + 4 : at + 8], at + 8 + _number(data, at, 4)
    return None if len(kind) < 4 or kind == b"IEND" else (kind, at + 8, end, end + 4)


def _riff_chunk(data: bytes, at: int) -> _Part:
    kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
    end = at + 8 + length
    return None if len(kind) < 4 else (kind, at + 8, end, end + length % 2)


def _box(data: bytes, at: int) -> _Part:
    """At the top level of an ISO base media or JPEG 2000 file."""
    kind, length, begin = data[at + 4 : at + 8], _number(data, at, 4), at + 8
    if length == 0:  # to the end of the file
        length = len(data) - at
    elif length == 1:  # a length of 64 bits follows
        length, begin = _number(data, begin, 8), begin + 8
    return None if len(kind) < 4 or length < begin - at else (kind, begin, at + length, at + length)


def _gif_extension(data: bytes, at: int, *, budget: Iterator[int]) -> _Part:
    """By its label; those of programs begin with the program's name, of eleven bytes."""
    kind = data[at : at + 1]
    if kind == b"!":
        end = _behind_sub_blocks(data, at + 2, budget)
        return data[at + 1 : at + 2], at + 2, end, end
    if kind == b",":
        end = _behind_sub_blocks(data, at + 11 + _gif_table(data[at + 9 : at + 10]), budget)
        return b"", at, at, end
    return None


def _gif_table(flags: bytes) -> int:
    """Bytes of a table of colours."""
    return 6 << (flags[0] & 7) if flags and flags[0] & 0x80 else 0


def _behind_sub_blocks(data: bytes, at: int, budget: Iterator[int]) -> int:
    for _ in budget:
        if at >= len(data) or not data[at]:
            return at + 1
        at += 1 + data[at]
    raise _TooManyParts


def _joined(sub_blocks: bytes) -> bytes:
    """The content of sub-blocks, each of which begins with its length."""
    parts, at = [], 0
    while at < len(sub_blocks) and sub_blocks[at]:
        parts.append(sub_blocks[at + 1 : at + 1 + sub_blocks[at]])
        at += 1 + sub_blocks[at]
    return b"".join(parts)


def _codestream_segment(data: bytes, at: int) -> _Part:
    """Of JPEG 2000, in the main header."""
    marker, length = data[at : at + 2], _number(data, at + 2, 2)
    if marker[:1] != b"\xff" or marker == b"\xff\x90" or length < 2:
        return None
    return marker, at + 4, at + 2 + length, at + 2 + length


# ---------------------------------------------------------------- what parts hold


def _jpeg_app1(content: bytes, blocks: Blocks) -> None:
    if content.startswith(_EXIF) and not blocks.exif:
        blocks.exif = content[len(_EXIF) :]
    elif content.startswith(_XMP) and not blocks.xmp:
        blocks.xmp = content[len(_XMP) :]


def _jpeg_app11(content: bytes, blocks: Blocks) -> None:
    """A JUMBF box (ISO 19566-5) begins after two numbers; its description names what it holds."""
    blocks.c2pa = blocks.c2pa or (content.startswith(b"JP") and content[24:28] == b"c2pa")


def _jpeg_app13(content: bytes, blocks: Blocks) -> None:
    if content.startswith(_PHOTOSHOP):
        blocks.iptc = blocks.iptc or content[len(_PHOTOSHOP) :]


def _jpeg_comment(content: bytes, blocks: Blocks) -> None:
    blocks.add_text("comment", content.decode("utf-8", "replace"))


def _exif_chunk(content: bytes, blocks: Blocks) -> None:
    blocks.exif = blocks.exif or blocks.keep("EXIF", content.removeprefix(_EXIF))


def _xmp_chunk(content: bytes, blocks: Blocks) -> None:
    blocks.xmp = blocks.xmp or blocks.keep("XMP", content)


def _c2pa_chunk(_content: bytes, blocks: Blocks) -> None:
    blocks.c2pa = True


def _uuid_box(content: bytes, blocks: Blocks) -> None:
    kind, content = content[:16], content[16:]
    blocks.c2pa = blocks.c2pa or kind == _C2PA_BOX
    if kind == _XMP_BOX:
        _xmp_chunk(content, blocks)
    elif kind == _EXIF_BOX:
        _exif_chunk(content, blocks)
    elif kind == _IPTC_BOX:
        blocks.iptc = blocks.iptc or blocks.keep("IPTC", content)


def _jumb_box(content: bytes, blocks: Blocks) -> None:
    blocks.c2pa = blocks.c2pa or content[8:12] == b"c2pa"


def _avif_items(data: bytes, blocks: Blocks) -> None:
    """Items of an AVIF file lie wherever its tables say: libavif reads those, and no pixel yet."""
    from PIL.AvifImagePlugin import AvifImageFile

    try:
        info = AvifImageFile(io.BytesIO(data)).info
    except Exception:  # noqa: BLE001 - hostile bytes make decoders raise anything
        blocks.damaged.append("AVIF: its items cannot be read")
        return
    _exif_chunk(info.get("exif", b""), blocks)
    _xmp_chunk(info.get("xmp", b""), blocks)


def _gif_program(content: bytes, blocks: Blocks) -> None:
    """XMP stands in a GIF as it is, and ends in bytes that lead any reader of sub-blocks out of it."""
    name = content[1:12]
    blocks.c2pa = blocks.c2pa or name.startswith(b"C2PA_GIF")
    if name == b"XMP DataXMP":
        packet, trailer, _ = content[12:].rpartition(_XMP_TRAILER)
        _xmp_chunk(packet if trailer else _joined(content[12:]), blocks)


def _gif_comment(content: bytes, blocks: Blocks) -> None:
    blocks.add_text("comment", blocks.keep("text", _joined(content)).decode("utf-8", "replace"))


def _codestream_comment(content: bytes, blocks: Blocks) -> None:
    if content[:2] == b"\0\1":  # text; other comments are anything
        blocks.add_text("comment", content[2:].decode("latin-1"))


def _text_chunk(content: bytes, blocks: Blocks) -> None:
    keyword, _, text = content.partition(b"\0")
    _keep_text(keyword, blocks.keep("text", text), blocks, "latin-1")


def _compressed_chunk(content: bytes, blocks: Blocks) -> None:
    keyword, _, packed = content.partition(b"\0")
    _keep_text(keyword, _inflated(packed[1:], blocks), blocks, "latin-1")


def _international_chunk(content: bytes, blocks: Blocks) -> None:
    keyword, _, rest = content.partition(b"\0")
    compressed, (_language, _, rest) = rest[:1] == b"\x01", rest[2:].partition(b"\0")
    _translated, _, text = rest.partition(b"\0")
    text = _inflated(text, blocks) if compressed else blocks.keep("text", text)
    if keyword.decode("latin-1") == _XMP_KEYWORD:
        blocks.xmp = blocks.xmp or text
    else:
        _keep_text(keyword, text, blocks, "utf-8")


def _keep_text(keyword: bytes, text: bytes, blocks: Blocks, encoding: str) -> None:
    name = keyword[:79].decode("latin-1")
    if text and name.lower().startswith(_RAW_PROFILE):
        _raw_profile(name, text, blocks)
    elif text:
        blocks.add_text(name, text.decode(encoding, "replace"))


def _raw_profile(name: str, text: bytes, blocks: Blocks) -> None:
    """What ImageMagick writes where a PNG has no place for it: a name, a length, and bytes in hexadecimal."""
    kind = name.lower().removeprefix(_RAW_PROFILE)
    if kind not in ("exif", "app1", "xmp", "iptc", "8bim"):
        return
    try:
        _, length, digits = text.split(maxsplit=2)
        content = bytes.fromhex(digits.decode("ascii"))
        whole = len(content) == int(length)
    except ValueError:
        whole = False
    if not whole:
        blocks.damaged.append(f"{name}: it cannot be read")
    elif kind in ("iptc", "8bim"):
        blocks.iptc = blocks.iptc or content
    elif kind == "xmp" or content.startswith(_XMP):
        blocks.xmp = blocks.xmp or content.removeprefix(_XMP)
    else:
        blocks.exif = blocks.exif or content.removeprefix(_EXIF)


def _inflated(packed: bytes, blocks: Blocks) -> bytes:
    """At most as much as is kept of anything, however much a few bytes promise to become."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(packed, MAX_BLOCK_BYTES)
    except zlib.error:
        blocks.damaged.append("text: it cannot be decompressed")
        return b""
    if inflater.unconsumed_tail:
        blocks.damaged.append(f"text: it decompresses to more than {MAX_BLOCK_BYTES:,} bytes")
        return b""
    return text


_JPEG = {b"\xe1": _jpeg_app1, b"\xeb": _jpeg_app11, b"\xed": _jpeg_app13, b"\xfe": _jpeg_comment}
_PNG = {
    b"tEXt": _text_chunk,
    b"zTXt": _compressed_chunk,
    b"iTXt": _international_chunk,
    b"eXIf": _exif_chunk,
    b"caBX": _c2pa_chunk,
}
_WEBP = {b"EXIF": _exif_chunk, b"XMP ": _xmp_chunk, b"C2PA": _c2pa_chunk}
_BMFF = {b"uuid": _uuid_box}
_JP2 = {b"uuid": _uuid_box, b"jumb": _jumb_box}
_J2K = {b"\xff\x64": _codestream_comment}
_GIF = {b"\xff": _gif_program, b"\xfe": _gif_comment}
