"""The notebook in docs, cell by cell as a reader runs it, on made-up folders."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from retrieval_detect import WeightsUnavailable, load_encoder
from retrieval_detect.ask.table import SCHEMA
from tests.factories import write_pictures

NOTEBOOK = json.loads((Path(__file__).parents[2] / "docs" / "first-hour.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, object]) -> object:
    """Run a cell; the value of its last line, as a notebook would show it."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    try:
        load_encoder("efficientnet-lite0", offline=True)
    except WeightsUnavailable as error:
        pytest.skip(error.message)
    monkeypatch.chdir(tmp_path)
    for source, start in (("camera", 0), ("phone", 100)):
        write_pictures(tmp_path / "photos" / source, range(start, start + 60))
    write_pictures(tmp_path / "generated" / "sdxl", range(200, 320), fake=True)
    write_pictures(tmp_path / "inbox", range(400, 404))
    write_pictures(tmp_path / "inbox", range(404, 408), fake=True)
    (tmp_path / "inbox" / "z.png").write_bytes(b"no image")
    return tmp_path


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_it_says(folders, capsys):
    names: dict[str, object] = {}
    shown = [run(source, names) for source in CODE]
    index, verdict, evidence, rows, sheet, _ = shown
    assert "120 real, 120 fake (sdxl), encoder efficientnet-lite0" in repr(index)
    assert verdict._repr_html_().startswith("<iframe sandbox") and verdict.calibration is not None
    assert len(evidence) == 3 and set(rows[0]) < set(SCHEMA.names)
    table = pq.read_table("verdicts.parquet")
    assert table.schema == SCHEMA and table["error"].is_valid().to_pylist() == [False] * 8 + [True]
    assert sheet.size == (840, 280)
    said = capsys.readouterr().out
    assert "<9 images: " in said and "1 failed" in said and "because" in said
    assert said.count("AUC 1.000") == 2  # the grid of these fakes is there for all to see
    assert repr(run(CODE[0], {})) == repr(index)  # run again, it opens what it built


def test_no_output_is_kept():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids) and len(CODE) == 6
    for cell in NOTEBOOK["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)
