"""What files say of themselves is found where it stands, and nothing of it can do harm."""

from __future__ import annotations

import random
import zlib

import pytest

from retrieval_detect.images.provenance import read_provenance
from retrieval_detect.images.provenance.containers import MAX_BLOCK_BYTES, blocks_of
from retrieval_detect.images.provenance.words import MAX_CHARS, short, source_type
from retrieval_detect.types import Provenance
from tests.tagged import camera, chunk, packet, png_text, png_with, saved

FORMATS = ("JPEG", "PNG", "WEBP")
CAMERA = {"make": "Canon", "model": "Canon EOS R5", "date": "2024:05:01 10:00:00"}


def said(data):
    return [claim.says for claim in read_provenance(data).claims]


@pytest.mark.parametrize("format_", [*FORMATS, "BMP", "GIF", "TIFF", "AVIF"])
def test_a_bare_file_says_nothing(format_):
    assert read_provenance(saved(format_)) == Provenance()


@pytest.mark.parametrize("format_", FORMATS)
def test_the_camera_is_read_from_exif(format_):
    found = read_provenance(saved(format_, exif=camera()))
    assert found.exif == CAMERA
    (claim,) = found.claims
    assert (claim.kind, claim.says, claim.trusted) == ("exif", "camera: Canon EOS R5", False)
    assert "2024:05:01" in claim.detail and "easily forged" in claim.detail


def test_exif_of_a_tiff_file():
    assert read_provenance(saved("TIFF", exif=camera())).exif["model"] == "Canon EOS R5"


def test_people_and_places_are_kept_out():
    found = read_provenance(saved(exif=camera(gps=True)))
    assert found.exif == CAMERA | {"gps": True}
    assert "Jane" not in str(found) and "52" not in str(found)
    assert "a position is stored" in found.claims[0].detail


@pytest.mark.parametrize("format_", FORMATS)
def test_the_source_type_is_read_from_xmp(format_):
    given = {"xmp": packet()}
    data = png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet())) if format_ == "PNG" else ""
    found = read_provenance(data or saved(format_, **given))
    assert found.xmp["creator_tool"] == "Painter 3"
    assert said(data or saved(format_, **given)) == [
        "declares itself made by a generator",
        "program: Painter 3",
    ]


def test_a_property_may_be_an_element_a_list_or_a_link():
    inside = """
    <photoshop:Credit xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/">Made with <b/>AI</photoshop:Credit>
    <dcterms:provenance xmlns:dcterms="http://purl.org/dc/terms/">https://x.example/m</dcterms:provenance>
    <Iptc4xmpExt:AISystemUsed><rdf:Alt><rdf:li>Model 9</rdf:li></rdf:Alt></Iptc4xmpExt:AISystemUsed>"""
    found = read_provenance(saved(xmp=packet(inside=inside)))
    assert (found.xmp["credit"], found.xmp["ai_system"]) == ("Made with AI", "Model 9")
    assert "names a C2PA manifest at a web address, which was not asked for" in [c.says for c in found.claims]


@pytest.mark.parametrize(
    ("term", "name", "words"),
    [
        ("http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture", "digitalCapture", "digital camera"),
        (
            "compositeWithTrainedAlgorithmicMedia",
            "compositeWithTrainedAlgorithmicMedia",
            "parts are generated",
        ),
        ("http://example.org/other/", "other", "of the type 'other'"),
    ],
)
def test_source_types_in_words(term, name, words):
    assert source_type(term)[0] == name and words in source_type(term)[1]


def test_exif_behind_the_pixels_of_a_png_is_found():
    exif = camera().tobytes().removeprefix(b"Exif\0\0")
    assert read_provenance(png_with(chunk(b"eXIf", exif), behind=True)).exif == CAMERA


def test_text_is_one_short_line_of_valid_unicode():
    assert short("a\n b\t c") == "a b c" and short("x" * 999) == "x" * (MAX_CHARS - 1) + "…"
    short("a\ud800b").encode()


# ---------------------------------------------------------------- hostile


def bombs():
    grown = zlib.compress(b"a" * (50 << 20))
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    yield "packed text", png_with(chunk(b"zTXt", b"parameters\0\0" + grown)), "decompresses to more"
    yield "packed international", png_with(chunk(b"iTXt", b"k\0\1\0\0\0" + grown)), "decompresses to more"
    yield "broken text", png_with(chunk(b"zTXt", b"parameters\0\0nonsense")), "cannot be decompressed"
    yield "long text", png_with(chunk(b"tEXt", b"k\0" + bytes(MAX_BLOCK_BYTES + 1))), "the limit is"
    yield "entities", saved(xmp=packet().replace(b"<x:xmpmeta", entities.encode() + b"<x:xmpmeta", 1)), "XMP"
    yield "no xml", saved(xmp=b"<x"), "XMP"
    yield "no utf-8", saved(xmp=b"<x>\xff\xfe</x>"), "XMP"
    yield "long exif", png_with(chunk(b"eXIf", bytes(MAX_BLOCK_BYTES + 1))), "the limit is"
    yield "no exif", png_with(chunk(b"eXIf", b"nonsense")), "EXIF"


@pytest.mark.parametrize(("data", "words"), [pytest.param(d, w, id=name) for name, d, w in bombs()])
def test_what_cannot_be_read_is_named_and_nothing_is_raised(data, words):
    found = read_provenance(data)
    assert any(words in what for what in found.damaged)
    assert found.claims == ()


def test_texts_are_limited_in_number():
    many = [chunk(b"tEXt", b"k%d\0v" % i) for i in range(500)]
    assert len(blocks_of(png_with(*many)).texts) == 64


def test_the_first_of_two_packets_and_texts_counts():
    twice = png_with(chunk(b"tEXt", b"Software\0one"), chunk(b"tEXt", b"Software\0two"))
    assert blocks_of(twice).texts == {"Software": "one"}


@pytest.mark.parametrize(
    "start", [b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0", b"\0\0\0\0ftyp"]
)
def test_any_bytes_behind_a_signature_end_well(start):
    rng = random.Random(3)
    for length in (0, 1, 7, 300):
        for filler in (bytes(length), b"\xff" * length, rng.randbytes(length)):
            read_provenance(start + filler)


@pytest.mark.parametrize("format_", [*FORMATS, "TIFF"])
def test_flipped_and_cut_files_end_well(format_):
    rng = random.Random(4)
    given = {} if format_ in ("PNG", "TIFF") else {"xmp": packet()}
    whole = saved(format_, exif=camera(comment=b"UNICODE\0" + "héllo".encode("utf-16-be")), **given)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(4):
            data[rng.randrange(min(len(data), 700))] = rng.randrange(256)
        read_provenance(bytes(data))
        read_provenance(whole[: rng.randrange(len(whole))])


def test_a_file_that_ends_within_a_text_keeps_what_is_there():
    data = png_text(Software="NovelAI")
    assert blocks_of(data[: data.index(b"NovelAI") + 7]).texts == {"Software": "NovelAI"}
