"""What was done to an image on the way to its pixels is told wherever it is read of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.images.codes import NOTES
from tests.building import build
from tests.copies import saved
from tests.factories import picture

SIDEWAYS = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


def glass():
    image = picture(700).convert("RGBA")
    image.putalpha(99)
    return saved(image, "PNG")


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(picture(701), "JPEG", exif=exif)


def several():
    return saved(picture(702), "TIFF", save_all=True, append_images=[picture(703)])


def deep():
    return saved(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG")


def mistaken():
    data = saved(picture(704), "JPEG")
    start = data.index(b"\xff\xda")
    at = start + 5 + 2 * data[start + 4]
    return data[:at] + bytes(3) + data[at + 3 :]


def unreadable():
    as_text = b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0"
    return saved(picture(705), "JPEG", exif=b"Exif\0\0" + as_text)


FILES = {
    "alpha-on-white": glass,
    "cmyk-converted": lambda: saved(picture(706).convert("CMYK"), "JPEG"),
    "exif-rotated": turned,
    "first-frame": several,
    "grey-16-bit": deep,
    "icc-ignored": lambda: saved(picture(707), "PNG", icc_profile=b"any profile"),
    "jpeg-mistake": mistaken,
    "metadata-unreadable": unreadable,
    "xmp-rotated": lambda: saved(picture(708), "JPEG", xmp=SIDEWAYS),
}


def test_there_is_a_file_for_every_note():
    assert set(FILES) == set(NOTES)


@pytest.mark.parametrize("note", NOTES)
def test_a_note_is_told_in_words_json_and_report(index, run_rd, bare_folder, note):
    (bare_folder / "odd").write_bytes(FILES[note]())
    result = run_rd("query", "odd", "--report", "out.html")
    assert result.exit_code == 0, result.stderr
    assert f"  note     {NOTES[note]}\n" in result.stdout
    assert NOTES[note] in (bare_folder / "out.html").read_text()
    (answer,) = json.loads(run_rd("query", "odd", "--json").stdout)
    assert NOTES[note] in answer["warnings"]


def test_pages_of_a_document_are_no_animation(index, run_rd, bare_folder):
    (bare_folder / "odd").write_bytes(several())
    said = run_rd("query", "odd").stdout
    assert "pages" in said and "animation" not in said


def test_a_build_says_what_was_done_to_references(pictures, run_rd):
    for number, make in enumerate((glass, turned, several)):
        (pictures / "generated" / "sdxl" / f"odd{number}.png").write_bytes(make())
    result = build(run_rd)
    assert result.exit_code == 0, result.stderr
    for note in ("alpha-on-white", "exif-rotated", "first-frame"):
        assert f"{NOTES[note]} (1)" in result.stdout
    assert NOTES["icc-ignored"] not in result.stdout


def test_a_build_counts_notes_in_json(pictures, run_rd):
    (pictures / "generated" / "sdxl" / "odd.png").write_bytes(glass())
    (pictures / "generated" / "sdxl" / "odd2.png").write_bytes(several())
    record = json.loads(build(run_rd, "--format", "json").stdout)
    assert record["notes"] == {"alpha-on-white": 1, "first-frame": 1}
    again = json.loads(build(run_rd, "--format", "json").stdout)
    assert again["notes"] == {}
