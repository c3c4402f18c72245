"""docs/numbers.md and the README's table: what the benchmarks render from their results, nothing by hand."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
import warnings

import pytest

from bench import _numbers
from bench._numbers import MARKED, PAGE, README, block_of, put

ROOT = PAGE.parents[1]


@pytest.fixture
def page(tmp_path):
    found = tmp_path / "numbers.md"
    found.write_text("a\n<!-- x: python -m bench.x --render old.json -->\nold\n<!-- /x -->\nb\n")
    return found


def test_a_block_is_replaced_and_names_what_wrote_it(page):
    assert put("x", "python -m bench.x --render new.json", "new\n", page)
    wanted = "a\n<!-- x: python -m bench.x --render new.json -->\n\nnew\n\n<!-- /x -->\nb\n"
    assert page.read_text() == wanted
    assert put("x", "python -m bench.x --render new.json", "new", page) and page.read_text() == wanted


def test_a_page_without_the_block_stays_as_it_is(page):
    before = page.read_text()
    assert not put("y", "python -m bench.y", "new", page) and page.read_text() == before


def run(command):
    """As it is typed in the checkout, but in this process: each in its own would load torch again."""
    _, _, module, *arguments = shlex.split(command)
    sys.argv = [module, *arguments]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of runpy: the module may be loaded already
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as ended:
            assert not ended.code, command


def test_committed_results_render_what_the_pages_say(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name in ("PAGE", "README"):
        page = getattr(_numbers, name)
        empty = MARKED.sub(lambda m: m[0].replace(m["text"], ""), page.read_text())
        (tmp_path / page.name).write_text(empty)
        monkeypatch.setattr(_numbers, name, tmp_path / page.name)
    for page in (PAGE, README):
        for block in MARKED.finditer(page.read_text()):
            run(block["command"])
        rendered, wanted = (tmp_path / page.name).read_text(), page.read_text()
        blocks = zip(MARKED.finditer(rendered), MARKED.finditer(wanted), strict=True)
        assert [a["name"] for a, b in blocks if a[0] != b[0]] == [], page.name
        assert rendered == wanted


def test_every_committed_result_has_its_block():
    blocks = {block["name"] for block in MARKED.finditer(PAGE.read_text())}
    assert {block_of(path) for path in (ROOT / "bench" / "results").glob("*.json")} <= blocks


def test_every_number_says_when_and_on_what_it_was_measured():
    for block in MARKED.finditer(PAGE.read_text()):
        assert re.search(r"\d{4}-\d\d-\d\d", block["text"]), block["name"]
        assert re.search(r"AMD|Intel|NVIDIA|Apple", block["text"]), block["name"]
