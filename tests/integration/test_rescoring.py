"""Stored embeddings judged again: in blocks, and exactly as one by one."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.ask import banks, rescore
from retrieval_detect.ask.detector import Detector
from retrieval_detect.errors import VectorError
from retrieval_detect.heads.ensemble import EnsembleHead
from retrieval_detect.heads.layers import LayersHead
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.exchange import EmbeddingsFile
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.heads import commit_head, training_set
from retrieval_detect.teach.members import member_scores
from retrieval_detect.teach.projections import commit_projection, fitted_projection
from retrieval_detect.types import METHODS, Embedded, Facts, ImageItem
from retrieval_detect.verdicts import Question
from tests.layered import WIDTHS, add, image, images, layered
from tests.rescoring import LAYERS, near_duplicates, rescored, written


def views_of(one, n):
    return [
        replace(copy, content_id=one.content_id, view=f"jpeg-{i}")
        for i, copy in enumerate(near_duplicates(one, n, seed=3))
    ]


def add_with_views(store, found, label, name, n):
    with store.writer() as writer:
        staging = writer.staging()
        rows = [each for one in found for each in (one, *views_of(one, n))]
        staging.add(rows)
        facts = Facts(label, **{"generator" if label == "fake" else "source": name})
        writer.add(Addition([NewRow(r.content_id, r.item.uri, facts, r.view) for r in rows]), staging)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """More references than are fetched at once, a clan of 40 near-duplicates, heads and a projection."""
    folder = tmp_path_factory.mktemp("rescore") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder.parent / "cache"))
        store = layered(folder, each=110)
        add(store, near_duplicates(image("flux-0", fake=True), 40, seed=1), "fake", "clan")
        for name, head in (("lr", LinearHead(normalise=False)), ("lay", LayersHead(epochs=2, width=8))):
            snapshot = store.snapshot()
            commit_head(store, name, head.fit(training_set(snapshot, head)), of=snapshot)
        both = member_scores(store.snapshot(), ["mean", "lr"])
        commit_head(store, "both", EnsembleHead().fit(both))
        snapshot = store.snapshot()
        commit_projection(store, "white", fitted_projection(snapshot, "whiten", ["proj", "pre"]), of=snapshot)
    return folder


@pytest.fixture
def store(built, tmp_path):
    return Store(shutil.copytree(built, tmp_path / "index"))


def queries():
    """New images, references of either split, near-duplicates of references, one of the clan."""
    flux = image("flux-0", fake=True)
    return [
        *images("camera", 12, since=500),
        *images("gan", 12, fake=True, since=500),
        *images("press", 10),
        *near_duplicates(image("sdxl-3", fake=True), 2, seed=5),
        *near_duplicates(flux, 2, seed=6),
        replace(image("odd-1"), width=2000, height=1500, format="JPEG"),
    ]


def embedded_again(path):
    """The rows of a file as ``Detector.judge`` takes them."""
    file = EmbeddingsFile(path)
    for rows in file.rows(range(len(file.row_groups)), LAYERS, at_once=7):
        for i, (uri, content_id) in enumerate(
            zip(rows.uris.to_pylist(), rows.content_ids.to_pylist(), strict=True)
        ):
            yield Embedded(
                ImageItem(uri, bytes),
                content_id,
                int(rows.phash[i]),
                int(rows.width[i]),
                int(rows.height[i]),
                rows.formats[i],
                {layer: x[i] for layer, x in rows.vectors.items()},
            )


def assert_as_one_by_one(store, path, question, *, within=1e-9):
    detector = Detector(store.snapshot())
    asked = {name: getattr(question, name) for name in Question.__slots__}
    found = rescored(store, path, question)
    singles = [detector.judge(one, **asked) for one in embedded_again(path)]
    assert len(found) == len(singles)
    for row, single in zip(found, singles, strict=True):
        assert (row["uri"], row["content_id"].hex()) == (single.input, single.sha256)
        assert row["verdict"] == single.verdict and row["error"] is None
        assert row["score"] == pytest.approx(single.score, rel=within, abs=within)
        assert row["nearest_fake"] == single.nearest["fake"]
        assert row["nearest_real"] == single.nearest["real"]
        assert row["top_generator"] == single.attribution[0].generator
        p = single.p_values or dict.fromkeys(("real", "fake", "typical"))
        # A score that ties with a calibration image may fall on either side of it by rounding.
        assert [row[f"p_{name}"] for name in ("real", "fake", "typical")] == [
            p[name] for name in ("real", "fake", "typical")
        ]
        assert row["log10_lr"] == (
            None if single.log10_lr is None else pytest.approx(single.log10_lr, abs=1e3 * within)
        )
    return found


# ---------------------------------------------------------------- the same as one by one


@pytest.mark.parametrize("projection", ["identity", "white"])
@pytest.mark.parametrize("method", [*METHODS, "lr", "lay", "both"])
def test_every_method(store, tmp_path, method, projection):
    path = written(tmp_path / "q.parquet", queries(), store)
    # LayersHead computes in float32, whose sums depend on how many rows there are.
    within = 1e-5 if method == "lay" else 1e-9
    assert_as_one_by_one(store, path, Question(method, projection=projection), within=within)


@pytest.mark.parametrize("k", [1, 30, 1000])
@pytest.mark.parametrize("method", ["density", "mean", "majority"])
def test_any_k(store, tmp_path, method, k):
    path = written(tmp_path / "q.parquet", queries(), store)
    assert_as_one_by_one(store, path, Question(method, k))


@pytest.mark.parametrize(
    "question",
    [
        Question(),
        Question("lr"),
        Question(fpr=0.2, confidence=0.9),
        Question(source="press", fpr=0.1),
        Question(within="source", fpr=0.1),
        Question(within="size", fpr=0.1),
        Question(within="format", fpr=0.1),
    ],
)
def test_with_a_calibration(store, tmp_path, question):
    commit_calibration(store, fit_calibration(store.snapshot(), Question(question.method)))
    path = written(tmp_path / "q.parquet", queries(), store)
    found = assert_as_one_by_one(store, path, question)
    assert len({row["verdict"] for row in found}) > 1


@pytest.mark.parametrize("projection", ["identity", "white"])
def test_views_in_the_banks(store, tmp_path, projection):
    add_with_views(store, images("camera", 30, since=900), "real", "camera", 5)
    add_with_views(store, images("viewed", 50, fake=True), "fake", "viewed", 5)
    asked = [*queries(), *images("viewed", 3, fake=True, since=600), *images("viewed", 3, fake=True)]
    path = written(tmp_path / "q.parquet", asked, store)
    assert_as_one_by_one(store, path, Question(projection=projection))
    assert_as_one_by_one(store, path, Question("nearest", projection=projection))


def test_what_a_query_of_the_image_says(store, tmp_path):
    asked = queries()
    detector = Detector(store.snapshot())
    for method, within in (("density", 1e-12), ("lr", 1e-6)):
        found = rescored(store, written(tmp_path / "q.parquet", asked, store), Question(method))
        for row, one in zip(found, asked, strict=True):
            single = detector.judge(one, method=method)
            assert row["score"] == pytest.approx(single.score, rel=within, abs=within)


def test_after_removals(store, tmp_path):
    snapshot = store.snapshot()
    gone = [int(i) for shard in snapshot.shards("fake", "bank") for i in shard.row_ids[::3]]
    with store.writer() as writer:
        writer.remove(gone, reason="test", detail={})
    path = written(tmp_path / "q.parquet", queries(), store)
    assert_as_one_by_one(store, path, Question())


def test_in_small_pieces_and_without_a_table_of_row_ids(store, tmp_path, monkeypatch):
    path = written(tmp_path / "q.parquet", queries(), store)
    whole = rescored(store, path, Question())
    for name, value in (("_NEIGHBOURS_AT_ONCE", 1), ("_LARGEST_GAP", 0)):
        monkeypatch.setattr(banks, name, value)
        assert rescored(store, path, Question()) == whole
    monkeypatch.setattr(rescore, "_ROWS_AT_ONCE", 5)
    assert rescored(store, path, Question()) == whole


# ---------------------------------------------------------------- rows that cannot be judged


def test_bad_rows_fail_alone(store, tmp_path):
    asked = images("camera", 6, since=500)
    path = written(tmp_path / "q.parquet", asked, store)
    table = pq.read_table(path)
    vectors = table["proj"].to_pylist()
    vectors[1] = [np.nan] * WIDTHS["proj"]
    vectors[4] = [0.0] * WIDTHS["proj"]
    column = table.schema.get_field_index("proj")
    field = table.schema.field(column)
    pq.write_table(table.set_column(column, field, pa.array(vectors, field.type)), path)
    found = rescored(store, path, Question())
    assert [row["error"] is None for row in found] == [True, False, True, True, False, True]
    assert found[1]["error"] == "bad-vector: a vector is zero or not finite"
    assert found[1]["verdict"] is None and found[1]["score"] is None and found[1]["uri"] == "camera-501.png"
    whole = rescored(store, written(path, asked, store), Question())
    assert [row for i, row in enumerate(whole) if i not in (1, 4)] == [r for r in found if not r["error"]]


def test_what_a_projection_cannot_take_fails_alone(store, tmp_path, monkeypatch):
    asked = images("camera", 9, since=500)
    path = written(tmp_path / "q.parquet", asked, store)
    whole = rescored(store, path, Question())
    given = banks.query_codes
    projection = Detector(store.snapshot()).methods.banks().projection
    lost = given(np.concatenate([asked[3].vectors[n] for n in projection.layers])[None], projection)

    def refusing(queries, projection):
        codes = given(queries, projection)
        if (codes == lost).all(axis=1).any():
            raise VectorError("a vector is zero once it is projected")
        return codes

    monkeypatch.setattr(banks, "query_codes", refusing)
    found = rescored(store, path, Question())
    assert found[3]["error"] == "bad-vector: a vector is zero once it is projected"
    assert found[:3] + found[4:] == whole[:3] + whole[4:]


def test_an_image_of_which_the_bank_holds_only_copies(tmp_path):
    store = layered(tmp_path / "index", each=20, fakes=())
    first = image("flux-0", fake=True)
    add(store, [first, *near_duplicates(first, 5, seed=1)], "fake", "flux")
    path = written(tmp_path / "q.parquet", [image("camera-90"), first], store)
    found = rescored(store, path, Question())
    assert found[0]["error"] is None and found[0]["verdict"]
    assert found[1]["error"] == "no-voters: no reference of the fake bank is left to vote"
    assert found[1]["verdict"] is found[1]["nearest_real"] is None
