"""``rd fit projection`` and what it changes, as people and scripts meet it."""

from __future__ import annotations

import json
import shutil

import pytest

from retrieval_detect.projections.registry import KINDS
from retrieval_detect.store.store import Store
from tests.building import one_error
from tests.cli.layered import build

LAYERS = ("--layers", "proj,block01")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture
def index(built, bare_folder):
    for name in ("ask", "new", "drone", "index"):
        shutil.copytree(built / name, bare_folder / name)
    return bare_folder / "index" / "default"


def fit(run_rd, *args, exit_code=0):
    result = run_rd("fit", "projection", *args)
    assert result.exit_code == exit_code, result.stderr
    return result


def info(run_rd):
    return json.loads(run_rd("index", "info", "--json").stdout)


def verdicts(run_rd, *args):
    result = run_rd("query", "ask", "--json", *args)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_for_people(index, run_rd):
    result = fit(run_rd, "white", "--kind", "whiten", *LAYERS)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Projection white (whiten): proj, block01 → 56 dimensions, temperature 0.")
    assert "known: 0." in lines[1] and "with 20" in lines[1]
    assert "was fitted with them" in lines[2]
    assert lines[-1] == "  Banks are searched through it, generation 3. Undo: rd bank rollback 2"
    assert "fitting whiten" in result.stderr
    shown = run_rd("index", "info").stdout
    assert "\nprojection   white, of identity, white (whiten)\n" in shown
    assert "\ncalibration  density, density--white\n" in shown


def test_for_programs(index, run_rd):
    record = json.loads(fit(run_rd, "white", "--kind", "whiten", *LAYERS, "--json").stdout)
    assert (record["name"], record["kind"], record["d"], record["generation"]) == ("white", "whiten", 56, 3)
    assert record["layers"] == ["proj", "block01"] and set(record["facts"]["held_out_auc"]) == {
        "0",
        "5",
        "20",
    }
    facts = info(run_rd)
    assert facts["projection"] == "white" and facts["projections"] == {
        "white": {"kind": "whiten", "stale": False}
    }
    assert facts["heads"] == {}


def test_a_plain_layer_is_fitted_on_nothing(index, run_rd):
    shown = fit(run_rd, "early", "--kind", "identity", "--layers", "block01").stdout
    assert "was fitted with them" not in shown and "block01 → 24 dimensions" in shown


def test_verdicts_follow_the_default_and_the_option(index, run_rd):
    plain = verdicts(run_rd)
    fit(run_rd, "white", "--kind", "whiten", *LAYERS)
    white, flat = verdicts(run_rd), verdicts(run_rd, "--set", "projection=identity")
    assert [v["score"] for v in flat] == [v["score"] for v in plain]
    assert [v["p_values"] for v in flat] == [v["p_values"] for v in plain]
    assert [v["score"] for v in white] != [v["score"] for v in plain]
    assert all(v["p_values"] for v in white)
    said = fit(run_rd, "identity").stdout
    assert said == "Banks are searched through identity, generation 4.\n"
    assert [v["score"] for v in verdicts(run_rd)] == [v["score"] for v in plain]
    assert [v["score"] for v in verdicts(run_rd, "--set", "projection=white")] == [v["score"] for v in white]
    assert fit(run_rd, "white").exit_code == 0 and info(run_rd)["projection"] == "white"


def test_a_rollback_undoes_it(index, run_rd):
    before = verdicts(run_rd)
    fit(run_rd, "white", "--kind", "whiten", *LAYERS)
    assert run_rd("bank", "rollback", "2").exit_code == 0
    assert info(run_rd)["projection"] == "identity" and info(run_rd)["projections"] == {}
    assert [v["score"] for v in verdicts(run_rd)] == [v["score"] for v in before]


@pytest.mark.parametrize("args", [("white", "--kind", "whiten"), ("identity",)])
def test_a_dry_run_writes_nothing(index, run_rd, contents, args):
    before = contents(index)
    result = fit(run_rd, *args, "--dry-run")
    assert "Nothing was written." in result.stdout and "Undo" not in result.stdout
    assert contents(index) == before
    assert "generation" not in json.loads(fit(run_rd, *args, "--dry-run", "--json").stdout)


def test_additions_and_removals_keep_a_whitening_fresh_unless_nobody_fits_it(index, run_rd):
    fit(run_rd, "white", "--kind", "whiten", *LAYERS)
    assert run_rd("bank", "add", "new", "--label", "fake", "--generator", "new").exit_code == 0
    assert info(run_rd)["projections"]["white"]["stale"] is False
    assert not any("rd fit" in w for v in verdicts(run_rd) for w in v["warnings"])
    assert run_rd("bank", "add", "drone", "--label", "real", "--source", "drone").exit_code == 0
    assert info(run_rd)["projections"]["white"]["stale"] is False
    rows = json.loads(run_rd("bank", "list", "--by", "row", "--json").stdout)
    first = next(row["row_id"] for row in rows if (row["label"], row["split"]) == ("real", "bank"))
    assert run_rd("bank", "remove", "--row", str(first), "--yes").exit_code == 0
    assert info(run_rd)["projections"]["white"]["stale"] is False
    with Store(index).writer() as writer:
        writer.remove([first + 1], reason="", detail={})
    assert info(run_rd)["projections"]["white"]["stale"] is True
    assert "white (whiten, stale)" in run_rd("index", "info").stdout
    for verdict in verdicts(run_rd):
        assert sum("projection white was fitted on other references" in w for w in verdict["warnings"]) == 1
        assert verdict["p_values"]
    fit(run_rd, "white", "--kind", "whiten", *LAYERS)
    assert not any("rd fit" in w for v in verdicts(run_rd) for w in v["warnings"])
    assert run_rd("index", "verify").exit_code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("white",), "there is no projection 'white'"),
        (("white", "--layers", "pre"), "--kind is missing"),
        (("white", "--set", "steps=3"), "--kind is missing"),
        (("white", "--kind", "whitten"), "Did you mean 'whiten'?"),
        (("identity", "--kind", "whiten"), "cannot name a fitted projection"),
        (("White", "--kind", "whiten"), "lower-case"),
        (("white", "--kind", "whiten", "--layers", "block07"), "It stores: proj, pre, block01"),
        (("white", "--kind", "whiten", "--set", "steps=3"), "nothing called steps to set"),
        (("white", "--kind", "whiten", "--set", "shrinkage=2"), "shrinkage is '2'"),
        (("white", "--kind", "whiten", "--set", "shrinkage=nan"), "shrinkage is 'nan'"),
        (("white", "--kind", "concat", "--set", "weights=1,2"), "2 weights for 1 layers"),
        (("white", "--kind", "concat", "--set", "learn=yes"), "one layer"),
        (("white", "--kind", "mask", "--set", "max-removed=nan"), "max_removed is nan"),
        (("white", "--kind", "heads"), "holds no heads"),
        ((), "NAME"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(index, run_rd, contents, args, said):
    before = contents(index)
    assert said in one_error(run_rd("fit", "projection", *args), 2)
    assert contents(index) == before


def test_the_help_names_every_kind_and_no_default_that_is_not_everyone_s(run_rd):
    shown = " ".join(run_rd("fit", "projection", "--help").stdout.split())
    assert all(kind in shown for kind in KINDS)
    listed = " ".join(run_rd("fit", "projection", "--set", "help").stdout.split())
    assert "(whiten, lda, nca)." in listed and "Blocks tried at most (mask) (default: 40)." in listed
