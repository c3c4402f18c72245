"""Provenance stands beside the verdict: tags that are forged or stripped change nothing else."""

from __future__ import annotations

import json

import pytest

from retrieval_detect import Detector, Index
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.codes import NOTES
from retrieval_detect.images.sources import scan
from retrieval_detect.report.words import full
from retrieval_detect.store.store import Store
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.verdicts import Question
from tests.factories import write_pictures
from tests.tagged import camera, chunk, packet, png_text, saved

XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
BARE = saved("PNG")


def with_chunk(kind, content):
    return BARE[:33] + chunk(kind, content) + BARE[33:]


FORGED = {
    "a camera": saved("PNG", exif=camera(gps=True)),
    "a generator's declaration": with_chunk(b"iTXt", XMP + packet()),
    "a camera's declaration": with_chunk(b"iTXt", XMP + packet(type_="digitalCapture")),
    "settings": png_text(parameters="cat\nSteps: 20, Seed: 1"),
    "a manifest": with_chunk(b"caBX", b"nonsense"),
    "damage": with_chunk(b"eXIf", b"nonsense"),
}


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lane")
    index = Index.create(folder / "idx", encoder=TinyEncoder())
    for label, start in (("real", 0), ("fake", 1000)):
        write_pictures(folder / label, range(start, start + 130), fake=label == "fake")
        index.apply(index.plan_add(scan([folder / label]), label=label), encoder=TinyEncoder())
    store = Store(folder / "idx")
    commit_calibration(store, fit_calibration(store.snapshot(), Question()))
    return Detector.load(folder / "idx")


def answer(detector, data, **asked):
    told = detector.query(data, photographs="known", **asked).to_dict()
    told["warnings"] = [words for words in told["warnings"] if words != NOTES["metadata-unreadable"]]
    own = {name: told.pop(name) for name in ("provenance", "sha256", "elapsed_s")}
    return told, own["provenance"]


@pytest.mark.parametrize("data", FORGED.values(), ids=FORGED)
def test_tags_change_no_verdict_no_score_and_no_p_value(detector, data):
    bare, nothing = answer(detector, BARE)
    told, provenance = answer(detector, data)
    assert nothing["claims"] == [] and nothing["damaged"] == []
    assert provenance["claims"] or provenance["damaged"]
    assert told == bare and told["p_values"] is not None and told["log10_lr"] is not None


def test_rates_within_a_format_see_the_pixels_alone(detector):
    bare, _ = answer(detector, BARE, within="size")
    told, _ = answer(detector, FORGED["a generator's declaration"], within="size")
    assert told == bare


def test_batches_have_it_too(detector):
    bare, camera_ = detector.query_many([BARE, FORGED["a camera"]])
    assert bare.provenance.claims == () and camera_.provenance.exif["make"] == "Canon"
    json.dumps(camera_.to_dict())


def test_people_are_told_what_it_is_worth(detector):
    detail = "EXIF; dated 2024:05:01 10:00:00, a position is stored, easily forged"
    told = full(detector.query(FORGED["a camera"]))
    assert [f"  provenance  camera: Canon EOS R5 ({detail})"] in told
    bare = full(detector.query(BARE))
    assert ["  provenance  none found; most images on the web carry none"] in bare
    damaged = full(detector.query(FORGED["damage"]))
    assert ["  provenance  damaged: EXIF: it cannot be read"] in damaged


def test_an_embedding_judged_later_has_none(detector):
    from retrieval_detect.encoders.pipeline import embed
    from retrieval_detect.images.sources import from_bytes

    (image,) = embed([from_bytes(BARE, "x")], TinyEncoder(), layers=detector.snapshot.manifest.layers)
    verdict = detector.judge(image)
    assert verdict.provenance is None and verdict.to_dict()["provenance"] == {}
