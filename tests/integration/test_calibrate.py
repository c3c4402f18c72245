"""Calibrated verdicts end to end: fitted on rows set aside, kept with the generation, true to their rates."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from retrieval_detect import Detector, Index
from retrieval_detect.ask.detector import at_fdr
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import IndexCorrupt, UsageError
from retrieval_detect.files import sha256_bytes
from retrieval_detect.images.sources import scan
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.store.manifest import ALL_ROWS
from retrieval_detect.store.verify import findings
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.verdicts import Question
from tests.calibrated import EACH, calibrate, detector, fakes, images, taught
from tests.factories import D, add, embedded, names, new_store, png, write_pictures

VALID = jsonschema.Draft202012Validator(verdict_schema())
STALE = "rd fit calibration"


def stale(verdict):
    return any(STALE in warning for warning in verdict.warnings)


@pytest.fixture
def store(tmp_path):
    return taught(tmp_path)


@pytest.fixture
def calibrated(store):
    calibrate(store)
    return store


# ---------------------------------------------------------------- what it rests on


def test_it_is_fitted_on_every_row_set_aside_and_on_no_other(store):
    fitted, manifest = calibrate(store)
    real, fake = fitted.conformal.real, fitted.conformal.fake
    assert set(real) == {"camera", "phone"} and set(fake) == {"sdxl", "flux"}
    assert sum(map(len, real.values())) == manifest.live_rows("real", "calib") > 40
    assert sum(map(len, fake.values())) == manifest.live_rows("fake", "calib") > 40
    assert manifest.operation.kind == "fit" and manifest.operation.detail["fitted"][0]["name"] == "density"
    assert fitted.quality["cllr"] < 0.9


def test_calibration_rows_never_vote(calibrated):
    judge = detector(calibrated)
    set_aside = {int(i) for shard in judge.snapshot.shards(split="calib") for i in shard.row_ids}
    for image in images("fresh", 8):
        assert not set_aside & {e.row_id for e in judge.judge(image).evidence}
    assert judge.reference.n_real + judge.reference.n_fake + len(set_aside) == 4 * EACH


def test_a_calibration_row_asked_again_gets_the_score_it_was_kept_with(calibrated):
    """The same way in for both, or the scores could not be compared; its own row does not vote."""
    judge = detector(calibrated)
    kept = calibrated_scores(judge)
    set_aside = set(judge.snapshot.scan(["content_id"], split="calib")["content_id"].to_pylist())
    asked = [image for image in images("0-camera", EACH) if image.content_id in set_aside]
    assert len(asked) > 15
    for image in asked:
        verdict = judge.judge(image)
        assert np.abs(kept["camera"] - verdict.score).min() < 2e-3  # stored vectors are float16
        assert verdict.same_image[0].content_id == image.content_id.hex()


def calibrated_scores(judge):
    return judge.calibration(Question()).conformal.real


def test_none_set_aside_says_so(tmp_path):
    small = new_store(tmp_path / "small")
    add(small, names("r", 8), "real", "camera")
    add(small, names("f", 8), "fake", "sdxl")
    with pytest.raises(UsageError, match="set aside for calibration") as caught:
        fit_calibration(small.snapshot())
    assert "25 images" in caught.value.hint


def test_references_that_changed_meanwhile_refuse_the_commit(store):
    fitted = fit_calibration(store.snapshot())
    before = add(store, images("late", 3), "real", "camera")
    with pytest.raises(UsageError, match="changed while"):
        commit_calibration(store, fitted)
    assert store.snapshot().manifest.generation == before.generation


# ---------------------------------------------------------------- verdicts


def test_fields_agree_with_one_another(calibrated):
    judge = detector(calibrated)
    counts = judge.snapshot.manifest
    n_real, n_fake = counts.live_rows("real", "calib"), counts.live_rows("fake", "calib")
    for image in [*images("fresh", 20), *fakes("fresh-fake", 20)]:
        verdict = judge.judge(image, fpr=0.1)
        VALID.validate(json.loads(json.dumps(verdict.to_dict(), allow_nan=False)))
        p, found = verdict.p_values, verdict.calibration
        assert verdict.alpha == {"real": 0.1, "fake": 0.05}
        assert found["photographs"] == n_real and found["sources"] == 2
        assert p["real"] == pytest.approx((found["as_high"] + 1) / (n_real + 1))
        known = judge.judge(image, fpr=0.1, photographs="known")
        assert -np.log10(n_fake + 1) <= known.log10_lr <= np.log10(n_real + 1)
        assert -np.log10(3) <= verdict.log10_lr <= np.log10(3)  # of two generators over two sources
        assert verdict.prior is verdict.probability is None
        if known.verdict == "fake-like":
            assert p["real"] <= 0.1 and p["fake"] > 0.05
        assert verdict.verdict != "fake-like" and p["new"] >= 1 / 3  # two sources cannot show less


def test_fakes_are_told_from_photographs(calibrated):
    judge = detector(calibrated)
    of_photographs = [judge.judge(image, photographs="known") for image in images("fresh", 60)]
    of_fakes = [judge.judge(image, photographs="known") for image in fakes("fresh-fake", 60)]
    flagged = [sum(v.verdict == "fake-like" for v in some) for some in (of_photographs, of_fakes)]
    assert flagged[0] <= 10 and flagged[1] >= 2 * flagged[0] + 15
    assert np.mean([v.log10_lr for v in of_fakes]) > 0.3 > 0 > np.mean([v.log10_lr for v in of_photographs])


def test_an_image_like_nothing_is_unknown(calibrated):
    odd = embedded("odd", vector=np.full(D, -0.4, np.float32))
    verdict = detector(calibrated).judge(odd)
    assert verdict.verdict == "unknown" and verdict.p_values["typical"] <= 0.01


def test_a_probability_only_with_a_prior(calibrated):
    judge = detector(calibrated)
    (image,) = fakes("fresh-fake", 1)
    rare, even = (judge.judge(image, prior=prior, photographs="known") for prior in (0.001, 0.5))
    assert (rare.prior, even.prior) == (0.001, 0.5) and rare.log10_lr == even.log10_lr
    assert (
        even.probability == pytest.approx(1 / (1 + 10**-even.log10_lr))
        and rare.probability < even.probability
    )


def test_one_source_alone_and_confidence(calibrated):
    judge = detector(calibrated)
    (image,) = images("fresh", 1)
    n = calibrated_scores(judge)["camera"].size
    verdict = judge.judge(image, source="camera", fpr=0.2)
    assert verdict.calibration["photographs"] == n and verdict.calibration["sources"] == 1
    assert judge.judge(image, fpr=0.2, confidence=0.95).alpha["real"] < 0.2
    with pytest.raises(UsageError, match="'drone'"):
        judge.judge(image, source="drone")


def test_too_few_photographs_say_how_many_are_needed(calibrated):
    judge = detector(calibrated)
    for asked in ({"fpr": 0.001}, {"fpr": 0.02, "confidence": 0.95}):
        with pytest.raises(UsageError, match=r"needs (999|149) calibration photographs, there are \d+"):
            judge.judge(embedded("any"), **asked)


@pytest.mark.parametrize("confidence", [1.0, 0.0, -1.0, float("nan")])
def test_no_number_of_photographs_makes_sure(calibrated, confidence):
    with pytest.raises(UsageError, match=r"confidence of .* is not between 0 and 1"):
        detector(calibrated).judge(embedded("any"), confidence=confidence)


# ---------------------------------------------------------------- rates


def test_p_values_of_photographs_are_uniform_and_false_alarms_keep_to_the_rate(tmp_path):
    """Over several draws of everything, as the promise is about the draw of the calibration too."""
    p_real, flagged, asked = [], 0, 0
    for seed in range(5):
        store = taught(tmp_path, seed=seed)
        calibrate(store)
        judge = detector(store)
        for image in images(f"{seed}-fresh", 80):
            verdict = judge.judge(image, fpr=0.1)
            p_real.append(verdict.p_values["real"])
            flagged += verdict.verdict == "fake-like"
            asked += 1
    n = 64  # calibration photographs a draw, about: their own scatter counts beside the queries'
    spread = 3.5 * np.sqrt(0.25 / asked + 0.25 / (5 * n))
    for share in (0.1, 0.25, 0.5, 0.75):
        assert np.mean(np.array(p_real) <= share) == pytest.approx(share, abs=spread)
    assert flagged / asked <= 0.1 + 3.5 * np.sqrt(0.09 / asked + 0.09 / (5 * n))


# ---------------------------------------------------------------- staleness


def test_new_references_make_it_stale_but_it_still_judges(calibrated):
    (image,) = images("fresh", 1)
    assert not stale(detector(calibrated).judge(image))
    add(calibrated, images("more", 3), "real", "camera")
    verdict = detector(calibrated).judge(image)
    assert stale(verdict) and verdict.p_values is not None
    assert [record.name for record in calibrated.snapshot().stale()] == ["density", "proj"]
    calibrate(calibrated)
    assert not stale(detector(calibrated).judge(image)) and not calibrated.snapshot().stale()


@pytest.mark.parametrize("split", ["bank", "calib"])
def test_removed_references_make_it_stale_and_rollback_mends_it(calibrated, split):
    (image,) = images("fresh", 1)
    good = calibrated.snapshot()
    before = Detector(good).judge(image)
    gone = good.shards("real", split)[0].row_ids[:2].tolist()
    with calibrated.writer() as writer:
        writer.remove(gone, reason="wrong", detail={})
    assert stale(detector(calibrated).judge(image))
    with calibrated.writer() as writer:
        writer.rollback(good.manifest.generation)
    after = detector(calibrated).judge(image)
    assert not stale(after) and after.p_values == before.p_values


def test_rollback_to_before_takes_the_calibration_away_and_one_more_brings_it_back(store):
    (image,) = images("fresh", 1)
    before = store.snapshot().manifest.generation
    _, fitted = calibrate(store)
    for generation, there in ((before, False), (fitted.generation, True)):
        with store.writer() as writer:
            writer.rollback(generation)
        assert (detector(store).judge(image).p_values is not None) == there


def test_compaction_does_not_make_it_stale(store):
    with store.writer() as writer:
        writer.remove(store.snapshot().shards("real", "bank")[0].row_ids[:5].tolist(), reason="x", detail={})
    calibrate(store)
    (image,) = images("fresh", 1)
    before = detector(store).judge(image)
    with store.writer() as writer:
        writer.compact()
    after = detector(store).judge(image)
    assert not stale(after) and after.p_values == before.p_values
    assert list(findings(store.snapshot())) == []


# ---------------------------------------------------------------- which vote it holds for


def test_it_holds_for_its_own_vote_alone(store):
    calibrate(store, method="mean", k=5)
    judge = detector(store)
    (image,) = images("fresh", 1)
    assert judge.judge(image, method="mean", k=5).p_values is not None
    for other in ({"method": "mean"}, {"method": "mean", "k": 4}, {}, {"method": "nearest"}):
        verdict = judge.judge(image, **other)
        assert verdict.p_values is verdict.log10_lr is verdict.alpha is None
        assert (verdict.verdict, verdict.reason) == ("unknown", "uncalibrated")


def test_each_vote_keeps_one_of_its_own(store):
    for method in ("density", "nearest", "majority"):
        calibrate(store, method=method)
    calibrate(store, method="nearest", likelihood="isotonic")
    judge = detector(store)
    (image,) = images("fresh", 1)
    assert [record.kind for record in judge.snapshot.manifest.fitted].count("calibration") == 3
    for method in ("density", "nearest", "majority"):
        assert judge.judge(image, method=method).p_values is not None


@pytest.mark.parametrize("asked", [{"prior": 0.5}, {"source": "camera"}, {"confidence": 0.9}, {"fpr": 0.01}])
def test_without_a_calibration_what_needs_one_is_refused(store, asked):
    with pytest.raises(UsageError, match="without a calibration") as caught:
        detector(store).judge(embedded("any"), **asked)
    assert "rd fit calibration --method density" in caught.value.hint


# ---------------------------------------------------------------- damage


def fitted_file(store):
    snapshot = store.snapshot()
    return snapshot.fitted_path(snapshot.fitted("calibration", "density"), "json")


def test_a_damaged_file_is_found_when_the_index_is_opened(calibrated):
    path = fitted_file(calibrated)
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(IndexCorrupt, match=path.name):
        Detector.load(calibrated.folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data | {"version": 3},
        lambda data: {key: value for key, value in data.items() if key != "new"},
        lambda data: data | {"new": data["new"] | {"sources": {"camera": {"scores": []}}}},
        lambda data: data | {"format": "something/else"},
        lambda data: {key: value for key, value in data.items() if key != "likelihood"},
        lambda data: data | {"typical": [3.0, 1.0]},
        lambda data: data | {"real": {"camera": [float("nan")]}},
        lambda data: data | {"k": "many"},
        lambda data: data | {"real": []},
        lambda data: [data],
    ],
)
def test_a_file_that_is_no_calibration_is_named(store, damage):
    fitted = fit_calibration(store.snapshot())
    text = json.dumps(damage(fitted.to_json())).encode()
    with store.writer() as writer:
        rows = (store.snapshot().rows_digest(), ALL_ROWS)
        files = {"json": text}
        writer.fit(
            [writer.write_fitted("calibration", "density", method="conformal", files=files, rows=rows)]
        )
    with pytest.raises(IndexCorrupt, match=sha256_bytes(text)[:16]):
        detector(store).judge(embedded("any"))


# ---------------------------------------------------------------- batches, and photographs of one kind


def test_a_batch_is_judged_as_a_whole_by_its_share_of_false_discoveries(calibrated):
    judge = detector(calibrated)
    batch = [*fakes("fresh-fake", 8), *images("fresh", 12)]
    found = list(at_fdr([judge.judge(image) for image in batch], 0.2))
    cutoff = {verdict.alpha["real"] for verdict in found}
    assert len(cutoff) == 1 and 0 < cutoff.pop() <= 0.2
    assert {verdict.fdr for verdict in found} == {0.2}
    assert sum(verdict.verdict == "fake-like" for verdict in found[:8]) >= 6
    for verdict in found:
        VALID.validate(verdict.to_dict())


def test_a_batch_of_photographs_gives_nothing_to_discover(tmp_path):
    judge = Detector.load(photographed(tmp_path), encoder=TinyEncoder())
    known = {"photographs": "known"}
    found = list(judge.query_many([png(5000 + i) for i in range(5)], fdr=0.05, **known))
    assert all(verdict.verdict != "fake-like" and verdict.fdr == 0.05 for verdict in found)
    with pytest.raises(UsageError, match=r"a share of 0\.100% false discoveries needs 999"):
        list(judge.query_many([png(1)], fdr=0.001, **known))
    with pytest.raises(UsageError, match="of known sources alone"):
        list(judge.query_many([png(1)], fdr=0.05))


def test_within_a_format_only_its_photographs_are_compared_with(tmp_path):
    judge = Detector.load(photographed(tmp_path), encoder=TinyEncoder())
    verdict = judge.query(png(6000), within="format", fpr=0.2)
    assert verdict.calibration["of"] == "PNG"
    assert judge.query(png(6000), within="source", fpr=0.2).calibration["of"] in {"camera", "phone"}


def photographed(folder):
    index = Index.create(folder / "idx", encoder=TinyEncoder())
    for number, (label, name) in enumerate([("real", "camera"), ("real", "phone"), ("fake", "sdxl")]):
        start = 1000 * number
        write_pictures(folder / name, range(start, start + 120), fake=label == "fake")
        facts = {"generator" if label == "fake" else "source": name}
        planned = index.plan_add(scan([folder / name]), label=label, **facts)
        index.apply(planned, encoder=TinyEncoder())
    commit_calibration(index.store, fit_calibration(index.store.snapshot()))
    return index.folder
