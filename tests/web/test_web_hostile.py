"""Hostile files: a clean 4xx each, and a decoder that dies takes nothing along."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.errors import ImageError
from retrieval_detect.web.decoding import DIED, TOO_SLOW, Decoders
from tests.copies import saved as encoded
from tests.scenes import picture
from tests.serving import SETTINGS, client, form, pictures

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height, *rest, depth=8, colour=2):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(rest)


def bombs():
    """Small files that promise, or unpack to, far more than they are."""
    flood = zlib.compress(bytes(40_000_000), 9)
    yield from (png_of(side, side, chunk(b"IDAT", flood)) for side in (9_000, 30_000, 2**31 - 1))
    yield from (png_of(w, h) for w, h in ((2**31 - 1, 1), (1, 2**31 - 1), (0, 0), (16, 0), (100_000, 640)))
    yield png_of(64, 64, chunk(b"zTXt", b"a\0\0" + flood), chunk(b"IDAT", b""))
    yield png_of(64, 64, chunk(b"iCCP", b"a\0\0" + flood), chunk(b"IDAT", b""))
    yield b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0\0\0" + b"," * 100
    yield b"BM" + struct.pack("<IIIIiiHHI", 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0)
    for side in (20_000, 65_535):
        yield b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", side, side) + b"\x03\1\x22\0\2\x11\1\3\x11\1"
    yield b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 60_000) + bytes(3000)


def disguised():
    """Other things under an image's name, and two things in one file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1_000_000))
    packed = stream.getvalue()
    script = b"<script>alert(1)</script>"
    yield from (packed, b"%PDF-1.7\n" + packed, b"\x7fELF" + bytes(500), b"MZ" + bytes(500))
    yield b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><image href='file:///etc/passwd'/></svg>"
    yield b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><svg>&b;</svg>"
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run"
    yield b"push graphic-context\nviewbox 0 0 9 9\nimage over 0,0 0,0 'https://example.org/x.png'"
    yield from (b"\xff\xd8\xff" + script * 20, b"GIF89a" + script * 20, b"\x89PNG\r\n\x1a\n" + packed)
    yield from (b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WEBP" + script, b"BM" + script)
    yield from (
        b"8BPS\0\1" + bytes(200),
        b"\0\0\1\0\1\0" + bytes(200),
        b"P6 99999 99999 255 ",
        b"DDS " + bytes(200),
    )
    yield from (b"", b"\0", b"\xff" * 5000, b"\x89PNG\r\n\x1a\n", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def headers():
    """Valid beginnings with absurd fields."""
    yield b"\xff\xd8" + b"".join(b"\xff\xe1\xff\xff" + bytes(65_533) for _ in range(40))
    yield b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0" + b"\xff" * 3000
    yield png_of(64, 64, struct.pack(">I", 2**31 - 1) + b"tEXt" + b"a" * 100)
    yield png_of(64, 64, *[chunk(b"tEXt", b"k%d\0" % i + b"v" * 500) for i in range(3000)])
    yield b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I", 2**32 - 1) + b"jp2h" + b"\xff" * 300
    yield b"\0\0\0\x1cftypavif" + b"\xff" * 600


def damaged():
    """Every format cut short, overwritten and flipped."""
    for kind in FORMATS:
        data = encoded(picture(160, 120), kind)
        yield from (data[: int(len(data) * share)] for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9))
        yield from (data[:n] + bytes(len(data) - n) for n in (20, 40, 80))
        yield from (data[:n] + b"\xff" * (len(data) - n) for n in (20, 40, 80))
        yield from (data[:8] + bytes(n) + data[8 + n :] for n in (4, 16, 64))
        yield from (data[n:] for n in (1, 12, len(data) // 2))
        yield from (data[:n] + data[n + 9 :] for n in (24, 60, len(data) // 2))


def hostile():
    return [*bombs(), *disguised(), *headers(), *damaged()]


def test_two_hundred_hostile_files(built):
    files = hostile()
    assert len(files) >= 200
    with client(built, decode_bytes=1 << 30) as web:
        kept = web.app_service.decoders.pids
        for start in range(0, len(files), 10):
            given = form(*files[start : start + 10], names=[f"{start + i}.png" for i in range(10)])
            answer = web.post("/v1/query", params={"evidence": "html"}, files=given)
            assert answer.status_code in (200, 422), answer.text
            for name, result in zip((g[1][0] for g in given), answer.json()["results"], strict=True):
                assert result["input"] == name
                assert "error" in result or result["verdict"]
        alone = [web.post("/v1/query", files=form(data)).status_code for data in files[:40]]
        assert set(alone) == {422}
        assert web.app_service.decoders.pids == kept, "none of them killed its decoder"
        assert web.post("/v1/query", files=form(*pictures(1))).status_code == 200


@pytest.fixture
def decoders():
    made = Decoders(SETTINGS)
    yield made
    made.close()


def test_pixels_and_claims_are_those_of_this_process(decoders):
    from retrieval_detect.images.decode import decode
    from retrieval_detect.images.provenance import read_provenance

    exif = Image.Exif()
    exif[0x0110], exif[0x0112] = "A camera", 6
    for data in (encoded(picture(90, 60), "JPEG", exif=exif), encoded(picture(40, 70, mode="RGBA"), "PNG")):
        image, provenance = decoders.read(data)
        expected = decode(data)
        np.testing.assert_array_equal(image.rgb, expected.rgb)
        assert (image.width, image.height, image.format) == (expected.width, expected.height, expected.format)
        assert image.notes == expected.notes
        assert provenance == read_provenance(data)


def test_a_killed_decoder_costs_its_image_and_is_replaced(decoders):
    data = encoded(picture(), "PNG")
    decoders.read(data)
    before = decoders.pids
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for _ in before:
        with pytest.raises(ImageError) as caught:
            decoders.read(data)
        assert caught.value.reason == DIED
    assert decoders.read(data)[0].width == 97
    assert not set(before) & set(decoders.pids)


def test_killed_in_the_middle_of_a_request(built):
    large = encoded(Image.effect_noise((5000, 5000), 60).convert("RGB"), "PNG", compress_level=1)
    with (
        client(built, decoders=1, file_bytes=1 << 28, body_bytes=1 << 28) as web,
        ThreadPoolExecutor(1) as pool,
    ):
        web.post("/v1/query", files=form(*pictures(1)))
        (pid,) = web.app_service.decoders.pids
        waiting = pool.submit(web.post, "/v1/query", files=form(large))
        while not web.app_service._waiting:
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        answer = waiting.result()
        assert answer.status_code == 422
        assert answer.json()["results"][0]["error"] == DIED
        assert web.post("/v1/query", files=form(*pictures(1))).status_code == 200


def test_a_decoder_that_hangs_is_given_up(built):
    with client(built, decoders=1, decode_s=1.5) as web:
        web.post("/v1/query", files=form(*pictures(1)))
        (pid,) = web.app_service.decoders.pids
        os.kill(pid, signal.SIGSTOP)
        answer = web.post("/v1/query", files=form(*pictures(1)))
        assert answer.json()["results"][0]["error"] == TOO_SLOW
        assert pid not in web.app_service.decoders.pids
        threading.Event().wait(0.1)


def test_memory_is_limited():
    from dataclasses import replace

    data = encoded(Image.new("RGB", (7_000, 7_000)), "PNG")
    small = Decoders(replace(SETTINGS, decoders=1, decode_bytes=400 << 20))
    try:
        with pytest.raises(ImageError) as caught:
            small.read(data)
        assert caught.value.reason in ("undecodable", DIED)
        assert small.read(encoded(picture(), "PNG"))[0].width == 97
    finally:
        small.close()
