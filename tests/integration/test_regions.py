"""Where in an image: crops judged by crops, how high is high by chance, and what is needed for it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.stats import kstest

from retrieval_detect import Detector
from retrieval_detect.ask.methods import asked_about
from retrieval_detect.ask.regions import CropMethods, pooled
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import IndexCorrupt, UsageError
from retrieval_detect.images.decode import decode
from retrieval_detect.images.laundering import crop_boxes
from retrieval_detect.images.sources import from_bytes
from retrieval_detect.report.heatmap import heat_map_png
from retrieval_detect.scoring.highest_crops import HighestCrops
from retrieval_detect.store.verify import findings
from retrieval_detect.teach.measure import Reviewer
from retrieval_detect.teach.projections import commit_projection, fitted_projection, use_projection
from retrieval_detect.teach.regions import commit_regions, fit_regions
from retrieval_detect.verdicts import Question
from tests.factories import embedded, picture, png
from tests.integration.test_stability import taught

N_CALIBRATED = 300
CROP = 32


def planted(seed, box=None, *, side=96):
    """A photograph, as PNG, with a piece of a fake at a corner of the grid."""
    image = picture(seed, side=side)
    if box is not None:
        x, y, w, h = box
        image.paste(picture(seed + 1, side=CROP, fake=True).crop((0, 0, w, h)), (x, y))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return taught(tmp_path_factory.mktemp("regions") / "idx", n=40, views=("crops",))


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    index = taught(tmp_path_factory.mktemp("regions") / "fitted", n=N_CALIBRATED, views=("crops",))
    commit_regions(index.store, fit_regions(index.snapshot()))
    return index


def detector(index):
    return Detector(index.snapshot(), encoder=TinyEncoder())


# ---------------------------------------------------------------- where


@pytest.mark.parametrize("number", [0, 4, 5])
def test_the_map_peaks_where_a_piece_was_planted(index, number):
    boxes = crop_boxes(96, 96, CROP)
    found = detector(index).query(planted(9000, boxes[number]), regions="max").regions
    assert [region.box for region in found.heat_map] == boxes and len(boxes) == 9
    assert found.highest.box == boxes[number]
    others = [region.score for region in found.heat_map if region.box != boxes[number]]
    assert found.highest.score > 0 and found.score == found.highest.score > max(others)


def test_the_verdict_is_that_of_the_whole_image(index):
    given = planted(9100, crop_boxes(96, 96, CROP)[4])
    plain, mapped = detector(index).query(given), detector(index).query(given, regions="max")
    assert plain.regions is None and mapped.regions is not None
    assert (plain.verdict, plain.score, plain.evidence) == (mapped.verdict, mapped.score, mapped.evidence)


def test_pools(index):
    given = planted(9200, crop_boxes(96, 96, CROP)[4])
    by_pool = {pool: detector(index).query(given, regions=pool).regions for pool in ("max", "mean", "top")}
    scores = sorted((region.score for region in by_pool["max"].heat_map), reverse=True)
    assert by_pool["max"].score == scores[0]
    assert by_pool["mean"].score == pytest.approx(np.mean(scores))
    assert by_pool["top"].score == pytest.approx(np.mean(scores[:3]))
    assert pooled([2.0], "top") == 2.0 and pooled([1.0, 4.0], "top") == 2.5


def test_only_crops_vote(index):
    snapshot = index.snapshot()
    methods = CropMethods(snapshot)
    question = methods.checked(Question())
    table = snapshot.scan(["row_id", "view"]).to_pylist()
    crops = {row["row_id"] for row in table if row["view"].startswith("crops-")}
    vector = np.random.default_rng(0).normal(size=32).astype(np.float32)
    asked = asked_about([embedded("a", vector=vector)], methods.layers(question))
    voters = methods.ask(asked, question).voters
    for label in ("real", "fake"):
        near = voters[label].first(int(voters[label].n[0]))
        assert set(near.row_ids[0].tolist()) <= crops
        references, images = methods.banks().references(label), snapshot.manifest.live_rows(label, "bank")
        assert methods.banks().bank(label).n == len(references) == 4 * images
        assert references.n_images == images
        content = {row["content_id"] for row in snapshot.take(near.row_ids[0].tolist(), ["content_id"])}
        assert len(content) == len(near.row_ids[0]) == images  # fewer than k, so all of them, once


def test_the_images_own_crops_do_not_vote(index, monkeypatch):
    table = index.snapshot().scan(["row_id", "group", "uri", "split"]).to_pylist()
    own = next(row for row in table if row["uri"].startswith("real-") and row["split"] == "bank")
    rows = {row["row_id"] for row in table if row["group"] == own["group"]}
    answers, ask = [], CropMethods.ask

    def watched(self, asked, question):
        answers.append(ask(self, asked, question))
        return answers[-1]

    monkeypatch.setattr(CropMethods, "ask", watched)
    found = detector(index).query(png(int(own["uri"][5:-4])), regions="max").regions
    (voters,) = (answer.voters["real"] for answer in answers)
    assert len(found.heat_map) == len(voters) == 4 and len(rows) == 5
    voted = voters.similarities > -np.inf
    assert voted.any(axis=1).all() and not rows & set(voters.row_ids[voted].tolist())


# ---------------------------------------------------------------- how high is high


def test_p_values_of_exchangeable_photographs_are_uniform():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(400):
        maxima = rng.normal(size=(200, 9)).max(axis=1)
        fitted = HighestCrops("density", 200, "identity", "", "", tuple((9, float(m)) for m in maxima[1:]))
        value, n = fitted.p_value(9, float(maxima[0]))
        p.append(value - rng.random() / (n + 1))
    assert kstest(p, "uniform").pvalue > 1e-3


def test_photographs_with_fewer_crops_are_not_compared_with():
    fitted = HighestCrops("density", 200, "identity", "", "", ((1, 9.0), (4, 1.0), (9, 2.0)))
    assert fitted.p_value(1, 1.5) == (3 / 4, 3)
    assert fitted.p_value(4, 1.5) == (2 / 3, 2)
    assert fitted.p_value(9, 3.0) == (1 / 2, 1)
    assert fitted.p_value(10, 3.0) == (None, 0)


def test_fresh_photographs_are_rarely_called_high_and_planted_pieces_are(calibrated):
    judge = detector(calibrated)
    fresh = [judge.query(png(20_000 + i), regions="max").regions for i in range(120)]
    n = fresh[0].photographs
    assert n > 30 and {found.photographs for found in fresh} == {n}
    p = np.array([found.p_max for found in fresh])
    assert 0.3 < p.mean() < 0.7 and (p <= 0.1).mean() < 0.25
    part = [judge.query(planted(30_000 + i, (32, 0, 32, 32), side=64), regions="mean") for i in range(20)]
    assert np.median([verdict.regions.p_max for verdict in part]) < 0.3 < np.median(p)


def test_more_crops_than_any_photograph_has_give_no_p_value(calibrated):
    found = detector(calibrated).query(planted(9300), regions="max").regions
    assert len(found.heat_map) == 9 and (found.p_max, found.photographs) == (None, 0)


def test_photographs_set_aside_are_scored_as_queries_are(calibrated):
    snapshot = calibrated.snapshot()
    fitted = CropMethods(snapshot).highest_crops(CropMethods(snapshot).checked(Question()))
    assert len(fitted.photographs) == snapshot.manifest.live_rows("real", "calib")
    aside = snapshot.scan(["uri", "view"], label="real", split="calib").to_pylist()
    kept = np.array([score for _, score in fitted.photographs])
    for row in [row for row in aside if row["view"] == "original"][:8]:
        found = detector(calibrated).query(png(int(row["uri"][5:-4])), regions="max").regions
        assert np.abs(kept - found.highest.score).min() < 2e-3  # stored vectors are float16


def test_it_holds_for_the_method_it_was_fitted_for_alone(calibrated):
    judge = detector(calibrated)
    for asked in ({"method": "nearest"}, {"k": 7}):
        found = judge.query(png(20_000), regions="max", **asked).regions
        assert (found.p_max, found.photographs) == (None, None)


# ---------------------------------------------------------------- in the index


def test_it_is_kept_checked_and_known_to_be_stale(tmp_path):
    index = taught(tmp_path / "idx", n=60, views=("crops",))
    fitted = fit_regions(index.snapshot())
    assert HighestCrops.from_json(fitted.to_json()) == fitted
    manifest = commit_regions(index.store, fitted)
    assert manifest.operation.detail["fitted"] == [
        {"kind": "regions", "name": "density", "method": "conformal"}
    ]
    assert list(findings(index.snapshot())) == []
    assert not any(
        "rd fit calibration --regions" in w for w in detector(index).query(png(5000), regions="max").warnings
    )
    items = [from_bytes(png(77_000), "new.png")]
    index.apply(index.plan_add(items, label="real", views=("crops",)), encoder=TinyEncoder())
    warnings = detector(index).query(png(5000), regions="max").warnings
    assert any("rd fit calibration --regions" in warning for warning in warnings)
    assert not any("rd fit calibration --regions" in w for w in detector(index).query(png(5000)).warnings)
    with pytest.raises(UsageError, match="changed"):
        commit_regions(index.store, fitted)


def test_a_foreign_file_is_refused(tmp_path):
    index = taught(tmp_path / "idx", n=60, views=("crops",))
    rows = (index.snapshot().rows_digest(), ())
    with index.store.writer() as writer:
        writer.fit([writer.write_fitted("regions", "density", method="x", files={"json": b"{}"}, rows=rows)])
    with pytest.raises(IndexCorrupt):
        detector(index).query(png(5000), regions="max")


def test_without_crops_it_says_how_to_get_them(tmp_path):
    index = taught(tmp_path / "idx")
    for ask in (
        lambda: detector(index).query(png(5000), regions="max"),
        lambda: fit_regions(index.snapshot()),
    ):
        with pytest.raises(UsageError, match="no crops") as complaint:
            ask()
        assert "--views crops" in complaint.value.hint


def test_without_photographs_set_aside_nothing_is_fitted(tmp_path):
    index = taught(tmp_path / "idx", n=6, views=("crops",))
    with pytest.raises(UsageError, match="set aside"):
        fit_regions(index.snapshot())
    assert detector(index).query(png(5000), regions="max").regions.photographs is None


def test_an_unknown_pool(index):
    with pytest.raises(UsageError, match="pool 'median'"):
        detector(index).query(png(5000), regions="median")


# ---------------------------------------------------------------- the picture


def test_the_picture_is_red_where_the_piece_is(index):
    box = crop_boxes(96, 96, CROP)[5]
    given = planted(9000, box)
    rgb = decode(given).rgb
    found = detector(index).query(given, regions="max").regions
    drawn = np.asarray(Image.open(io.BytesIO(heat_map_png(rgb, found)))).astype(int)
    assert drawn.shape == rgb.shape
    redder = (drawn[..., 0] - drawn[..., 2]) - (rgb[..., 0].astype(int) - rgb[..., 2])
    x, y, w, h = box
    inside = np.zeros(rgb.shape[:2], bool)
    inside[y + 4 : y + h - 4, x + 4 : x + w - 4] = True
    assert redder[inside].mean() > redder[~inside].mean() + 20
    np.testing.assert_array_equal(drawn[y, x : x + w], 255)  # its frame


# ---------------------------------------------------------------- additions


def test_they_are_judged_again_when_references_come(tmp_path):
    index = taught(tmp_path / "idx", n=60, views=("crops",))
    commit_regions(index.store, fit_regions(index.snapshot()))
    items = [from_bytes(png(seed, fake=True), f"new-{seed}.png") for seed in range(3000, 3006)]
    planned = index.plan_add(items, label="fake", generator="newgen", views=("crops",))
    index.apply(planned, encoder=TinyEncoder(), review=Reviewer())
    assert not [record for record in index.snapshot().stale() if record.kind == "regions"]
    found = detector(index).query(png(5000), regions="max")
    assert found.regions.photographs and not any("rd fit calibration --regions" in w for w in found.warnings)


def test_they_go_along_to_another_projection_and_back(tmp_path):
    index = taught(tmp_path / "idx", n=60, views=("crops",))
    commit_regions(index.store, fit_regions(index.snapshot()))
    before = index.snapshot().fitted("regions", "density")
    commit_projection(index.store, "white", fitted_projection(index.snapshot(), "whiten", ("proj",)))
    assert detector(index).query(png(5000), regions="max").regions.photographs
    assert index.snapshot().fitted("regions", "density--white").rows_digest == before.rows_digest
    use_projection(index.store, "identity")
    assert index.snapshot().fitted("regions", "density") == before


def test_photographs_whose_crops_are_gone_bar_no_way_to_another_projection(tmp_path):
    index = taught(tmp_path / "idx", n=60, views=("crops",))
    commit_regions(index.store, fit_regions(index.snapshot()))
    rows = index.snapshot().scan(["row_id", "view"], label="real", split="calib").to_pylist()
    index.remove([row["row_id"] for row in rows if row["view"] != "original"])
    commit_projection(index.store, "white", fitted_projection(index.snapshot(), "whiten", ("proj",)))
    assert index.snapshot().fitted("regions", "density--white") is None
