"""Audits: planted shortcuts are found, a clean set passes, what is there twice or in a test set is named."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.errors import LabelConflict, UsageError
from retrieval_detect.evaluate.audit import audit
from retrieval_detect.evaluate.jpeg import comb, jpeg_facts
from retrieval_detect.evaluate.material import look_through, of_folder, of_index
from retrieval_detect.evaluate.shortcuts import group_folds
from retrieval_detect.images.sources import scan
from retrieval_detect.report.audit import audit_json, audit_lines
from tests.factories import SHARED_DATA, add, new_store
from tests.kinds import kind


def scene(seed, *, side=96):
    """Something with structure at every scale, as photographs have it."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((side, side, 3))
    for cells in (3, 6, 12, 24, 48, side):
        octave = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        grown = Image.fromarray(octave).resize((side, side), Image.Resampling.BICUBIC)
        pixels += (np.asarray(grown, float) - 127) * 2.5 / cells**0.6
    return Image.fromarray((pixels + 127).clip(0, 255).astype(np.uint8))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_png(image):
    return encoded(image)


def as_jpeg(quality, **options):
    return lambda image: encoded(image, "JPEG", quality=quality, **options)


def twice(first, second):
    return lambda image: as_jpeg(second)(Image.open(io.BytesIO(as_jpeg(first)(image))))


def lay_out(folder, *, real=as_png, fake=as_png, n=30):
    """2 sources and 2 generators of n scenes each, alike but for how they are saved."""
    for start, (label, name, save) in enumerate(
        [("real", "camera", real), ("real", "phone", real), ("fake", "sdxl", fake), ("fake", "flux", fake)]
    ):
        (folder / label / name).mkdir(parents=True)
        for i in range(n):
            (folder / label / name / f"{i}.img.jpg").write_bytes(save(scene(1000 * start + i)))
    return folder


def audited(folder, **how):
    return audit(look_through(of_folder(folder)), **how)


def by_kind(found):
    return {shortcut.kind: shortcut for shortcut in found.shortcuts}


# ---------------------------------------------------------------- verdicts


def test_a_clean_set_passes(tmp_path):
    found = audited(lay_out(tmp_path))
    assert found.level == "usable" and not list(found.findings())
    assert found.looked == found.read == {"real": 60, "fake": 60} and not found.sampled
    assert by_kind(found).keys() == {"format", "compression", "pixels"}
    assert found.skipped == {"content": "vectors", "category": "categories"}
    assert audit_lines(found)[0] == f"Usable as evidence: {tmp_path}"


@pytest.mark.parametrize(
    ("real", "fake", "fact"),
    [
        (as_jpeg(92), as_png, "is JPEG"),
        (as_jpeg(92), as_jpeg(80), "JPEG quality"),
        (as_jpeg(90, subsampling=0), as_jpeg(90, subsampling=2), "sampling 4:4:4"),
        (as_jpeg(90, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), as_jpeg(90), "EXIF"),
    ],
)
def test_a_planted_format_leak_is_found(tmp_path, real, fake, fact):
    found = audited(lay_out(tmp_path, real=real, fake=fake))
    format_ = by_kind(found)["format"]
    assert found.level == "unusable" and format_.level == "unusable"
    assert format_.known.low > 0.9 and format_.unseen.value > 0.9
    assert fact in [name for name, value in format_.strongest if value > 0.95]
    assert "Not usable as evidence" in audit_lines(found)[0]
    assert any("--unified" in entry["advice"] for entry in audit_json(found)["findings"])


def test_a_leak_of_one_generator_does_not_carry_over(tmp_path):
    """One generator saves as photographs do: the other's files give away only itself."""
    folder = lay_out(tmp_path)
    for path in (folder / "fake" / "sdxl").iterdir():
        path.write_bytes(as_jpeg(80)(Image.open(path)))
    format_ = by_kind(audited(folder))["format"]
    assert 0.65 < format_.known.value < 0.9 and format_.unseen.value < 0.65


def test_pixels_that_tell_the_label(tmp_path):
    folder = lay_out(tmp_path)
    for path in (folder / "fake").rglob("*.jpg"):
        dark = np.asarray(Image.open(path)) // 4
        path.write_bytes(as_png(Image.fromarray(dark)))
    pixels = by_kind(audited(folder))["pixels"]
    assert pixels.level == "unusable" and pixels.known.low > 0.9


def test_too_few_images_are_no_evidence_of_anything(tmp_path):
    found = audited(lay_out(tmp_path, n=5))
    assert found.level == "care" and found.shortcuts == ()
    assert ("few", "care") in list(found.findings())
    assert "too few different images" in " ".join(audit_lines(found))


def test_where_chance_cannot_be_ruled_out_more_images_are_asked_for(tmp_path):
    """Alike in all, but 22 images a label cannot show it."""
    found = audited(lay_out(tmp_path, n=11))
    unclear = [shortcut.kind for shortcut in found.shortcuts if shortcut.unclear]
    assert unclear and [name for name, _ in found.findings()] == ["few"] and found.level == "care"
    assert "too few images to tell" in " ".join(audit_lines(found))


def test_one_source_is_not_many(tmp_path):
    folder = lay_out(tmp_path)
    for path in (folder / "real" / "phone").iterdir():
        path.rename(folder / "real" / "camera" / f"phone-{path.name}")
    assert ("lopsided", "care") in list(audited(folder).findings())


# ---------------------------------------------------------------- compression


@pytest.mark.parametrize(("first", "second"), [(60, 90), (75, 90), (50, 75), (70, 95)])
def test_two_compressions_leave_a_comb(first, second):
    once = [comb(as_jpeg(second)(scene(seed, side=256))) for seed in range(6)]
    again = [comb(twice(first, second)(scene(seed, side=256))) for seed in range(6)]
    assert max(once) < 0.1 < min(again)


def test_an_earlier_compression_shows_through_a_lossless_copy():
    plain = [comb(as_png(scene(seed, side=256))) for seed in range(6)]
    copied = [comb(as_png(Image.open(io.BytesIO(as_jpeg(80)(scene(seed, side=256)))))) for seed in range(6)]
    assert max(plain) < 0.1 < min(copied)


@pytest.mark.parametrize(("first", "second"), [(80, 80), (95, 85), (90, 75)])
def test_what_the_docstring_says_it_cannot_see(first, second):
    assert comb(twice(first, second)(scene(0, side=256))) < 0.1


def test_a_label_that_was_compressed_twice(tmp_path):
    folder = lay_out(tmp_path, real=twice(70, 90), fake=as_jpeg(90))
    found = audited(folder)
    assert by_kind(found)["compression"].level == "unusable"
    assert ("compression", "unusable") in list(found.findings())


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 98])
def test_quality_is_read_off_the_table(quality):
    facts = jpeg_facts(Image.open(io.BytesIO(as_jpeg(quality, subsampling=1)(scene(0)))))
    assert facts.quality == pytest.approx(quality, abs=1)
    assert facts.subsampling == 1 and not facts.progressive
    assert jpeg_facts(Image.open(io.BytesIO(as_png(scene(0))))) is None


# ---------------------------------------------------------------- twice, and in the test set


def test_near_duplicates_are_counted_and_listed(tmp_path):
    folder = lay_out(tmp_path)
    (folder / "real" / "phone" / "again.jpg").write_bytes(as_jpeg(90)(scene(0)))
    (folder / "fake" / "sdxl" / "photograph.png").write_bytes(as_jpeg(92)(scene(1)))
    found = audited(folder)
    assert found.duplicates.within == {"real": 1, "fake": 0} and found.duplicates.across == 1
    assert ("across", "care") in list(found.findings())
    reasons = {drop.uri.rpartition("/")[2]: drop.reason for drop in found.drop}
    assert reasons["photograph.png"] == "near-duplicate under the other label"
    assert sum("near-duplicate of" in reason for reason in reasons.values()) == 1


def test_an_image_under_both_labels_is_a_conflict(tmp_path):
    folder = lay_out(tmp_path)
    (folder / "fake" / "sdxl" / "same.png").write_bytes(
        (folder / "real" / "phone" / "3.img.jpg").read_bytes()
    )
    with pytest.raises(LabelConflict, match=r"same\.png \(fake\) and .*3\.img\.jpg \(real\)"):
        audited(folder)


def test_a_test_set_that_leaks(tmp_path):
    folder = lay_out(tmp_path / "bank")
    test = tmp_path / "test"
    test.mkdir()
    for seed in range(5000, 5018):
        (test / f"{seed}.png").write_bytes(as_png(scene(seed)))
    items = list(scan([test]))
    assert audited(folder, against=items).leak.share == 0
    (test / "same.png").write_bytes(as_png(scene(3)))
    (test / "near.jpg").write_bytes(as_jpeg(85)(scene(1004)))
    (test / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = audited(folder, against=list(scan([test])))
    assert (found.leak.test, found.leak.exact, found.leak.near, found.leak.unconfirmed) == (20, 1, 1, 0)
    assert ("leak", "unusable") in list(found.findings()) and len(found.leak.failures) == 1
    assert {drop.uri.rpartition("bank/")[2] for drop in found.drop} == {
        "real/camera/3.img.jpg",
        "real/phone/4.img.jpg",
    }


# ---------------------------------------------------------------- indexes


def test_an_index_without_its_files_tells_what_its_store_knows(tmp_path):
    """Content lies along one axis for each label: the clusters give the label away."""
    store = new_store(tmp_path / "index")
    add(store, kind("camera", 40, axis=3), "real", "camera", category="street")
    add(store, kind("phone", 40, axis=3), "real", "phone", category="street")
    add(store, kind("sdxl", 40, axis=7), "fake", "sdxl", category="portrait")
    add(store, kind("flux", 40, axis=7), "fake", "flux", category="portrait")
    found = audit(look_through(of_index(store.snapshot())), rebalance=True)
    shortcuts = by_kind(found)
    assert found.read == {"real": 0, "fake": 0} and found.looked == {"real": 80, "fake": 80}
    assert found.skipped == {"compression": "files", "pixels": "files"}
    assert shortcuts["format"].level == "usable", "all are of one size and format"
    assert shortcuts["content"].level == shortcuts["category"].level == found.level == "unusable"
    assert found.clusters.one_label > 0.9
    assert len(found.drop) > 120 and all(drop.row_id >= 0 for drop in found.drop)
    assert "only what the store knows" in " ".join(" ".join(audit_lines(found)).split())


def test_content_alike_is_no_shortcut_and_keeps_its_images(tmp_path):
    store = new_store(tmp_path / "index")
    for label, names in {"real": ("camera", "phone"), "fake": ("sdxl", "flux")}.items():
        for name in names:
            for axis in (3, 7):
                add(store, kind(f"{name}-{axis}", 30, axis=axis), label, name)
    found = audit(look_through(of_index(store.snapshot())), rebalance=True)
    content = by_kind(found)["content"]
    assert content.known.low < 0.6 and len(found.drop) < 80
    assert audit(look_through(of_index(store.snapshot(), at_most=50))).sampled
    with pytest.raises(UsageError, match="every image"):
        audit(look_through(of_index(store.snapshot(), at_most=50)), rebalance=True)


def test_pairs_are_alike_on_purpose(tmp_path):
    store = new_store(tmp_path / "index")
    photographs, fakes = kind("photo", 30, axis=3), kind("made", 30, axis=3)
    for i, (photograph, fake) in enumerate(zip(photographs, fakes, strict=True)):
        add(store, [photograph], "real", "camera", pair_id=f"pair-{i}")
        add(store, [fake], "fake", "sdxl", pair_id=f"pair-{i}")
    assert audit(look_through(of_index(store.snapshot()))).duplicates.pairs == 30


def test_a_bank_of_one_label_cannot_be_audited(tmp_path):
    store = new_store(tmp_path / "index")
    add(store, kind("camera", 40, axis=3), "real", "camera")
    with pytest.raises(UsageError, match="no fakes"):
        audit(look_through(of_index(store.snapshot())))
    with pytest.raises(UsageError, match="no folder real/"):
        of_folder(tmp_path)


# ---------------------------------------------------------------- the shared pictures


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the pictures are not here: {SHARED_DATA}")
def test_the_shortcuts_of_the_shared_pictures_are_reported():
    """Measured with all 2,935 pictures: a linear model on eighteen statistics reaches AUC about 0.80."""
    found = audit(look_through(of_folder(SHARED_DATA, at_most=500)))
    pixels = by_kind(found)["pixels"]
    assert pixels.models["logistic"] == pytest.approx(0.80, abs=0.06)
    assert pixels.known.low > 0.65 and pixels.level != "usable"
    assert found.level != "usable"


def test_a_label_of_few_images_is_parted_without_a_word():
    """Two photographs go into two of the five parts; the library's own warning helps nobody."""
    parts = group_folds(np.array([False] * 2 + [True] * 8), np.arange(10))
    assert set(parts) == set(range(5)) and len(set(parts[:2])) == 2
