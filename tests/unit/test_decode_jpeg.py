"""images.decode: a JPEG's mistakes that touch no pixel are passed over and noted; damage is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.errors import ImageError
from retrieval_detect.images.decode import decode
from tests.copies import saved
from tests.scenes import picture, reference

WHOLE = saved(picture(200, 160), "JPEG", quality=90)
PROFILED = saved(picture(200, 160), "JPEG", quality=90, icc_profile=bytes(200))
PROGRESSIVE = saved(picture(200, 160), "JPEG", quality=90, progressive=True)
DQT, SOF, SOS = b"\xff\xdb", b"\xff\xc0", b"\xff\xda"
ADOBE = b"\xff\xee\x00\x0eAdobe\x00d\x00\x00\x00\x00"
JFIF_BYTES = slice(2, 20)


def before(marker, stray, data=WHOLE):
    at = data.index(marker)
    return data[:at] + stray + data[at:]


def scan_parameters(*three, data=WHOLE):
    start = data.index(SOS)
    at = start + 5 + 2 * data[start + 4]
    return data[:at] + bytes(three) + data[at + 3 :]


def ends_with(stray, data=WHOLE):
    return data[:-2] + stray + data[-2:]


def without_jfif(data=WHOLE):
    return data[:2] + data[JFIF_BYTES.stop :]


MISTAKES = {
    "a phone's scan parameters": scan_parameters(0, 0, 0),
    "other scan parameters": scan_parameters(1, 5, 0x11),
    "a drone's bytes before the end": ends_with(bytes(7) + b"\x7f"),
    "padding before the end": ends_with(bytes(500)),
    "stray bytes between segments": before(DQT, b"\x00\x01"),
    "a gap before the frame": before(SOF, bytes(600)),
    "two gaps": before(SOS, b"ab", before(DQT, b"cd")),
    "an unknown colour code": before(DQT, ADOBE + b"\x07", without_jfif()),
    "an unknown revision": WHOLE[:11] + b"\x09" + WHOLE[12:],
    "a profile in pieces that do not fit": PROFILED.replace(b"ICC_PROFILE\0\1", b"ICC_PROFILE\0\3"),
    "three at once": ends_with(bytes(9), scan_parameters(0, 0, 0, data=before(DQT, b"\x00\x01"))),
}


@pytest.mark.parametrize("data", MISTAKES.values(), ids=MISTAKES)
def test_what_touches_no_pixel_is_noted_and_judged(data):
    image = decode(data)
    assert "jpeg-mistake" in image.notes
    np.testing.assert_array_equal(image.rgb, decode(WHOLE).rgb)
    np.testing.assert_array_equal(image.rgb, reference(data))


def test_a_grey_jpeg_too():
    grey = saved(picture(200, 160, mode="L"), "JPEG")
    image = decode(scan_parameters(0, 0, 0, data=grey))
    assert image.notes == ("jpeg-mistake",)
    np.testing.assert_array_equal(image.rgb, decode(grey).rgb)


def middle(data):
    return (data.index(SOS) + len(data)) // 2


DAMAGE = {
    "a hole": lambda data: next(holes(data, 1000)),
    "a cut": lambda data: data[: middle(data)],
    "a cut and an end": lambda data: data[: middle(data)] + data[-2:],
    "an end too few": lambda data: data[:-2],
    "a piece too many": lambda data: ends_with(data[middle(data) : middle(data) + 40], data),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("damaged", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_not_hidden_by_a_mistake(mistake, damaged):
    """Also where the mistake stands in the header, so that the decoder complains of nothing else."""
    with pytest.raises(ImageError) as caught:
        decode(damaged(mistake))
    assert caught.value.reason in {"corrupt", "truncated", "undecodable"}


def holes(data, step):
    for start in range(data.index(SOS) + 20, len(data) - 80, step):
        yield data[:start] + bytes(50) + data[start + 50 :]


def test_what_a_hole_leaves_over_is_not_taken_for_padding():
    """Flat at its lower edge, with the shortest codes: its data end in bytes that are all alike."""
    flat = picture(200, 160)
    flat.paste((200, 200, 200), (0, 120, 200, 160))
    data = saved(flat, "JPEG", quality=90, optimize=True)
    for holed in holes(data, 97):
        try:
            found = decode(holed)
        except ImageError:
            continue
        assert found.notes == ()  # a hole whose codes happen to fit is not seen, as before


def test_a_lost_colour_marker_is_no_stray_byte():
    """An RGB JPEG with plain component ids is one by that marker alone: without it the colours are others."""
    rgb = bytearray(saved(picture(200, 160), "JPEG", keep_rgb=True))
    for marker, first, step in ((SOF, 10, 3), (SOS, 5, 2)):
        at = rgb.index(marker) + first
        rgb[at : at + 3 * step : step] = bytes([1, 2, 3])
    data = bytes(rgb[:2]) + b"\xff\xfe\x00\x04ab" + bytes(rgb[2:])
    lost = data.replace(b"\xff\xee\x00\x0eAdobe", b"\x00\xee\x00\x0eAdobe")
    assert not np.array_equal(reference(lost), decode(data).rgb)
    with pytest.raises(ImageError, match="extraneous"):
        decode(lost)


def test_a_scan_that_is_missing_or_comes_twice_is_damage():
    starts = [found.start() for found in re.finditer(SOS, PROGRESSIVE)]
    tables = PROGRESSIVE.index(b"\xff\xc4", starts[0])
    twice = PROGRESSIVE[:tables] + PROGRESSIVE[starts[0] : tables] + PROGRESSIVE[tables:]
    with pytest.raises(ImageError, match="progression"):
        decode(twice)


def test_restart_markers_out_of_order_are_damage():
    data = saved(picture(200, 160), "JPEG", restart_marker_rows=1)
    assert decode(data).notes == ()
    with pytest.raises(ImageError):
        decode(data.replace(b"\xff\xd2", b"\xff\xd5"))


def test_a_mistake_is_named_in_the_end_by_its_own_words():
    with pytest.raises(ImageError, match="premature end"):
        decode(before(DQT, b"ab", WHOLE[: middle(WHOLE)] + WHOLE[-2:]))


@pytest.mark.parametrize(
    "fill", [b"\xff", b"\xff\x00", b"\x00\xff", b"\xff\xe0\x00\x02", b"\xff\xc0\x00\x02"]
)
def test_endless_headers_end_well(fill):
    hostile = WHOLE[:20] + fill * 200_000
    with pytest.raises(ImageError):
        decode(hostile)
    with pytest.raises(ImageError):
        decode(ends_with(bytes(40) + b"x" * 9, before(DQT, fill * 50_000)))


def test_the_second_decoder_must_agree(monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", lambda image, _mode: Image.new("RGB", image.size))
    with pytest.raises(ImageError, match="two decoders"):
        decode(scan_parameters(0, 0, 0))
