"""Photographs laid beside an image: what adding them would do; and no way to buy a verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect import Detector
from retrieval_detect.ask.beside import Beside, Lot, scenes_of
from retrieval_detect.ask.instead import Instead
from retrieval_detect.ask.methods import Methods, asked_about
from retrieval_detect.errors import UsageError
from retrieval_detect.store.store import Store
from retrieval_detect.types import Failure, Provenance
from retrieval_detect.verdicts import Question
from tests.calibrated import EACH, calibrate, images
from tests.factories import D, add, digest, embedded, new_store


def fakes(prefix, n):
    return images(prefix, n, shift=8.0, along=3)


def taught(folder):
    """Two sources and two generators, far apart."""
    store = new_store(folder / "idx")
    for label, name, made in (("real", "camera", images), ("real", "phone", images), ("fake", "flux", fakes)):
        add(store, made(name, EACH), label, name)
    add(store, fakes("sdxl", EACH), "fake", "sdxl")
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = taught(tmp_path_factory.mktemp("beside"))
    calibrate(store)
    return store


@pytest.fixture(scope="module")
def methods(store):
    return Methods(store.snapshot())


@pytest.fixture(scope="module")
def question(methods):
    return methods.checked(Question(photographs="known"))


def kind(prefix, n):
    """Photographs that lie where the fakes do, and to one side of them: of a kind that no bank holds."""
    made = []
    for i in range(n):
        rng = np.random.default_rng(int.from_bytes(digest(f"{prefix}-{i}")[:8], "big"))
        vector = np.full(D, 0.4, np.float32)
        vector[[3, 7]] += 8.0, 6.0
        made.append(embedded(f"{prefix}-{i}", vector=(vector + rng.normal(size=D)).astype(np.float32)))
    return made


def judged(store, pictures, image, *, photographs="known"):
    detector = Detector(store.snapshot())
    checked = detector.checked(Question(photographs=photographs))
    verdict = detector.judge(image, photographs=photographs)
    answers = detector.methods.ask(asked_about([image], detector.methods.layers(checked)), checked).one(0)
    return verdict, Beside(detector.methods, checked, pictures).answer(verdict, image, answers)


# ---------------------------------------------------------------- what adding them would do


def test_scores_are_those_of_an_index_with_the_photographs_added(tmp_path):
    before = taught(tmp_path / "a")
    laid, asked = images("lent", 7, shift=1.0, along=5), [*images("new", 5), *fakes("other", 5)]
    methods = Methods(before.snapshot())
    question = methods.checked(Question())
    layers = methods.layers(question)
    banks = methods.banks().with_photographs(asked_about(laid, layers), np.arange(7))
    said = Instead(methods, banks).ask(asked_about(asked, layers), question)
    alone = methods.ask(asked_about(asked, layers), question)
    add(before, laid, "real", "lent")
    after = Methods(before.snapshot()).ask(asked_about(asked, layers), question)
    assert said.scores == pytest.approx(after.scores, abs=1e-12)
    assert said.typical == pytest.approx(after.typical)
    assert not np.allclose(said.scores, alone.scores)


def test_pictures_of_one_scene_weigh_as_one(store, methods, question):
    layers = methods.layers(question)
    scene = [replace(one, content_id=digest(f"again-{i}")) for i, one in enumerate(images("lent", 1) * 9)]
    asked = asked_about(images("new", 20), layers)
    once, often = (
        Instead(methods, methods.banks().with_photographs(asked_about(laid, layers), np.zeros(n, int)))
        for laid, n in ((scene[:1], 1), (scene, 9))
    )
    assert once.ask(asked, question).scores == pytest.approx(often.ask(asked, question).scores, abs=1e-12)


def test_nothing_is_written(store, methods, question):
    def files():
        return {p: p.read_bytes() for p in sorted(store.folder.rglob("*")) if p.is_file()}

    judged(store, kind("lent", 2), kind("asked", 2)[1])
    before = files()
    judged(store, kind("lent", 10), kind("asked", 2)[1])
    assert files() == before and Store(store.folder).snapshot().manifest == store.snapshot().manifest


# ---------------------------------------------------------------- answers


def test_photographs_of_its_kind_withdraw_the_accusation(store):
    image = kind("asked", 2)[1]
    verdict, found = judged(store, kind("lent", 10), image)
    assert verdict.verdict == "fake-like"
    assert (found.verdict, found.reason) == ("uncertain", "fits-beside")
    assert found.score < verdict.score and found.scenes == 10 and found.p_values["scenes"] is None
    assert found.contrast.flagged > 0 and not found.contrast.clears
    verdict, found = judged(store, kind("lent", 10), image, photographs="new")
    assert verdict.verdict != "fake-like" and found.verdict != "fake-like"


def test_known_fakes_stay_fake_like(store):
    turned = 0
    for image in fakes("asked", 10):
        verdict, found = judged(store, kind("lent", 10), image)
        turned += verdict.verdict == "fake-like" and found.verdict != "fake-like"
    assert turned == 0


def test_fakes_laid_beside_clear_known_fakes_and_it_is_said(store):
    """New fakes that look like known ones, given out as photographs."""
    image = fakes("asked", 1)[0]
    few, many = (judged(store, fakes("lent", n), image)[1] for n in (10, 60))
    assert sum(picture.fake_like for picture in few.pictures) >= 5
    assert many.contrast.turned > few.contrast.turned
    assert many.contrast.clears and many.verdict != "real-like"


def test_enough_scenes_are_counted_themselves(store):
    _, found = judged(store, kind("lent", 19), kind("asked", 2)[1])
    assert 0 < found.p_values["scenes"] <= 1 and found.needed == 19
    assert judged(store, kind("lent", 18), kind("asked", 2)[1])[1].p_values["scenes"] is None


def test_the_image_is_treated_as_every_scene_is(methods, question):
    """Each of twenty in turn as the image among the others: their p-values are all ranks there are."""
    calibration = methods.calibration(question)
    twenty = kind("exchangeable", 20)
    p = []
    for i, image in enumerate(twenty):
        lot = Lot(methods, question, calibration, twenty[:i] + twenty[i + 1 :], np.arange(19))
        p.append(lot.scene_p(asked_about([image], methods.layers(question))))
    assert sorted(p) == pytest.approx([rank / 20 for rank in range(1, 21)])


# ---------------------------------------------------------------- what is refused


def test_what_cannot_be_laid_is_named(store, methods, question):
    image = kind("asked", 2)[1]
    marked = replace(
        kind("marked", 1)[0],
        provenance=Provenance(xmp={"digital_source_type": "http://x/trainedAlgorithmicMedia"}),
    )
    copied = replace(image, content_id=digest("copy"))
    known = fakes("sdxl", 1)[0]
    near = replace(known, content_id=digest("near a known fake"))
    pictures = [
        *kind("lent", 3),
        marked,
        known,
        near,
        copied,
        Failure("x.png", "unreadable", "no"),
        kind("lent", 1)[0],
    ]
    _, found = judged(store, pictures, image)
    why = [one.why for one in found.refused]
    assert len(found.pictures) == 3 and len(why) == 6
    assert sum("a generator made it" in text for text in why) == 1
    assert sum("in the index as a fake" in text for text in why) == 2
    assert sum("near-duplicate of the image" in text for text in why) == 1
    assert sum("the same file" in text for text in why) == 1 and "no" in why


def test_copies_of_the_image_alone_change_nothing(store):
    image = kind("asked", 2)[1]
    verdict, found = judged(store, [replace(image, content_id=digest("copy"))], image)
    assert (found.verdict, found.score, found.pictures) == (verdict.verdict, verdict.score, ())
    assert set(found.p_values.values()) == {None} and found.contrast is None


@pytest.mark.parametrize(
    ("pictures", "hint"),
    [([], "known to be authentic"), ([Failure("x.png", "unreadable", "it is torn")], "x.png: it is torn")],
)
def test_without_a_usable_picture_it_is_refused(methods, question, pictures, hint):
    with pytest.raises(UsageError, match="none can be used") as caught:
        Beside(methods, question, pictures)
    assert hint in caught.value.hint


def test_without_a_calibration_it_is_refused(tmp_path):
    bare = Methods(taught(tmp_path).snapshot())
    with pytest.raises(UsageError, match="without a calibration"):
        Beside(bare, bare.checked(Question()), kind("lent", 3))


@pytest.mark.parametrize("asked", [{"fdr": 0.1}, {"confidence": 0.9}, {"at": 1.0}])
def test_other_rates_are_refused(methods, asked):
    with pytest.raises(UsageError, match="plain rate"):
        Beside(methods, methods.checked(Question(photographs="known", **asked)), kind("lent", 3))


# ---------------------------------------------------------------- scenes


def test_near_duplicates_and_similar_pictures_are_one_scene():
    one, other = images("a", 1)[0], images("b", 1)[0]
    rng = np.random.default_rng(0)
    alike = one.vectors["proj"] + 0.2 * rng.normal(size=D).astype(np.float32)
    burst = replace(one, content_id=digest("burst"), phash=other.phash ^ (2**40 - 1), vectors={"proj": alike})
    assert scenes_of([one, other, burst], "proj").tolist() == [0, 1, 0]
    assert scenes_of([other, one, burst], "proj").tolist() == [0, 1, 1]
