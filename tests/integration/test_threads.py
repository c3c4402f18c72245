"""One snapshot, many threads: each reads what it would alone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.factories import add, names, new_store
from tests.formats import as_format_1

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("version", [1, 2])
def test_threads_that_read_one_snapshot(tmp_path, version):
    store = new_store(tmp_path / "index")
    for label, n in (("real", 900), ("fake", 600)):
        images = [replace(image, thumbnail=image.content_id * 40) for image in names(label, n)]
        add(store, images, label, "camera")
    if version == 1:
        as_format_1(store)
    command = [sys.executable, "-m", "tests.integration.crowd", str(store.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found.pop("hangs") == 0
    assert found.keys() == {"right"} and found["right"] > 10
