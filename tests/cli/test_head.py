"""``rd head import``, as people and scripts meet it."""

from __future__ import annotations

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


def done(result):
    assert result.exit_code == 0, result.stderr
    return result


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
