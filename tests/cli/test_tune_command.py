"""``rd index tune``: what is said, what is written, and what is refused. The index is tiny."""

from __future__ import annotations

import json

import pytest

from retrieval_detect.teach import tune
from tests.building import one_error


@pytest.fixture
def large(index, monkeypatch):
    """The index as if it were worth tuning: with so few rows every kind finds them all."""
    monkeypatch.setattr(tune, "SMALL_ROWS", 1)
    monkeypatch.setattr(tune, "WORTH", 1e9)
    return index


def record(run_rd, *args):
    result = run_rd("index", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_small_index_stays_exact(index, run_rd, contents):
    before = contents(index)
    result = run_rd("index", "tune")
    assert result.exit_code == 0, result.stderr
    assert "Best: exact (the real and the fake bank is so small" in result.stdout
    assert "Banks are searched exactly, as before: generation 1." in result.stdout
    assert contents(index) == before
    assert "search       exact\n" in run_rd("index", "info").stdout


def test_trying_writes_nothing(large, run_rd, contents):
    run_rd("query", "new", "--json")
    before = contents(large)
    result = run_rd("index", "tune", "--kinds", "ivf-sq8,hnsw", "--dry-run")
    assert "Nothing was written." in result.stdout and contents(large) == before
    lines = result.stdout.splitlines()
    assert lines[0].endswith("references of the banks")
    assert " ".join(lines[1].split()) == "bank search of 10 of 200 by itself in a batch"
    assert [line.split()[:2] for line in lines[2:8]] == [
        [label, kind] for label in ("real", "fake") for kind in ("exact", "ivf-sq8,", "hnsw,")
    ]


def test_choosing_and_going_back(large, run_rd):
    chosen = record(run_rd, "tune", "--kinds", "hnsw", "--recall", "0.9")
    assert (chosen["search"], chosen["generation"], chosen["recall"]) == ("hnsw", 2, 0.9)
    assert {(t["label"], t["kind"]) for t in chosen["tried"]} == {
        (label, kind) for label in ("real", "fake") for kind in ("exact", "hnsw")
    }
    facts = record(run_rd, "info")["search"]
    assert (facts["kind"], facts["in_use"], facts["stale"]) == ("hnsw", True, False)
    assert facts["banks"]["real"]["recall"] == {"10": 1.0, "200": 1.0}
    text = run_rd("index", "info").stdout
    assert "search       approximate (hnsw); found of the nearest: real bank 100.0% of 10" in text
    assert "only exact search was compared" in run_rd("index", "verify").stdout
    (verdict,) = json.loads(run_rd("query", "new/0080.png", "--json").stdout)
    assert any(w.startswith("approximate search (hnsw)") for w in verdict["warnings"])
    back = run_rd("index", "tune", "--exact")
    assert "Banks are searched so from generation 3 on. Undo: rd bank rollback 2" in back.stdout
    assert record(run_rd, "info")["search"] is None


def test_going_back_can_be_tried(large, run_rd):
    run_rd("index", "tune", "--kinds", "hnsw")
    assert "Nothing was written." in run_rd("index", "tune", "--exact", "--dry-run").stdout
    assert record(run_rd, "info")["search"]["kind"] == "hnsw"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--kinds", "lsh"), "there is no kind of index 'lsh'"),
        (("--kinds", ""), "there is no kind of index ''"),
        (("--recall", "98"), "a recall of 98.0 cannot be asked for"),
        (("--exact", "--recall", "0.9"), "--exact tries nothing"),
    ],
)
def test_refusals(index, run_rd, contents, args, says):
    before = contents(index)
    assert says in one_error(run_rd("index", "tune", *args), 2)
    assert contents(index) == before


def test_a_kind_of_another_build(index, run_rd):
    from retrieval_detect.search._faiss import faiss

    if hasattr(faiss(), "GpuIndexCagra"):
        pytest.skip("this FAISS has CAGRA")
    error = one_error(run_rd("index", "tune", "--kinds", "cagra"), 1)
    assert "this FAISS has no GpuIndexCagra" in error and "retrieval-detect[gpu-cuvs]" in error
