"""Views: laundered copies stored beside their references, which stay one image to every count and vote."""

from __future__ import annotations

import hashlib
import io
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retrieval_detect import Index
from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.pipeline import embed, embed_views
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import UsageError
from retrieval_detect.images.laundering import crop_boxes, kind_of, render, stored_views
from retrieval_detect.images.sources import from_bytes
from retrieval_detect.review.whole import verify
from retrieval_detect.scoring.vote import TEMPERATURE
from retrieval_detect.store.verify import findings
from retrieval_detect.teach import build
from retrieval_detect.types import Embedded, Failure
from retrieval_detect.vectors import unit
from tests.factories import picture, png

VIEWS = ("jpeg", "crops")
PER_IMAGE = 1 + 1 + len(crop_boxes(64, 64, 32))
CHOOSE = stored_views(VIEWS, crop_size=32)


class Counting(TinyEncoder):
    """Counts the squares it is given; may be told to break off."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.batches, self.stop_after = [], stop_after

    def encode(self, batch, layers):
        self.batches.append(len(batch))
        if self.stop_after is not None and sum(self.batches) > self.stop_after:
            raise KeyboardInterrupt
        return super().encode(batch, layers)


def items(seeds, *, fake=False):
    return [from_bytes(png(seed, fake=fake), f"{'fake' if fake else 'real'}-{seed}.png") for seed in seeds]


def add(index, seeds, label, *, views=VIEWS, encoder=None, **facts):
    planned = index.plan_add(items(seeds, fake=label == "fake"), label=label, views=views, **facts)
    return index.apply(planned, encoder=encoder or TinyEncoder(), batch_size=4, workers=1)


@pytest.fixture
def index(tmp_path):
    return Index.create(tmp_path / "idx", encoder=TinyEncoder())


def rows(index, *names):
    return index.snapshot().scan(["content_id", "view", *names]).to_pylist()


def whole(index):
    assert list(findings(index.snapshot())) == []
    return True


# ---------------------------------------------------------------- the pipeline


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (4, 2), (64, 3)])
def test_each_view_is_embedded_in_its_place(batch_size, workers):
    encoder = Counting()
    given = [*items(range(3)), from_bytes(b"no picture", "text.png"), *items(range(3, 5))]
    lists = list(
        embed_views(given, encoder, layers=["proj"], views=CHOOSE, batch_size=batch_size, workers=workers)
    )
    assert [len(results) for results in lists] == [PER_IMAGE] * 3 + [1] + [PER_IMAGE] * 2
    assert isinstance(lists[3][0], Failure) and lists[3][0].uri == "text.png"
    assert max(encoder.batches) <= batch_size and sum(encoder.batches) == 5 * PER_IMAGE
    for item, results in zip(given, lists, strict=True):
        if isinstance(results[0], Failure):
            continue
        (plain,) = embed([item], TinyEncoder(), layers=["proj"])
        assert [result.view for result in results] == CHOOSE(plain.content_id, 64, 64)
        rgb = np.asarray(Image.open(io.BytesIO(item.read())))
        for result in results:
            square = encoder.prepare(render(rgb, result.view))[None]
            np.testing.assert_allclose(
                result.vectors["proj"], TinyEncoder().encode(square, ["proj"])["proj"][0], atol=1e-5
            )
            assert (result.item, result.phash, result.width) == (item, plain.phash, 64)
        np.testing.assert_allclose(results[0].vectors["proj"], plain.vectors["proj"], atol=1e-5)


def test_images_with_many_views_are_taken_only_a_little_ahead():
    taken = []

    def endless():
        for number in range(10_000):
            taken.append(number)
            yield items([number % 7])[0]

    results = embed_views(endless(), TinyEncoder(), layers=["proj"], views=CHOOSE, batch_size=4, workers=2)
    for given in range(10):
        assert all(isinstance(result, Embedded) for result in next(results))
        assert len(taken) <= given + 6
    results.close()


def test_images_may_differ_in_how_many_views_they_have():
    lengths = [1, 1, 1, 9, 1, 5, 2, 9, 9, 1]
    given = items(range(10))
    of = {hashlib.sha256(item.read()).digest(): n for item, n in zip(given, lengths, strict=True)}

    def choose(content_id, _width, _height):
        return ["original", *(f"jpeg-{quality}" for quality in range(60, 59 + of[content_id]))]

    results = embed_views(given, TinyEncoder(), layers=["proj"], views=choose, batch_size=4, workers=2)
    found = list(results)
    assert [len(views) for views in found] == lengths
    assert [views[0].item for views in found] == given


# ---------------------------------------------------------------- storing


def test_views_lie_with_their_original(index):
    report = add(index, range(60), "real", source="camera")
    assert (report.added, report.views, report.embedded) == (60, 60 * (PER_IMAGE - 1), 60)
    stored = rows(index, "group", "split", "uri", "source", "phash", "width")
    homes = {}
    for row in stored:
        facts = tuple(row[name] for name in ("group", "split", "uri", "source", "phash", "width"))
        homes.setdefault(row["content_id"], set()).add(facts)
    assert len(homes) == 60 and all(len(facts) == 1 for facts in homes.values())
    for content_id in homes:
        views = {row["view"] for row in stored if row["content_id"] == content_id}
        assert views == set(CHOOSE(content_id, 64, 64))
    assert whole(index)


def test_counts_and_splits_are_those_of_the_images(tmp_path):
    with_views, without = (
        Index.create(tmp_path / name, encoder=TinyEncoder()) for name in ("with", "without")
    )
    for index, views in ((with_views, VIEWS), (without, ())):
        add(index, range(60), "real", views=views, source="camera")
        add(index, range(100, 110), "fake", views=views, generator="sdxl")
    strata = with_views.snapshot().manifest.strata
    assert strata == without.snapshot().manifest.strata and strata[1].calib > 0
    splits = [{row["content_id"]: row["split"] for row in rows(i, "split")} for i in (with_views, without)]
    assert splits[0] == splits[1]
    assert with_views.snapshot().manifest.operation.added == 10


def test_adding_again_adds_the_views_that_are_missing(index):
    add(index, range(4), "real", views=(), source="camera")
    planned = index.plan_add(items(range(6)), label="real", views=("jpeg",), source="elsewhere")
    assert (len(planned.new), planned.known, len(planned.lacking), planned.views_at_most) == (2, 4, 4, 6)
    assert planned.summary() == (
        "6 images, 2 new, 4 already known, 4 of them under other names, 4 of them without some of the views"
    )
    encoder = Counting()
    report = index.apply(planned, encoder=encoder)
    assert (report.added, report.views) == (2, 6) and sum(encoder.batches) == 4 + 2 * 2
    assert Counter(row["source"] for row in rows(index, "source")) == {"camera": 8, "elsewhere": 4}
    more = Counting()
    report = add(index, range(6), "real", encoder=more)
    assert (report.added, report.views) == (0, 6 * (PER_IMAGE - 2)) and report.changed
    assert sum(more.batches) == report.views and index.snapshot().manifest.live_rows("real") == 6
    again = add(index, range(6), "real")
    assert not again.changed and again.manifest.generation == report.manifest.generation
    keys = [(row["content_id"], row["view"]) for row in rows(index)]
    assert len(keys) == len(set(keys)) == 6 * PER_IMAGE and whole(index)
    assert not (index.folder / "staging").exists()


def test_a_later_view_joins_the_split_its_image_has(index):
    add(index, range(60), "real", views=(), source="camera")
    before = {row["content_id"]: (row["group"], row["split"]) for row in rows(index, "group", "split")}
    add(index, range(60), "real", views=("resize",))
    views = [row for row in rows(index, "group", "split") if row["view"] != "original"]
    assert len(views) == 60 and {split for _, split in before.values()} == {"bank", "calib"}
    assert all(before[row["content_id"]] == (row["group"], row["split"]) for row in views)


def test_an_interrupted_addition_goes_on_with_views(index, monkeypatch):
    monkeypatch.setattr(build, "STAGE_ROWS", 2)
    with pytest.raises(KeyboardInterrupt):
        add(index, range(10), "real", encoder=Counting(stop_after=4 * PER_IMAGE))
    assert index.snapshot().manifest.generation == 0
    encoder = Counting()
    report = add(index, range(10), "real", encoder=encoder)
    assert (report.added, report.views) == (10, 10 * (PER_IMAGE - 1))
    assert 0 < sum(encoder.batches) <= 7 * PER_IMAGE and sum(encoder.batches) % PER_IMAGE == 0
    assert whole(index) and not (index.folder / "staging").exists()


def test_staged_parts_of_before_there_were_views_are_dropped(index):
    with pytest.raises(KeyboardInterrupt):
        add(index, range(8), "real", views=(), encoder=Counting(stop_after=4))
    (part,) = (index.folder / "staging").glob("*.parquet")
    table = pq.read_table(part)
    pq.write_table(table.drop_columns(["view"]), part)
    encoder = Counting()
    assert add(index, range(8), "real", views=(), encoder=encoder).added == 8
    assert sum(encoder.batches) == 8 and not (index.folder / "staging").exists()


def test_a_view_that_another_attempt_did_not_ask_for(index):
    """Staged are the originals alone; the second attempt wants views too, and embeds just these."""
    with pytest.raises(KeyboardInterrupt):
        add(index, range(8), "real", views=(), encoder=Counting(stop_after=4))
    encoder = Counting()
    assert add(index, range(8), "real", views=("jpeg",), encoder=encoder).views == 8
    assert sum(encoder.batches) == 4 + 4 * 2


def test_an_image_is_stored_whole_or_not_at_all(index):
    class Sick(TinyEncoder):
        def encode(self, batch, layers):
            vectors = {layer: v.copy() for layer, v in super().encode(batch, layers).items()}
            if len(batch) == 4:
                vectors["proj"][1] = np.nan
            return vectors

    planned = index.plan_add(items(range(2)), label="real", views=("jpeg", "resize", "blur"))
    report = index.apply(planned, encoder=Sick(), batch_size=7, workers=1)
    assert (report.added, len(report.failures)) == (2, 0)
    planned = index.plan_add(items(range(2, 4)), label="real", views=("jpeg", "resize", "blur"))
    report = index.apply(planned, encoder=Sick(), batch_size=4, workers=1)
    assert (report.added, report.views, len(report.failures)) == (0, 0, 2) and whole(index)


def test_kinds_that_are_none(index):
    with pytest.raises(UsageError, match="no view 'sepia'"):
        add(index, range(2), "real", views=("sepia",))
    assert index.snapshot().manifest.generation == 0


# ---------------------------------------------------------------- removing


def test_an_image_goes_with_all_its_views(index):
    add(index, range(4), "real", source="camera")
    first = rows(index, "row_id")
    gone = first[2]["content_id"]
    manifest = index.remove([first[2]["row_id"]])
    view = next(row for row in first if row["view"] != "original" and row["content_id"] != gone)
    assert manifest.operation.removed == 1 and manifest.live_rows("real") == 3
    assert gone not in {row["content_id"] for row in rows(index)} and whole(index)
    assert index.remove([view["row_id"]]).live_rows("real") == 2
    assert len(rows(index)) == 2 * PER_IMAGE and whole(index)
    with index.store.writer() as writer:
        assert writer.rollback(1).live_rows("real") == 4
    assert len(rows(index)) == 4 * PER_IMAGE and whole(index)


def test_a_purge_erases_views_and_refuses_the_image(index):
    add(index, range(4), "real")
    index.remove([0])
    with index.store.writer() as writer:
        writer.compact(purge=True)
    assert len(rows(index)) == 3 * PER_IMAGE and whole(index)
    assert index.plan_add(items(range(4)), label="real", views=VIEWS).purged == 1


# ---------------------------------------------------------------- voting


def queried(index, data):
    return Detector(index.snapshot(), encoder=TinyEncoder(), device="cpu").query(data)


def nearest_views(seeds, query, *, fake):
    """Each image's largest similarity to the query over its views, worked out by hand."""
    found = embed_views(items(seeds, fake=fake), TinyEncoder(), layers=["proj"], views=CHOOSE)
    vectors = [unit(np.stack([view.vectors["proj"] for view in views])).astype(np.float16) for views in found]
    return np.array([(v.astype(np.float32) @ query).max() for v in vectors], np.float64)


def test_an_image_votes_once_by_its_nearest_view(tmp_path):
    indexes = [Index.create(tmp_path / name, encoder=TinyEncoder()) for name in ("with", "without")]
    for index, views in zip(indexes, (VIEWS, ()), strict=True):
        add(index, range(9), "real", views=views, source="camera")
        add(index, range(50, 56), "fake", views=views, generator="sdxl")
    data = png(200)
    by_views, plain = (queried(index, data) for index in indexes)
    (asked,) = embed([from_bytes(data, "q")], TinyEncoder(), layers=["proj"])
    query = unit(asked.vectors["proj"][None])[0].astype(np.float16).astype(np.float32)
    sides = {}
    for label, seeds in (("real", range(9)), ("fake", range(50, 56))):
        similarities = nearest_views(seeds, query, fake=label == "fake")
        sides[label] = np.log(np.mean(np.exp(similarities / TEMPERATURE)))
        assert by_views.nearest[label] == pytest.approx(similarities.max(), abs=1e-3)
        assert by_views.nearest[label] >= plain.nearest[label]
    assert by_views.score == pytest.approx(sides["fake"] - sides["real"], abs=1e-3)
    assert by_views.score != pytest.approx(plain.score, abs=5e-3)
    assert (by_views.k, by_views.votes.of) == (plain.k, plain.votes.of)
    assert by_views.votes.bank_share_fake == plain.votes.bank_share_fake
    assert len({entry.content_id for entry in by_views.evidence}) == len(by_views.evidence)


def test_a_copy_of_a_reference_is_not_judged_by_the_views_of_it(index):
    add(index, range(6), "real", views=("jpeg", "resize", "crops"), source="camera")
    add(index, range(50, 56), "fake", views=("jpeg",), generator="sdxl")
    file = io.BytesIO()
    picture(2).save(file, "JPEG", quality=90)
    own = rows(index, "uri")
    verdict = queried(index, file.getvalue())
    voters = {entry.uri for entry in verdict.evidence}
    assert "real-2.png" not in voters and "real-2.png" in {entry.uri for entry in verdict.same_image}
    assert Counter(row["uri"] for row in own)["real-2.png"] == 7


def test_verifying_an_index_with_views(index, tmp_path):
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
    given = [from_bytes(png(seed), str(tmp_path / f"{seed}.png")) for seed in range(3)]
    index.apply(index.plan_add(given, label="real", views=VIEWS), encoder=TinyEncoder())
    add(index, range(50, 53), "fake")
    found = verify(index.snapshot(), sample=20)
    assert found.problems == () and (found.sampled, found.compared) == (6, 3)


def test_kinds_are_what_was_asked_for(index):
    add(index, range(3), "real", views=("webp", "blur", "screenshot"))
    kinds = Counter(kind_of(row["view"]) for row in rows(index))
    assert kinds == {"original": 3, "webp": 3, "blur": 3, "screenshot": 3}
