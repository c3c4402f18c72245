"""Folders of verdicts: written whole, gone on with, made anew where anything differs."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from retrieval_detect.ask import rescore
from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.rescore import Rescoring, write_verdicts
from retrieval_detect.errors import UsageError
from retrieval_detect.files import write_bytes
from retrieval_detect.store.store import Store
from retrieval_detect.verdicts import Question
from tests.layered import add, image, images, layered
from tests.rescoring import near_duplicates, rescored, written


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder.parent / "cache"))
        layered(folder, each=20)
    return folder


@pytest.fixture
def store(built, tmp_path):
    return Store(shutil.copytree(built, tmp_path / "index"))


def queries():
    return [*images("camera", 12, since=500), *images("gan", 12, fake=True, since=500)]


@pytest.fixture
def small_shards(monkeypatch):
    """Files of three shards: the writer's row groups and the shards are small."""
    monkeypatch.setattr("retrieval_detect.store.exchange._ROWS_AT_ONCE", 4)
    monkeypatch.setattr(rescore, "ROWS_A_SHARD", 8)


@pytest.fixture
def folder(store, tmp_path, small_shards):
    """Two files of 20 and 4 rows."""
    (tmp_path / "in").mkdir()
    written(tmp_path / "in" / "a.parquet", queries()[:20], store)
    written(tmp_path / "in" / "b.parquet", queries()[20:24], store)
    return tmp_path / "in"


def write(store, folder, out, method="density", **options):
    done = []
    rescoring = Rescoring(Detector(store.snapshot()), Question(method), folder, **options)
    tally, n_kept = write_verdicts(rescoring, out, progress=done.append)
    assert sum(done) == tally.rows == 24
    return tally, n_kept


def shards(out):
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in sorted(out.glob("*.parquet"))}


def test_shards_hold_what_is_streamed(store, folder, tmp_path):
    tally, n_kept = write(store, folder, tmp_path / "out")
    assert list(shards(tmp_path / "out")) == [*(f"a.0000{i}.parquet" for i in range(3)), "b.00000.parquet"]
    found = [
        row for name in shards(tmp_path / "out") for row in pq.read_table(tmp_path / "out" / name).to_pylist()
    ]
    assert found == rescored(store, folder, Question())
    assert (tally.shown, tally.failed, n_kept, tally.verdicts.total()) == (24, 0, 0, 24)


def test_finished_shards_are_kept_and_damaged_ones_made_again(store, folder, tmp_path):
    first, _ = write(store, folder, tmp_path / "out")
    before = shards(tmp_path / "out")
    assert write(store, folder, tmp_path / "out") == (first, 4) and shards(tmp_path / "out") == before
    write_bytes(tmp_path / "out" / "a.00001.parquet", before["a.00001.parquet"][1][:-1] + b"?")
    (tmp_path / "out" / "b.00000.parquet").unlink()
    assert write(store, folder, tmp_path / "out") == (first, 2)
    after = shards(tmp_path / "out")
    assert {name: data for name, (_, data) in after.items()} == {n: data for n, (_, data) in before.items()}
    assert after["a.00000.parquet"] == before["a.00000.parquet"]


def test_an_interrupted_run_goes_on(store, folder, tmp_path, monkeypatch):
    ask = Rescoring.tables

    def until_the_third(self, piece):
        if piece.name == "a.00002.parquet":
            raise KeyboardInterrupt
        return ask(self, piece)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Rescoring, "tables", until_the_third)
        write(store, folder, tmp_path / "out")
    assert len(shards(tmp_path / "out")) == 2
    state = tmp_path / "out" / rescore.STATE
    state.write_bytes(state.read_bytes()[:-20])
    assert write(store, folder, tmp_path / "out")[1] == 1


def test_another_question_input_or_generation_is_another_answer(store, folder, tmp_path):
    write(store, folder, tmp_path / "out")
    assert write(store, folder, tmp_path / "out", "mean")[1] == 0
    written(folder / "b.parquet", queries()[:4], store)
    assert write(store, folder, tmp_path / "out", "mean")[1] == 3
    add(store, images("press", 3, since=700), "real", "press")
    assert write(store, folder, tmp_path / "out", "mean")[1] == 0
    (folder / "b.parquet").rename(folder / "c.parquet")
    rescoring = Rescoring(Detector(store.snapshot()), Question("mean"), folder)
    assert write_verdicts(rescoring, tmp_path / "out", progress=lambda n: None)[1] == 3
    assert "b.00000.parquet" not in shards(tmp_path / "out")


def test_nothing_foreign_is_written_over(store, folder, tmp_path):
    with pytest.raises(UsageError, match="holds other things than verdicts"):
        write(store, folder, folder)


def test_only_what_changed(store, folder, tmp_path):
    before = rescored(store, folder, Question("nearest"))
    generation = store.snapshot().manifest.generation
    taught = near_duplicates(image("camera-503"), 1, seed=8)[0]
    add(store, [replace(taught, phash=taught.phash ^ (2**63 - 1))], "fake", "new")
    now = rescored(store, folder, Question("nearest"))
    changed = rescored(store, folder, Question("nearest"), since=generation)
    expected = [
        {**new, "verdict_before": old["verdict"], "score_before": old["score"]}
        for new, old in zip(now, before, strict=True)
        if (new["score"] > 0) != (old["score"] > 0)
    ]
    assert {row["reason"] for row in now} == {"uncalibrated"}
    assert changed == expected and "camera-503.png" in {row["uri"] for row in changed}
    tally, _ = write(store, folder, tmp_path / "out", "nearest", since=generation)
    assert (tally.rows, tally.shown) == (24, len(expected)) and len(expected) < 24


@pytest.mark.parametrize(
    ("since", "said"), [(0, "bank was empty"), (99, "is in force"), (-1, "not there any")]
)
def test_generations_that_cannot_be_compared_with(store, folder, since, said):
    with pytest.raises(UsageError, match=said):
        Rescoring(Detector(store.snapshot()), Question(), folder, since=since)
