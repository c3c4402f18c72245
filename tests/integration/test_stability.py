"""Whether a verdict outlives re-encoding: the same question, the same exclusions, the same views."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retrieval_detect import Detector, Index
from retrieval_detect.ask.methods import Methods
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import UsageError
from retrieval_detect.images.content_id import phash
from retrieval_detect.images.decode import decode
from retrieval_detect.images.laundering import drawn_views, kind_of, render
from retrieval_detect.images.sources import from_bytes
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.verdicts import Question
from tests.factories import embedded, picture, png


def taught(folder, *, n=12, views=()):
    index = Index.create(folder, encoder=TinyEncoder())
    for label, seeds, facts in (
        ("real", range(n), {"source": "camera"}),
        ("fake", range(1000, 1000 + n), {"generator": "sdxl"}),
    ):
        items = [from_bytes(png(seed, fake=label == "fake"), f"{label}-{seed}.png") for seed in seeds]
        index.apply(index.plan_add(items, label=label, views=views, **facts), encoder=TinyEncoder())
    return index


def jpeg(seed, *, quality=95):
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return taught(tmp_path_factory.mktemp("stability") / "idx")


@pytest.fixture
def detector(index):
    return Detector(index.snapshot(), encoder=TinyEncoder())


def test_nothing_is_judged_beside_the_image_unless_asked(detector):
    assert detector.query(png(5000)).stability is None


def test_the_views_follow_from_the_image_and_so_does_the_answer(detector, index):
    first = detector.query(png(5000), stability=16)
    again = Detector(index.snapshot(), encoder=TinyEncoder()).query(png(5000), stability=16)
    other = detector.query(png(5001), stability=16)
    assert first.stability == again.stability
    assert [v.view for v in first.stability.views] != [v.view for v in other.stability.views]
    expected = drawn_views(16)(bytes.fromhex(first.sha256), 64, 64)[1:]
    assert [v.view for v in first.stability.views] == expected
    assert {kind_of(v.view) for v in first.stability.views} == {
        "jpeg",
        "webp",
        "resize",
        "crop",
        "screenshot",
    }


def test_each_view_is_judged_as_the_picture_it_shows(detector):
    """The score is that of the laundered pixels asked about by themselves."""
    verdict = detector.query(png(5003, fake=True), stability=6)
    rgb = np.asarray(picture(5003, fake=True))
    for view in verdict.stability.views:
        assert view.verdict == "unknown"  # uncalibrated, as the image is
        buffer = io.BytesIO()
        Image.fromarray(render(rgb, view.view)).save(buffer, "PNG")
        assert detector.query(buffer.getvalue()).score == pytest.approx(view.score, abs=1e-4)


def flipping(detector, **asked):
    """An image of which some re-encodings, and not all, get another answer."""
    for seed in range(6000, 6060):
        verdict = detector.query(png(seed, fake=True), stability=10, **asked)
        if 0 < verdict.stability.agree < 10 and verdict.verdict != "uncertain":
            return seed, verdict
    raise AssertionError("no image flips")


def test_uncalibrated_views_agree_where_the_same_bank_is_nearer(detector):
    _, loose = flipping(detector)
    nearer = sum((view.score > 0) == (loose.score > 0) for view in loose.stability.views)
    assert (loose.stability.agree, loose.stability.of) == (nearer, 10)
    assert (loose.verdict, loose.reason) == ("unknown", "uncalibrated")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    index = taught(tmp_path_factory.mktemp("stable") / "idx", n=130)
    commit_calibration(index.store, fit_calibration(index.snapshot()))
    return Detector(index.snapshot(), encoder=TinyEncoder())


def test_views_that_disagree_are_shown_and_decide_nothing(calibrated):
    known = {"photographs": "known"}
    seed, loose = flipping(calibrated, **known)
    agree = sum(view.verdict == loose.stability.verdict for view in loose.stability.views)
    assert (loose.stability.agree, loose.stability.of) == (agree, 10)
    plain = calibrated.query(png(seed, fake=True), **known)
    assert loose.verdict == loose.stability.verdict == plain.verdict
    assert (loose.reason, loose.reach, loose.score) == (plain.reason, plain.reach, plain.score)


@pytest.mark.parametrize("given", [png(3), jpeg(3)], ids=["its own bytes", "a near-duplicate"])
def test_what_may_not_vote_on_the_image_may_not_vote_on_its_views(index, detector, given, monkeypatch):
    table = index.snapshot().scan(["row_id", "group", "uri"]).to_pylist()
    own = next(row for row in table if row["uri"] == "real-3.png")
    answers, ask = [], Methods.ask

    def watched(self, asked, question):
        answers.append((asked, ask(self, asked, question)))
        return answers[-1][1]

    monkeypatch.setattr(Methods, "ask", watched)
    verdict = detector.query(given, stability=16)
    (image, _), (views, said) = answers
    assert verdict.same_image[0].row_id == own["row_id"] and (len(image), len(views)) == (1, 16)
    assert set(views.phash.tolist()) == {phash(decode(given).rgb)}  # of the image itself
    assert all(own["group"] in views.own_groups[i] for i in range(16))
    voters = said.voters["real"]
    assert own["row_id"] not in voters.row_ids[voters.similarities > -np.inf]


def test_calibrated_views_are_judged_at_the_same_rate(tmp_path):
    index = taught(tmp_path / "idx", n=150)
    commit_calibration(index.store, fit_calibration(index.snapshot()))
    detector = Detector(index.snapshot(), encoder=TinyEncoder())
    calm, bold = (detector.query(png(7000), stability=8, fpr=fpr) for fpr in (0.05, 0.3))
    assert [v.score for v in calm.stability.views] == [v.score for v in bold.stability.views]
    for verdict in (calm, bold):
        for view in verdict.stability.views:
            p_real = np.mean([1, *(s >= view.score for s in photographs(detector))])
            assert p_real > 0 and view.verdict in ("fake-like", "real-like", "uncertain", "unknown")
            if view.verdict == "real-like":
                assert p_real > verdict.alpha["real"]
            if view.verdict == "fake-like":
                assert p_real <= verdict.alpha["real"]
    with pytest.raises(UsageError, match="batch"):
        detector.query(png(7000), stability=8, fdr=0.2)


def photographs(detector):
    return np.concatenate(list(detector.calibration(Question()).conformal.real.values()))


def test_what_cannot_be_asked(detector):
    with pytest.raises(UsageError, match="0 re-encodings"):
        detector.query(png(5000), stability=0)


def test_vectors_alone_cannot_be_laundered(detector):
    with pytest.raises(UsageError, match="the image itself"):
        detector.judge(embedded("a"), stability=4)


def test_an_image_that_fails_fails_alone(detector):
    results = list(detector.query_many([png(5000), b"no picture", png(5001)], stability=3))
    assert [getattr(result, "stability", None) is not None for result in results] == [True, False, True]
    assert results[1].reason == "not-an-image"
