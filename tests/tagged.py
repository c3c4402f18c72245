"""Files that say something of themselves: one picture, many tags."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import ExifTags, Image, PngImagePlugin

from tests.scenes import picture

_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes, behind: bool = False) -> bytes:
    """A PNG with chunks before, or behind, its pixels."""
    data = saved("PNG")
    at = data.index(b"IEND") - 4 if behind else 33
    return data[:at] + b"".join(chunks) + data[at:]


def png_text(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword.replace("_", "-") if keyword == "sd_metadata" else keyword, text)
    return saved("PNG", pnginfo=info)


def camera(*, gps: bool = False, comment: bytes = b"") -> Image.Exif:
    """The EXIF of a camera."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "Canon EOS R5"
    exif[ExifTags.Base.Artist] = "Jane Doe"
    more = exif.get_ifd(ExifTags.IFD.Exif)
    more[ExifTags.Base.DateTimeOriginal] = "2024:05:01 10:00:00"
    if comment:
        more[ExifTags.Base.UserComment] = comment
    if gps:
        exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    return exif


def packet(*, type_: str = "trainedAlgorithmicMedia", inside: str = "") -> bytes:
    """An XMP packet with a DigitalSourceType."""
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="Painter 3"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="{_TYPES}{type_}">{inside}</rdf:Description>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()


def saved(format_: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    picture(64, 48).save(file, format_, **options)
    return file.getvalue()
