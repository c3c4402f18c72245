"""Many clients at once: each gets the answer it would have had alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.teach.build import Index
from tests.factories import add, names

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_clients_that_ask_at_once(tmp_path):
    """So many references that their rows lie in several parts of a file: threads come for each other's."""
    store = Index.create(tmp_path / "index", encoder=TinyEncoder()).store
    add(store, names("fake", 16_000), "fake", "gan")
    add(store, names("real", 200), "real", "camera")
    command = [sys.executable, "-m", "tests.web.crowd", str(store.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found.pop("hangs") == 0
    assert found.keys() == {"right"} and found["right"] > 30, found
