from __future__ import annotations

import shutil

import pytest

pytest.importorskip("fastapi", reason="rd serve needs the extra [web]")
from tests.serving import client, small_index


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """What outlives a test has a cache of its own, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """One index for all tests that only read it."""
    return small_index(tmp_path_factory.mktemp("served"))


@pytest.fixture
def folder(built, tmp_path):
    """An index of one's own, with the files it was made from."""
    shutil.copytree(built.parent, tmp_path / "served")
    return tmp_path / "served" / "index"


@pytest.fixture
def web(built):
    with client(built) as made:
        yield made
