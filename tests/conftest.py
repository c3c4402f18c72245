"""What every test gets: its own cache and home, no settings from outside, no network."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("RD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
