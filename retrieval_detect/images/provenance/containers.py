"""Where files keep what they say of themselves: found by walking the container, no pixel is touched.

Every format that is judged is walked to its end. What is kept is bounded.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from retrieval_detect.images.provenance.walks import (
    CODESTREAM,
    PNG,
    Chunk,
    TooManyParts,
    boxes,
    codestream_segments,
    gif_extensions,
    joined,
    jpeg_segments,
    png_chunks,
    riff_chunks,
)

MAX_BLOCK_BYTES = 1 << 20
"""Larger metadata are left unread: a whole ComfyUI workflow takes a tenth of it."""
_MAX_TEXTS = 64

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
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
    blocks = Blocks()
    if data.startswith(b"\xff\xd8"):
        _read_all(jpeg_segments(data), _JPEG, blocks)
    elif data.startswith(PNG):
        _read_all(png_chunks(data, _PNG_CHUNKS), _PNG_CHUNKS, blocks)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _read_all(riff_chunks(data, _WEBP), _WEBP, blocks)
    elif data.startswith(_TIFF):
        blocks.exif = data
    elif data[4:8] == b"ftyp":
        _read_all(boxes(data, (b"uuid", b"jumb")), _BMFF, blocks)
        _avif_items(data, blocks)
    elif data.startswith(b"GIF8"):
        _read_all(gif_extensions(data), _GIF, blocks)
    elif data.startswith((_JP2, CODESTREAM)):
        _read_all(boxes(data, (b"uuid", b"jumb")), _JP2_BOXES, blocks)
        _read_all(codestream_segments(data), _CODESTREAM_SEGMENTS, blocks)
    return blocks


def _read_all(
    chunks: Iterator[Chunk], readers: Mapping[bytes, Callable[[bytes, Blocks], None]], blocks: Blocks
) -> None:
    try:
        for kind, content in chunks:
            if kind in readers:
                readers[kind](content, blocks)
    except TooManyParts:
        blocks.damaged.append("the file: it has too many parts to look through")


# ---------------------------------------------------------------- parts


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
        _xmp_chunk(packet if trailer else joined(content[12:]), blocks)


def _gif_comment(content: bytes, blocks: Blocks) -> None:
    blocks.add_text("comment", blocks.keep("text", joined(content)).decode("utf-8", "replace"))


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
_PNG_CHUNKS = {
    b"tEXt": _text_chunk,
    b"zTXt": _compressed_chunk,
    b"iTXt": _international_chunk,
    b"eXIf": _exif_chunk,
    b"caBX": _c2pa_chunk,
}
_WEBP = {b"EXIF": _exif_chunk, b"XMP ": _xmp_chunk, b"C2PA": _c2pa_chunk}
_BMFF = {b"uuid": _uuid_box}
_JP2_BOXES = {b"uuid": _uuid_box, b"jumb": _jumb_box}
_CODESTREAM_SEGMENTS = {b"\xff\x64": _codestream_comment}
_GIF = {b"\xff": _gif_program, b"\xfe": _gif_comment}
