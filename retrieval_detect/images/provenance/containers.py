"""Where files keep what they say of themselves: found by walking the container, no pixel is touched.

Every walk is bounded in steps and in bytes kept, and reads each length before it believes it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_BLOCK_BYTES = 1 << 20
"""Larger metadata are left unread: a whole ComfyUI workflow takes a tenth of it."""
_MAX_TEXTS = 64
_MAX_STEPS = 100_000

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\x00", b"MM\x00*")
_EXIF = b"Exif\x00\x00"
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_KEYWORD = "XML:com.adobe.xmp"
_C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")

Chunk: TypeAlias = tuple[bytes, bytes]
"""Type and content of one part of a container."""


@dataclass(slots=True)
class Blocks:
    """Metadata as they stand in a file.

    ``exif`` : a TIFF structure. ``xmp`` : an XML packet. ``texts`` : keyword → text. ``c2pa`` : whether there
    is a manifest store. ``damaged`` : what could not be taken out.
    """

    exif: bytes = b""
    xmp: bytes = b""
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
            self.texts.setdefault(keyword, text)


def blocks_of(data: bytes) -> Blocks:
    """The metadata of a JPEG, PNG, WebP, TIFF or AVIF file; of any other, none."""
    blocks = Blocks()
    if data.startswith(b"\xff\xd8"):
        _read_all(_jpeg_segments(data), _JPEG, blocks)
    elif data.startswith(_PNG):
        _read_all(_png_chunks(data), _PNG_CHUNKS, blocks)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _read_all(_riff_chunks(data), _WEBP, blocks)
    elif data.startswith(_TIFF):
        blocks.exif = data
    elif data[4:8] == b"ftyp":
        _read_all(_boxes(data), _BMFF, blocks)
    return blocks


def _read_all(
    chunks: Iterator[Chunk], readers: Mapping[bytes, Callable[[bytes, Blocks], None]], blocks: Blocks
) -> None:
    for kind, content in chunks:
        if kind in readers:
            readers[kind](content, blocks)


# ---------------------------------------------------------------- walks


def _jpeg_segments(data: bytes) -> Iterator[Chunk]:
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


def _png_chunks(data: bytes) -> Iterator[Chunk]:
    at = len(_PNG)
    for _ in range(_MAX_STEPS):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        length = int.from_bytes(data[at : at + 4], "big")
        if kind in _PNG_CHUNKS:
            yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def _riff_chunks(data: bytes) -> Iterator[Chunk]:
    at = 12
    for _ in range(_MAX_STEPS):
        kind = data[at : at + 4]
        if len(kind) < 4:
            return
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in _WEBP:
            yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _boxes(data: bytes) -> Iterator[Chunk]:
    """Top-level boxes of an ISO base media file; their content only as far as it names what it is."""
    at = 0
    for _ in range(_MAX_STEPS):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4:
            return
        length = int.from_bytes(data[at : at + 4], "big")
        start = at + 8
        if length == 1:  # a length of 64 bits follows
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        yield kind, data[start : start + 16]
        if length < start - at:
            return
        at += length


# ---------------------------------------------------------------- parts


def _jpeg_app1(content: bytes, blocks: Blocks) -> None:
    if content.startswith(_EXIF) and not blocks.exif:
        blocks.exif = content[len(_EXIF) :]
    elif content.startswith(_XMP) and not blocks.xmp:
        blocks.xmp = content[len(_XMP) :]


def _jpeg_app11(content: bytes, blocks: Blocks) -> None:
    """A JUMBF box (ISO 19566-5) begins after two numbers; its description names what it holds."""
    blocks.c2pa = blocks.c2pa or (content.startswith(b"JP") and content[24:28] == b"c2pa")


def _jpeg_comment(content: bytes, blocks: Blocks) -> None:
    blocks.add_text("comment", content.decode("utf-8", "replace"))


def _exif_chunk(content: bytes, blocks: Blocks) -> None:
    blocks.exif = blocks.exif or blocks.keep("EXIF", content.removeprefix(_EXIF))


def _xmp_chunk(content: bytes, blocks: Blocks) -> None:
    blocks.xmp = blocks.xmp or blocks.keep("XMP", content)


def _c2pa_chunk(_content: bytes, blocks: Blocks) -> None:
    blocks.c2pa = True


def _uuid_box(content: bytes, blocks: Blocks) -> None:
    blocks.c2pa = blocks.c2pa or content == _C2PA_BOX


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
    if text:
        blocks.add_text(keyword[:79].decode("latin-1"), text.decode(encoding, "replace"))


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


_JPEG = {b"\xe1": _jpeg_app1, b"\xeb": _jpeg_app11, b"\xfe": _jpeg_comment}
_PNG_CHUNKS = {
    b"tEXt": _text_chunk,
    b"zTXt": _compressed_chunk,
    b"iTXt": _international_chunk,
    b"eXIf": _exif_chunk,
    b"caBX": _c2pa_chunk,
}
_WEBP = {b"EXIF": _exif_chunk, b"XMP ": _xmp_chunk, b"C2PA": _c2pa_chunk}
_BMFF = {b"uuid": _uuid_box}
