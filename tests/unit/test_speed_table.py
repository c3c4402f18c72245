"""The table of speed: what is below its aim says so, and what was not measured stays open."""

from __future__ import annotations

import json

import pytest

from bench.speed import _walk, run
from bench.speed._aims import AIMS, table
from bench.speed.updates import table as updates_table

MACHINE = {"cpu": "one", "cores": 2, "gpu": None}
STAMP = {"date": "2026-01-02T00:00:00+00:00", "machine": MACHINE, "commit": "abcdef0123456789"}


def once(value):
    return {"median": value}


def updates(**changed):
    figures = {"files_bytes": 1000, "read_bytes": 1001, "again_s": once(3.0), "hash_s": once(2.0)}
    return {**STAMP, **figures, "stat_s": once(0.5), **changed}


def search(rd_s):
    lanes = {name: once(1.0) for name in ("faiss", "scikit-learn", "usearch")} | {"rd": once(rd_s)}
    block = {"n": 100_000, "queries": dict.fromkeys(("1", "32", "1024"), lanes)}
    block["memory"] = {"read_s": once(0.15)}
    sizes = {n: {"add_s": once(0.02), "open_s": once(0.001)} for n in ("10000", "1000000")}
    grown = {"sizes": sizes, "rebuild_faiss_flat_s": once(4.0)}
    return {**STAMP, "search": [block], "updates": grown, "memory": {"peak_bytes": 11, "vectors_bytes": 10}}


def lines(results):
    """Cells by the name of the work."""
    rows = [line.strip("| ").split(" | ") for line in table(results).splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_without_results_every_line_is_open():
    found = lines({})
    assert len(found) == len(AIMS)
    assert {cells[-1] for cells in found.values()} == {"open"}
    assert {cells[-2] for name, cells in found.items() if name.startswith("GPU")} == {"open: no GPU"}


def test_a_line_below_its_aim_says_so_and_where_to_read_why():
    work = "exact k-NN × 768, k = 10, q = 1"
    fast, slow = lines({"search": search(0.2)})[work], lines({"search": search(0.3)})[work]
    assert "100k faiss 5, " in fast[-2] and fast[-1].startswith("yes")
    assert "100k faiss 3.33, " in slow[-2]
    assert slow[-1].startswith("**no** for 100k faiss, ") and "; see [what did not help]" in slow[-1]


def test_who_was_not_there_is_named():
    found = lines({"search": search(0.2)})
    assert found["same, q = 32"][-1] == "yes (not there: lancedb)"
    assert found["add 1,000 to the larger bank"][-2:] == ["flat FAISS 200", "yes (not there: autofaiss)"]
    result = search(0.2)
    result["updates"]["autofaiss"] = {"n": 100_000, "build_s": 40.0}
    beside = lines({"search": result})["add 1,000 to the larger bank"]
    assert beside[-2:] == ["flat FAISS 200, autofaiss on 100k of them 2,000", "yes"]


@pytest.mark.parametrize(
    ("read", "holds"), [(1001, "yes"), (2002, "**no**"), (0, "**no**"), (None, "**no**")]
)
def test_a_build_run_again_reads_every_file_once(read, holds):
    assert lines({"updates": updates(read_bytes=read)})["a finished build run again"][-1] == holds


def test_machine_date_and_commit_are_told():
    last = table({"updates": updates()}).splitlines()[-1]
    assert last == "Measured on one, 2 cores: updates 2026-01-02 (abcdef012345)."


def test_the_newest_result_counts_and_tries_do_not(tmp_path):
    for day, quick in (("01", False), ("02", False), ("03", True)):
        result = updates(date=f"2026-01-{day}", quick=quick)
        (tmp_path / f"updates-2026-01-{day}.json").write_text(json.dumps(result))
    assert run.newest(tmp_path)["updates"]["date"] == "2026-01-02"
    assert run.newest(tmp_path, quick=True)["updates"]["date"] == "2026-01-03"


def test_the_committed_results_can_be_rendered():
    found = lines(run.newest(run.RESULTS))
    assert all(len(cells) == 4 for cells in found.values())
    assert found["`rd --help`, seconds"][-1] == "yes"


# ---------------------------------------------------------------- a finished build run again


@pytest.mark.parametrize("how", ["stat", "hash"])
def test_what_a_build_is_held_against_looks_at_every_file(tmp_path, capsys, how):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(bytes(10))
    (tmp_path / "a" / "b" / "two").write_bytes(bytes(5))
    _walk.main(how, str(tmp_path), str(tmp_path / "a"))
    assert capsys.readouterr().out == "20\n"


def test_what_is_beyond_two_pictures_is_told_by_the_picture():
    measured = updates(
        images=1000, again_few_s=once(1.0), peak_bytes={"again": 5_000_000, "again_few": 3_000_000}
    )
    text = updates_table(measured)
    assert "| 2000 µs a picture beyond that |" in text and "| 2,000 bytes a picture beyond that |" in text
    assert "| 1.50 × that |" in text and "| 6.0 × that |" in text
