"""``--views``: laundered copies beside references, from the command line and from a recipe."""

from __future__ import annotations

import json
from collections import Counter

from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.types import VIEW_KINDS
from tests.building import BOTH, TINY, build, one_error


def kinds(index):
    views = Snapshot.open(index).scan(["view"])["view"].to_pylist()
    return Counter(view.partition("-")[0] for view in views)


def test_building_with_views(pictures, run_rd):
    result = build(run_rd, "--views", "jpeg,crops", "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["added"] == 23 and record["views"] == 23 * 5
    assert record["references"] == {"real": 12, "fake": 11}
    index = pictures / "index" / "default"
    assert kinds(index) == {"original": 23, "jpeg": 23, "crops": 92}
    by = json.loads(run_rd("bank", "list", "--by", "label", "--json").stdout)
    assert {row["label"]: row["references"] for row in by} == {"real": 12, "fake": 11}
    assert json.loads(run_rd("index", "verify", "--json").stdout)["problems"] == []
    assert run_rd("query", "ask", "--json").exit_code == 0


def test_a_recipe_with_views(pictures, run_rd):
    recipe = pictures / "mine.toml"
    text = 'encoder = "tiny"\nviews = ["resize", "webp"]\n'
    for label, path in (("real", "photos"), ("fake", "generated")):
        text += f'[[references]]\nlabel = "{label}"\npaths = ["{path}"]\n'
    recipe.write_text(text)
    assert run_rd("build-index", str(recipe)).exit_code == 0
    assert kinds(pictures / "index" / "default") == {"original": 23, "resize": 23, "webp": 23}
    recipe.write_text(text.replace("webp", "sepia"))
    complaint = one_error(run_rd("build-index", str(recipe)), 2)
    assert "mine.toml: 'sepia' is not a kind of view" in complaint and "jpeg, webp" in complaint


def test_a_dry_run_says_how_many(index, run_rd, contents):
    before = contents(index)
    result = run_rd("bank", "add", "new", "--label", "fake", "--views", "jpeg,crops", "--dry-run")
    assert "0 real, 4 fake, and up to 40 views" in result.stdout
    result = run_rd("build-index", *BOTH, *TINY, "--views", "jpeg", "--dry-run", "--json")
    record = json.loads(result.stdout)
    assert (record["new"], record["views_at_most"]) == ({"real": 0, "fake": 0}, 23)
    assert contents(index) == before


def test_views_for_references_that_are_there(index, run_rd, embedded):
    result = build(run_rd, "--views", "jpeg")
    assert result.exit_code == 0, result.stderr
    assert "23 of them without some of the views" in result.stderr and "0 and 23 views added" in result.stdout
    assert "rd bank rollback 1" in result.stdout
    assert sum(embedded) == 23 and kinds(index) == {"original": 23, "jpeg": 23}
    assert build(run_rd, "--views", "jpeg").exit_code == 0 and sum(embedded) == 23
    added = run_rd("bank", "add", "new", "--label", "fake", "--generator", "g", "--views", "blur", "--json")
    assert json.loads(added.stdout)["views"] == 4


def test_removing_counts_images(index, run_rd):
    build(run_rd, "--views", "jpeg,crops")
    removed = run_rd("bank", "remove", "--among", "generator=flux", "--yes", "--json")
    assert json.loads(removed.stdout)["removed"] == 5
    assert kinds(index) == {"original": 18, "jpeg": 18, "crops": 72}
    rows = json.loads(run_rd("bank", "list", "--by", "view", "--json").stdout)
    assert {row["view"]: row["references"] for row in rows}["original"] == 18


def test_help_names_every_kind(run_rd):
    for command in (("build-index",), ("bank", "add")):
        words = " ".join(run_rd(*command, "--help").stdout.split())
        assert f"each image: {', '.join(VIEW_KINDS)}." in words


def test_kinds_that_are_none(pictures, run_rd):
    complaint = one_error(build(run_rd, "--views", "jpeg,sepia"), 2)
    assert "--views: 'sepia' is not a kind of view" in complaint and "crops" in complaint
    assert not (pictures / "index" / "default").exists()
