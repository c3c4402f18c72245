"""``rd head list | import | remove``, as people and scripts meet them."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.building import one_error
from tests.cli.layered import build
from tests.factories import SHARED_DATA

PUBLISHED = SHARED_DATA / "ufd_fc_weights.pth"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture
def index(built, bare_folder):
    for name in ("ask", "index"):
        shutil.copytree(built / name, bare_folder / name)
    return bare_folder / "index" / "default"


def heads(run_rd):
    result = run_rd("head", "list", "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def done(result):
    assert result.exit_code == 0, result.stderr
    return result


def test_none_yet(index, run_rd):
    result = done(run_rd("head", "list"))
    assert "No heads yet" in result.stderr and heads(run_rd) == []


def test_the_list(index, run_rd):
    done(run_rd("train", "linear", "--name", "lr"))
    done(run_rd("train", "ensemble", "--members", "density,lr", "--name", "both"))
    assert heads(run_rd) == [
        {"name": "lr", "kind": "linear", "reads": "proj", "stale": False},
        {"name": "both", "kind": "ensemble", "reads": "density, lr", "stale": False},
    ]
    done(run_rd("bank", "remove", "--generator", "flux", "--yes"))
    assert [head["stale"] for head in heads(run_rd)] == [True, True]
    assert "lr    linear    proj         yes" in run_rd("head", "list").stdout


# ---------------------------------------------------------------- removing


def test_removing_takes_the_calibration_along_and_a_rollback_brings_both_back(index, run_rd):
    done(run_rd("train", "linear", "--name", "lr"))
    done(run_rd("fit", "calibration", "--method", "lr"))
    assert done(run_rd("head", "remove", "lr")).stdout == "Removed head lr, generation 5.\n"
    facts = json.loads(run_rd("index", "info", "--json").stdout)
    assert heads(run_rd) == [] and set(facts["calibrations"]) == {"density"}
    said = one_error(run_rd("query", "ask", "--method", "lr"), 2)
    assert "has no method 'lr'" in said and "none (rd train)" in said
    done(run_rd("bank", "rollback", "4"))
    verdicts = json.loads(done(run_rd("query", "ask", "--method", "lr", "--json")).stdout)
    assert all(verdict["p_values"] for verdict in verdicts)


def test_a_dry_run_removes_nothing(index, run_rd, contents):
    done(run_rd("train", "linear", "--name", "lr"))
    before = contents(index)
    assert "Nothing was written." in done(run_rd("head", "remove", "lr", "--dry-run")).stdout
    assert contents(index) == before


def test_what_cannot_be_removed(index, run_rd, contents):
    done(run_rd("train", "linear", "--name", "lr"))
    done(run_rd("train", "ensemble", "--members", "density,lr", "--name", "both"))
    before = contents(index)
    for dry in ((), ("--dry-run",)):
        assert "ensemble 'both' is made of 'lr'" in one_error(run_rd("head", "remove", "lr", *dry), 2)
        assert "no head 'nope'" in one_error(run_rd("head", "remove", "nope", *dry), 2)
    assert contents(index) == before


# ---------------------------------------------------------------- weights of others


def weights(path, width):
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.ones(1, width), "bias": torch.zeros(1)}, path)
    return str(path)


def test_weights_of_another_width(index, run_rd, contents, bare_folder):
    before = contents(index)
    said = one_error(run_rd("head", "import", weights(bare_folder / "fc.pth", 768)), 2)
    assert "take 768 dimensions, layer proj of tiny has 32" in said and "ViT-L-14" in said
    said = one_error(run_rd("head", "import", weights(bare_folder / "fc.pth", 32)), 2)
    assert "not (1, 768)" in said
    assert contents(index) == before


def test_what_is_no_weights_file(index, run_rd, contents, bare_folder):
    (bare_folder / "text.pth").write_text("hello")
    before = contents(index)
    one_error(run_rd("head", "import", "text.pth"), 2)
    one_error(run_rd("head", "import", "missing.pth"), 2)
    assert "cannot name" in one_error(run_rd("head", "import", "text.pth", "--name", "mean"), 2)
    assert contents(index) == before


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the shared data are not here")
def test_the_published_weights_do_not_fit_a_toy(index, run_rd):
    pytest.importorskip("torch")
    assert "take 768 dimensions" in one_error(run_rd("head", "import", str(PUBLISHED)), 2)
