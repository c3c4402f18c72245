"""``rd launder``: a tree of copies, the same again tomorrow, and nothing overwritten."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from retrieval_detect.images.decode import decode
from tests.building import one_error
from tests.factories import png


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def launder(run_rd, pictures):
    return lambda *args: run_rd("launder", *args)


def test_copies_lie_as_their_images_do(launder, pictures):
    result = launder("photos", "--out", "o/small", "--as", "resize-50+jpeg-72")
    assert result.exit_code == 0, result.stderr
    found = tree(pictures / "o" / "small")
    assert len(found) == 12 and "camera/0000.png.jpg" in found and "phone/0010.png.jpg" in found
    assert {decode(data).rgb.shape for data in found.values()} == {(32, 32, 3)}
    assert "12 images laundered (resize-50+jpeg-72)" in result.stdout


def test_seeds_make_the_copies(launder, pictures):
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert launder("photos", "--out", out, "--as", "jpeg", "--seed", seed).exit_code == 0
    a, b, c = (tree(pictures / out) for out in "abc")
    assert a == b and a.keys() == c.keys() and a != c


def test_unify_brings_both_labels_to_one_size_and_format(launder, pictures):
    (pictures / "generated" / "flux" / "large.png").write_bytes(png(9, side=150))
    assert launder("photos", "generated", "--out", "alike", "--unify").exit_code == 0
    found = tree(pictures / "alike")
    assert {name.split("/")[0] for name in found} == {"photos", "generated"} and len(found) == 24
    assert {(decode(data).format, decode(data).rgb.shape) for data in found.values()} == {
        ("JPEG", (256, 256, 3))
    }


def test_again_changes_nothing_and_other_bytes_are_left_alone(launder, pictures):
    args = ("photos", "--out", "o", "--as", "webp-70")
    launder(*args)
    before = tree(pictures / "o")
    again = launder(*args, "--json")
    assert again.exit_code == 0 and json.loads(again.stdout)["already"] == 12
    (pictures / "o" / "camera" / "0000.png.webp").write_bytes(b"mine")
    result = launder(*args)
    assert result.exit_code == 3 and "is there already with other bytes" in result.stderr
    assert tree(pictures / "o") == before | {"camera/0000.png.webp": b"mine"}


def test_two_images_of_one_name_do_not_overwrite_each_other(launder, pictures):
    result = launder(
        "photos/camera/0000.png", "photos/phone/../camera/0000.png", "--out", "o", "--as", "blur"
    )
    assert result.exit_code == 3 and "another of the images" in result.stderr
    assert list(tree(pictures / "o")) == ["0000.png"]


def test_bad_images_fail_alone(launder, pictures):
    (pictures / "photos" / "camera" / "broken.png").write_bytes(b"nonsense")
    result = launder("photos", "--out", "o", "--as", "jpeg-90")
    assert result.exit_code == 3 and "broken.png: this is not an image" in result.stderr
    assert len(tree(pictures / "o")) == 12


def test_a_box_beyond_an_image_fails_that_image(launder, pictures):
    (pictures / "photos" / "large.png").write_bytes(png(9, side=150))
    result = launder("photos", "--out", "o", "--as", "crop-70-70-60-60")
    assert result.exit_code == 3 and "is not within 64 × 64" in result.stderr
    assert list(tree(pictures / "o")) == ["large.png"]


def test_names_in_archives_do_not_lead_out(launder, pictures):
    data = png(1)
    with tarfile.open(pictures / "evil.tar", "w") as archive:
        for name in ("../../up.png", "/abs.png"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    before = set(pictures.parent.rglob("*"))
    launder("evil.tar", "--out", "o", "--as", "jpeg-90")
    new = {path for path in pictures.parent.rglob("*") if path.is_file()} - before
    assert new and all(path.is_relative_to(pictures / "o") for path in new)


def test_a_dry_run_writes_nothing(launder, pictures):
    result = launder("photos", "--out", "o", "--as", "social", "--dry-run", "--json")
    answer = json.loads(result.stdout)
    assert answer["would_write"] == 12 and answer["steps"] == ["longest-1080", "jpeg-85", "jpeg-70"]
    assert not (pictures / "o").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("photos", "--out", "o"), "it is not said how to launder"),
        (("photos", "--out", "o", "--as", "social", "--unify"), "both given"),
        (("photos", "--out", "o", "--as", "polish"), "there is no laundering 'polish'"),
        (("photos", "--out", "photos/o", "--unify"), "lies within photos"),
        (("nowhere", "--out", "o", "--unify"), "does not exist"),
    ],
)
def test_what_cannot_be_meant_is_said(launder, args, words):
    assert words in one_error(launder(*args), 2)


def test_two_launderings_are_refused_with_words_for_either_meaning(launder, pictures):
    said = one_error(launder("photos", "--out", "o", "--as", "social", "--as", "blur"), 2)
    assert "given 2 times" in said and "--as longest-1080+jpeg-85+jpeg-70+blur" in said
    assert "once for each" in said and not (pictures / "o").exists()
