"""``rd query --report`` and ``rd index map``: what they write, and what they refuse before any work."""

from __future__ import annotations

import re

import pytest

from retrieval_detect.report.html import strings as t
from tests.building import one_error


def test_a_report_of_one_image(index, run_rd, bare_folder):
    result = run_rd(
        "query", "ask/0200.png", "--report", "out.html", "--stability", "2", "--evidence", "influence"
    )
    assert result.exit_code == 0, result.stderr
    page = (bare_folder / "out.html").read_text()
    assert page.count("<article") == 1 and "UNKNOWN: uncalibrated; nearer to the " in page and t.MAP in page
    assert "rd query ask/0200.png --index default --stability 2 --evidence influence" in page
    assert page.count('class="thumb" src="data:image/webp') == 10  # five of each bank, from their files


def test_a_report_of_many_names_what_could_not_be_judged(index, run_rd, bare_folder):
    (bare_folder / "ask" / "broken.png").write_bytes(b"no image")
    result = run_rd("query", "ask", "--report", "out.html")
    assert result.exit_code == 3 and result.stdout.count("\n") == 3
    page = (bare_folder / "out.html").read_text()
    assert page.count("<article") == 3 and page.count("<tr data-for=") == 3
    assert "ask/broken.png: this is not an image" in page


@pytest.mark.parametrize("part", ["no-thumbnails", "blur-faces"])
def test_pictures_that_must_not_travel(index, run_rd, bare_folder, part):
    assert run_rd("query", "ask/0200.png", "--report", f"out.html,{part}").exit_code == 0
    page = (bare_folder / "out.html").read_text()
    assert (t.NOT_SHOWN in page, t.BLURRED in page) == (part == "no-thumbnails", part == "blur-faces")
    assert bool(re.search(r"data:image", page)) == (part == "blur-faces")


@pytest.mark.parametrize(
    ("where", "said"), [("nowhere/out.html", "there is no folder nowhere"), ("ask", "ask is a folder")]
)
@pytest.mark.parametrize("command", [("query", "ask/0200.png", "--report"), ("index", "map")])
def test_a_place_that_cannot_be_written_is_refused_at_once(index, run_rd, embedded, command, where, said):
    result = run_rd(*command, where)
    assert said in one_error(result, 2) and not embedded and not result.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("ask/0200.png", "--report", "no-thumbnails"),
        ("ask/0200.png", "--report", "blur-faces"),
        ("ask/0200.png", "--report", "out.html,no-thumbnail"),
    ],
)
def test_options_that_do_not_go_together(index, run_rd, bare_folder, args):
    one_error(run_rd("query", *args), 2)
    assert not (bare_folder / "out.html").exists()


def test_an_image_that_cannot_be_judged_leaves_no_report(index, run_rd, bare_folder):
    (bare_folder / "broken.png").write_bytes(b"no image")
    assert run_rd("query", "broken.png", "--report", "out.html").exit_code == 1
    assert not (bare_folder / "out.html").exists()


# ---------------------------------------------------------------- map


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("colour", ["label", "generator", "source"])
def test_a_map_with_an_image_in_its_place(index, run_rd, bare_folder, method, colour):
    args = ("--method", method, "--colour", colour, "--query", "ask/0200.png")
    result = run_rd("index", "map", "map.html", *args)
    assert result.exit_code == 0, result.stderr
    page = (bare_folder / "map.html").read_text()
    assert len(re.findall(r"<title>(real|fake), \w+, row \d+</title>", page)) == 23
    legend = page.split('class="legend"')[1]
    named = {"label": "photographs, 12", "generator": "sdxl, 6", "source": "camera, 8"}
    assert named[colour] in legend
    assert (t.MAP_BY_FIT if method == "pca" else t.MAP_BY_NEIGHBOURS) in page and 'class="here"' in page


def test_a_map_without_an_image_embeds_nothing(index, run_rd, bare_folder, embedded):
    result = run_rd("index", "map", "map.html", "--json")
    assert result.exit_code == 0 and not embedded
    assert '"references": 23' in result.stdout
    assert 'class="here"' not in (bare_folder / "map.html").read_text()


def test_umap_says_what_is_missing(index, run_rd, bare_folder):
    pytest.importorskip("sklearn")
    try:
        import umap  # noqa: F401
    except ImportError:
        assert "umap-learn" in one_error(run_rd("index", "map", "map.html", "--method", "umap"), 2)
        assert not (bare_folder / "map.html").exists()
    else:
        assert run_rd("index", "map", "map.html", "--method", "umap").exit_code == 0
