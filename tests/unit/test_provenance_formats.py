"""Whatever a format can carry is looked for in it: "none found" is said of no file that says something."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from retrieval_detect.images.decode import decode
from retrieval_detect.images.formats import FORMATS
from retrieval_detect.images.provenance import read_provenance
from retrieval_detect.images.provenance.containers import MAX_BLOCK_BYTES
from retrieval_detect.types import Provenance
from tests.tagged import camera, chunk, packet, png_with, saved

EXIF = camera().tobytes().removeprefix(b"Exif\0\0")
IPTC_XMP, IPTC_EXIF = "be7acfcb97a942e89c71999491e3afac", b"JpgTiffExif->JP2".hex()
SETTINGS = "a cat\nSteps: 20, Sampler: Euler, Seed: 42, Model: dream_8"
TRAILER = b"\1" + bytes(range(255, -1, -1)) + b"\0"


def box(kind, content):
    return struct.pack(">I", 8 + len(content)) + kind + content


def jp2_with(*boxes, last=False):
    data = saved("JPEG2000")
    at = data.index(b"jp2c") - 4
    return data + b"".join(boxes) if last else data[:at] + b"".join(boxes) + data[at:]


def uuid(kind, content):
    return box(b"uuid", bytes.fromhex(kind) + content)


def gif_with(*extensions, behind=False):
    data = saved("GIF")
    at = len(data) - 1 if behind else 13 + (6 << (data[10] & 7))
    return data[:at] + b"".join(extensions) + data[at:]


def sub_blocks(content):
    parts = [content[i : i + 255] for i in range(0, len(content), 255)]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


GIF_XMP = b"!\xff\x0bXMP DataXMP" + packet() + TRAILER


def tiff_with(*, big=False, **tags):
    info = ImageFileDirectory_v2()
    for number, (value, kind) in tags.items():
        info[int(number[1:])] = value
        info.tagtype[int(number[1:])] = kind
    return saved("TIFF", tiffinfo=info, big_tiff=big)


TIFF_CAMERA = {"t271": ("Canon", 2), "t272": ("Canon EOS R5", 2)}


def raw_profile(kind, content, *, packed=False, length=None):
    digits = content.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    text = f"\n{kind}\n{len(content) if length is None else length:8}\n{lines}\n".encode()
    name = f"Raw profile type {kind}".encode()
    return (
        chunk(b"zTXt", name + b"\0\0" + zlib.compress(text))
        if packed
        else chunk(b"tEXt", name + b"\0" + text)
    )


XMP_APP1 = b"http://ns.adobe.com/xap/1.0/\0"
DECLARES = {
    "AVIF": saved("AVIF", xmp=packet()),
    "GIF": gif_with(GIF_XMP),
    "GIF, behind the pixels": gif_with(GIF_XMP, behind=True),
    "GIF, in sub-blocks": gif_with(b"!\xff\x0bXMP DataXMP" + sub_blocks(packet())),
    "JPEG": saved("JPEG", xmp=packet()),
    "JPEG2000": jp2_with(uuid(IPTC_XMP, packet())),
    "JPEG2000, at its end": jp2_with(uuid(IPTC_XMP, packet()), last=True),
    "PNG": png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet())),
    "PNG by ImageMagick": png_with(raw_profile("xmp", packet(), packed=True)),
    "PNG by ImageMagick, plain": png_with(raw_profile("xmp", packet())),
    "PNG by older ImageMagick": png_with(raw_profile("APP1", XMP_APP1 + packet(), packed=True)),
    "PNG by ImageMagick, behind the pixels": png_with(raw_profile("xmp", packet()), behind=True),
    "TIFF": tiff_with(t700=(packet(), 7)),
    "TIFF, as bytes": tiff_with(t700=(packet(), 1)),
    "BigTIFF": tiff_with(big=True, t700=(packet(), 7)),
    "WEBP": saved("WEBP", xmp=packet()),
    "in UTF-16": saved("JPEG", xmp=packet().decode().encode("utf-16")),
}
CAMERAS = {
    "AVIF": saved("AVIF", exif=camera()),
    "JPEG": saved("JPEG", exif=camera()),
    "JPEG2000": jp2_with(uuid(IPTC_EXIF, EXIF)),
    "JPEG2000 with a prefix": jp2_with(uuid(IPTC_EXIF, b"Exif\0\0" + EXIF)),
    "PNG": saved("PNG", exif=camera()),
    "PNG by ImageMagick": png_with(raw_profile("exif", b"Exif\0\0" + EXIF, packed=True)),
    "PNG by older ImageMagick": png_with(raw_profile("APP1", b"Exif\0\0" + EXIF)),
    "TIFF": tiff_with(**TIFF_CAMERA),
    "BigTIFF": tiff_with(big=True, **TIFF_CAMERA),
    "WEBP": saved("WEBP", exif=camera()),
}
CARRIES_NONE = {"BMP"}


def test_every_format_that_is_read_is_looked_through():
    assert {name for name in FORMATS if name in DECLARES} | CARRIES_NONE == set(FORMATS)
    assert {name for name in FORMATS if name in CAMERAS} | CARRIES_NONE | {"GIF"} == set(FORMATS)


@pytest.mark.parametrize("data", DECLARES.values(), ids=DECLARES)
def test_a_declaration_is_found(data):
    decode(data)
    found = read_provenance(data)
    assert found.damaged == () and "declares itself made by a generator" in [c.says for c in found.claims]


@pytest.mark.parametrize("data", CAMERAS.values(), ids=CAMERAS)
def test_a_camera_is_found(data):
    decode(data)
    found = read_provenance(data)
    assert found.damaged == () and "camera: Canon EOS R5" in [claim.says for claim in found.claims]


TEXTS = {
    "GIF": gif_with(b"!\xfe" + sub_blocks(SETTINGS.encode())),
    "GIF, behind the pixels": gif_with(b"!\xfe" + sub_blocks(SETTINGS.encode()), behind=True),
    "JPEG2000": saved("JPEG2000", comment=SETTINGS),
    "JPEG2000 without boxes": saved("JPEG2000", comment=SETTINGS, no_jp2=True),
    "JPEG": saved("JPEG", comment=SETTINGS),
    "a mark before it": saved("JPEG", comment="\ufeff" + SETTINGS),
    "AVIF": saved("AVIF", exif=camera(comment=b"ASCII\0\0\0" + SETTINGS.encode())),
    "BigTIFF": tiff_with(big=True, t270=(SETTINGS, 2)),
}


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_settings_are_found(data):
    decode(data)
    assert read_provenance(data).text["model"] == "dream_8"


C2PA = {
    "GIF": gif_with(b"!\xff\x0bC2PA_GIF\1\0\0" + sub_blocks(b"nonsense")),
    "JPEG2000": jp2_with(box(b"jumb", struct.pack(">I", 25) + b"jumdc2pa" + bytes(13))),
    "TIFF": tiff_with(t52545=(b"nonsense", 7)),
}


@pytest.mark.parametrize("data", C2PA.values(), ids=C2PA)
def test_a_manifest_is_seen_wherever_it_stands(data):
    decode(data)
    found = read_provenance(data)
    assert found.c2pa["state"] in ("damaged", "not read", "Invalid")
    assert [claim.kind for claim in found.claims][:1] == ["c2pa"]


# ---------------------------------------------------------------- IPTC


def dataset(number, value, record=2):
    return bytes([0x1C, record, number]) + struct.pack(">H", len(value)) + value


def resource(content, number=0x0404, name=b""):
    named = bytes([len(name)]) + name
    padded = content + bytes(len(content) % 2)
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + named
        + bytes(len(named) % 2)
        + struct.pack(">I", len(content))
        + padded
    )


RECORDS = (
    dataset(90, b"\x1b%G", 1) + dataset(65, b"Painter") + dataset(70, b"3") + dataset(110, "Märchen".encode())
)
SEVERAL = resource(b"abc", 0x03ED, b"name") + resource(RECORDS) + resource(b"", 0x0425)


def jpeg_with(marker, content):
    data = saved("JPEG")
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]


RECORDED = {
    "JPEG": jpeg_with(0xED, b"Photoshop 3.0\0" + SEVERAL),
    "JPEG2000": jp2_with(uuid("33c7a4d2b81d4723a0baf1a3e097ad38", RECORDS)),
    "PNG by ImageMagick": png_with(raw_profile("iptc", resource(RECORDS), packed=True)),
    "PNG with bare records": png_with(raw_profile("iptc", RECORDS + bytes(3))),
    "TIFF": tiff_with(t33723=(RECORDS, 7)),
    "TIFF by Photoshop": tiff_with(t34377=(SEVERAL, 7)),
}


@pytest.mark.parametrize("data", RECORDED.values(), ids=RECORDED)
def test_older_records_of_iptc_are_read(data):
    found = read_provenance(data)
    assert found.iptc == {"program": "Painter", "version": "3", "credit": "Märchen"} and found.damaged == ()
    assert [(c.kind, c.says) for c in found.claims] == [
        ("iptc", "program: Painter 3"),
        ("iptc", "credit: Märchen"),
    ]


def test_people_in_records_are_kept_out():
    found = read_provenance(jpeg_with(0xED, b"Photoshop 3.0\0" + resource(dataset(80, b"Jane Doe"))))
    assert found == Provenance()


# ---------------------------------------------------------------- hostile

BROKEN = {
    "a profile shorter than it says": png_with(raw_profile("xmp", packet(), length=9999)),
    "a profile longer than it says": png_with(raw_profile("exif", EXIF, length=4)),
    "a profile that is no hexadecimal": png_with(chunk(b"tEXt", b"Raw profile type xmp\0\nxmp\n2\nzz\n")),
    "a profile without a length": png_with(chunk(b"tEXt", b"Raw profile type APP1\0\n")),
    "a profile of letters": png_with(chunk(b"tEXt", b"Raw profile type iptc\0\niptc\n1\n\xe9\xe9")),
    "a profile that is too large": png_with(raw_profile("xmp", bytes(MAX_BLOCK_BYTES), packed=True)),
    "records that break off": jpeg_with(0xED, b"Photoshop 3.0\0" + resource(RECORDS[:-3])),
    "records that are none": png_with(raw_profile("iptc", b"\x1d\2\x50\0\1a")),
    "an AVIF without its items": saved("AVIF")[:200],
    "a GIF of too many parts": saved("GIF")[:-1] + b"!\xfe" + b"\1a" * 1_100_000 + b"\0;",
    "a JPEG of too many parts": b"\xff\xd8" + b"\xff\xe5\0\2" * 110_000,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_named(data):
    found = read_provenance(data)
    assert found.claims == () and len(found.damaged) == 1


def test_an_empty_packet_is_none():
    assert read_provenance(gif_with(b"!\xfe\0")) == Provenance()
    assert read_provenance(jp2_with(uuid(IPTC_XMP, b""), uuid("00" * 16, packet()))) == Provenance()


SOURCES = {
    "AVIF": DECLARES["AVIF"],
    "GIF": DECLARES["GIF"],
    "JPEG2000": CAMERAS["JPEG2000"],
    "TIFF": CAMERAS["BigTIFF"],
}


@pytest.mark.parametrize("whole", SOURCES.values(), ids=SOURCES)
def test_flipped_and_cut_files_end_well(whole):
    rng = random.Random(5)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(4):
            data[rng.randrange(len(data))] = rng.randrange(256)
        read_provenance(bytes(data))
        read_provenance(whole[: rng.randrange(len(whole))])


@pytest.mark.parametrize(
    "start", [b"GIF89a", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"II+\0", b"MM\0+"]
)
def test_any_bytes_behind_a_signature_end_well(start):
    rng = random.Random(6)
    for length in (0, 1, 7, 300, 3_000_000):
        for filler in (bytes(length), b"\xff" * length, b"\1" * length, b"!" * length, rng.randbytes(length)):
            read_provenance(start + filler)
