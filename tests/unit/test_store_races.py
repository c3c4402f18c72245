"""What another process does between looking and taking: nothing is lost by it, and nothing called damaged."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from retrieval_detect.errors import IndexCorrupt, UsageError
from retrieval_detect.images.copies import launder_all
from retrieval_detect.images.items import from_bytes
from retrieval_detect.store import manifest
from retrieval_detect.store.select import kept_history
from retrieval_detect.store.shards import Shard
from retrieval_detect.store.sharing import export_index, import_index
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.store import Store
from tests.factories import add, names, new_store, png


@pytest.fixture
def store(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, names("a", 30), "fake", "g")
    add(store, names("b", 30), "real", "s")
    return store


@pytest.fixture
def just_before(monkeypatch):
    """Have something done just before a function is called the next time."""

    def arrange(owner, name, done):
        plain = getattr(owner, name)

        def called(*args, **kwargs):
            monkeypatch.setattr(owner, name, plain)
            done()
            return plain(*args, **kwargs)

        monkeypatch.setattr(owner, name, called)

    return arrange


def purged(store):
    with store.writer() as writer:
        writer.remove([0, 1], reason="", detail={})
        writer.compact(purge=True)


def test_of_two_who_create_an_index_one_is_refused(tmp_path, just_before):
    folder = tmp_path / "new"
    just_before(Path, "mkdir", lambda: add(new_store(folder), names("a", 3), "fake", "g"))
    with pytest.raises(UsageError, match="is an index already"):
        new_store(folder)
    assert Store(folder).snapshot().manifest.live_rows("fake") == 3


def test_a_folder_of_somebody_else_gets_no_lock_file(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an index"):
        new_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_import_replaces_no_index_that_came_meanwhile(store, tmp_path, just_before):
    file, folder = tmp_path / "file.tar", tmp_path / "taken"
    export_index(store.snapshot(), file)
    just_before(Path, "rename", lambda: add(new_store(folder), names("c", 3), "fake", "g"))
    with pytest.raises(UsageError, match="exists already"):
        import_index(file, folder, check=lambda _: None)
    assert Store(folder).snapshot().manifest.live_rows("fake") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "file.tar", "idx", "taken"]


def test_an_export_replaces_no_file_that_came_meanwhile(store, tmp_path, just_before):
    out = tmp_path / "out" / "file.tar"
    out.parent.mkdir()
    just_before(tarfile, "open", lambda: out.write_text("mine"))
    with pytest.raises(UsageError, match="exists already"):
        export_index(store.snapshot(), out)
    assert out.read_text() == "mine" and list(out.parent.iterdir()) == [out]


def test_a_laundered_copy_replaces_no_file_that_came_meanwhile(tmp_path, just_before):
    path = tmp_path / "copies" / "a.jpg"

    def come():
        path.parent.mkdir()
        path.write_text("mine")

    just_before(Path, "mkdir", come)
    items = [(from_bytes(png(1), "a.jpg"), "a.jpg")]
    (found,) = launder_all(items, path.parent, ("jpeg-80",), workers=1)
    assert found.reason == "exists" and path.read_text() == "mine"


@pytest.mark.parametrize(
    ("owner", "name"), [(manifest, "read_manifest"), (Snapshot, "check"), (Shard, "hold")]
)
def test_a_purge_while_an_index_is_opened(store, owner, name, just_before):
    """Its files are swept one by one, but there is a whole index all the time."""
    just_before(owner, name, lambda: purged(store))
    snapshot = Store(store.folder).snapshot()
    assert snapshot.manifest.generation == 4 and snapshot.manifest.live_rows("fake") == 28


def test_what_is_damaged_is_said_to_be(store):
    store.snapshot().shards()[0].path("near.npy").unlink()
    with pytest.raises(IndexCorrupt, match=r"near\.npy is missing"):
        store.snapshot()


def test_a_generation_that_is_swept_while_it_is_gone_back_to(store, just_before):
    just_before(Snapshot, "check", lambda: purged(store))
    with pytest.raises(UsageError, match="no generation 1 to go back to"):
        store.kept(1)
    assert [row["generation"] for row in kept_history(store.snapshot())] == [4]
