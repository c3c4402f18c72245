from __future__ import annotations

import pytest
from click.testing import CliRunner

from retrieval_detect.cli.main import rd


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_calls_rd_back(run_rd, shell):
    result = run_rd("doctor", "--completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"_RD_COMPLETE={shell}_complete " in result.stdout


def complete(words: str, position: int) -> list[str]:
    variables = {"_RD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    result = CliRunner().invoke(rd, prog_name="rd", env=variables)
    return result.stdout.split()


@pytest.fixture
def home(bare_folder):
    for name in ("default", "clip-l14"):
        (bare_folder / "index" / name).mkdir(parents=True)
        (bare_folder / "index" / name / "CURRENT").write_text("1\n")
    (bare_folder / "index" / "recipes").mkdir()


def test_index_names_complete_before_and_after_a_command(home):
    assert complete("rd --index ", 2) == ["plain,clip-l14", "plain,default"]
    assert complete("rd doctor --index cl", 3) == ["plain,clip-l14"]


def test_a_path_completes_as_folders(home):
    assert complete("rd --index ./in", 2) == ["dir,./in"]


def test_a_broken_setting_does_not_spoil_the_line(bare_folder):
    (bare_folder / "rd.toml").write_text("nonsense")
    assert complete("rd --index ", 2) == []
