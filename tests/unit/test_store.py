"""The store: what a generation holds, and that nothing it promises can be lost by the next one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from retrieval_detect.errors import FormatUnsupported, IndexCorrupt, IndexLocked, IndexNotFound, UsageError
from retrieval_detect.store.manifest import manifest_path, read_current
from retrieval_detect.store.select import count_by, kept_history, select_rows
from retrieval_detect.store.store import Store
from retrieval_detect.store.sweep import KEPT_GENERATIONS, keyed_digest
from retrieval_detect.store.verify import findings
from tests.factories import add, digest, embedded, names, new_store, spec


@pytest.fixture
def store(tmp_path):
    return new_store(tmp_path / "idx")


def live_ids(store):
    return sorted(store.snapshot().scan(["content_id"])["content_id"].to_pylist())


def test_a_new_store_is_empty_and_whole(store):
    snapshot = store.snapshot()
    assert snapshot.manifest.generation == 0
    assert snapshot.manifest.live_rows("fake") == 0
    assert list(findings(snapshot)) == []
    assert snapshot.scan(["uri"]).num_rows == 0


def test_rows_come_back_as_they_went_in(store):
    images = names("a", 5)
    add(store, images, "fake", "sdxl", licence="CC0", batch="b1", tags="x y")
    snapshot = store.snapshot()
    rows = snapshot.take(
        [3, 0], ["uri", "label", "generator", "licence", "batch", "tags", "width", "norm_proj"]
    )
    assert [row["uri"] for row in rows] == ["a-3.png", "a-0.png"]
    assert rows[0]["generator"] == "sdxl" and rows[0]["licence"] == "CC0" and rows[0]["tags"] == "x y"
    assert rows[0]["norm_proj"] == pytest.approx(np.linalg.norm(images[3].vectors["proj"]), rel=1e-6)
    (shard,) = snapshot.shards()
    expected = images[2].vectors["proj"] / np.linalg.norm(images[2].vectors["proj"])
    assert np.array_equal(shard.vectors("proj")[2], expected.astype(np.float16))


def test_finding_by_content_id(store):
    add(store, names("a", 50), "fake", "g")
    add(store, names("b", 50), "real", "s")
    hits = store.snapshot().find([digest("b-7"), digest("nowhere"), digest("a-49")])
    assert [(index, fake) for index, _, _, fake in sorted(hits)] == [(0, False), (2, True)]
    assert store.snapshot().find([]) == []


def test_small_additions_are_merged_and_keep_everything(store):
    for i in range(40):
        add(store, names(f"n{i}", 5), "fake", "g")
    manifest = store.snapshot().manifest
    assert manifest.generation == 40 and manifest.live_rows("fake") == 200
    assert len(manifest.shards) <= 2 * 9  # two splits, sizes that at least double
    assert live_ids(store) == sorted(digest(f"n{i}-{j}") for i in range(40) for j in range(5))
    assert list(findings(store.snapshot())) == []


def test_shards_of_the_small_limit_are_never_rewritten(store, monkeypatch):
    monkeypatch.setattr("retrieval_detect.store.shards.SMALL_ROWS", 8)
    add(store, names("big", 10), "fake", "g")
    (big,) = (s.id for s in store.snapshot().manifest.shards)
    for i in range(6):
        add(store, names(f"n{i}", 2), "fake", "g")
    assert big in {s.id for s in store.snapshot().manifest.shards}


def test_large_additions_are_cut(store, monkeypatch):
    monkeypatch.setattr("retrieval_detect.store.shards.SHARD_ROWS", 8)
    monkeypatch.setattr("retrieval_detect.store.shards.SMALL_ROWS", 1)
    add(store, names("a", 20), "fake", "g")
    assert sorted(s.rows for s in store.snapshot().manifest.shards) == [4, 8, 8]
    assert list(findings(store.snapshot())) == []


# ---------------------------------------------------------------- removing


def test_removed_rows_are_gone_and_can_be_added_again(store):
    add(store, names("a", 10), "fake", "g")
    with store.writer() as writer:
        manifest = writer.remove([2, 3], reason="wrong", detail={})
    assert manifest.live_rows("fake") == 8
    assert digest("a-2") not in live_ids(store)
    assert store.snapshot().find([digest("a-2")]) == []
    add(store, [embedded("a-2")], "fake", "g")
    (hit,) = store.snapshot().find([digest("a-2")])
    assert hit[1] == 10  # a row id is never used again


@pytest.mark.parametrize("rows", [[99], [0, 99]])
def test_removing_what_is_not_there_changes_nothing(store, rows):
    add(store, names("a", 3), "fake", "g")
    with pytest.raises(UsageError), store.writer() as writer:
        writer.remove(rows, reason="", detail={})
    assert store.snapshot().manifest.generation == 1


def test_removing_twice_is_refused(store):
    add(store, names("a", 3), "fake", "g")
    with store.writer() as writer:
        writer.remove([1], reason="", detail={})
        with pytest.raises(UsageError, match="already"):
            writer.remove([1, 2], reason="", detail={})


def test_selecting_rows(store):
    add(store, names("a", 4), "fake", "g1")
    add(store, names("b", 3), "fake", "g2", batch="tuesday")
    snapshot = store.snapshot()
    assert select_rows(snapshot, generator="g2") == [4, 5, 6]
    assert select_rows(snapshot, batch="tuesday", content_ids=[digest("b-1").hex()]) == [5]
    assert select_rows(snapshot, generator="g1", content_ids=[digest("b-1").hex()]) == []
    assert select_rows(snapshot, row_ids=[0, 6]) == [0, 6]
    for wrong in ({"content_ids": ["abc"]}, {"content_ids": [digest("no").hex()]}, {"row_ids": [70]}, {}):
        with pytest.raises(UsageError):
            select_rows(snapshot, **wrong)


def test_counting(store):
    add(store, names("a", 4), "fake", "g1")
    add(store, names("b", 3), "real", "s")
    assert [(r["name"], r["references"]) for r in count_by(store.snapshot(), None)] == [("g1", 4), ("s", 3)]
    assert [(r["label"], r["references"]) for r in count_by(store.snapshot(), "label")] == [
        ("fake", 4),
        ("real", 3),
    ]


# ---------------------------------------------------------------- generations


def test_rollback_copies_an_old_generation_into_a_new_one(store):
    add(store, names("a", 5), "fake", "g")
    before = live_ids(store)
    add(store, names("b", 5), "fake", "h")
    with store.writer() as writer:
        writer.remove([0], reason="", detail={})
        manifest = writer.rollback(1)
    assert manifest.generation == 4 and manifest.next_row_id == 10
    assert live_ids(store) == before and manifest.names("fake") == ["g"]
    add(store, [embedded("c")], "fake", "g")
    assert store.snapshot().find([digest("c")])[0][1] == 10


def test_ten_generations_are_kept(store):
    for i in range(14):
        add(store, [embedded(i)], "fake", "g")
    history = kept_history(store.snapshot())
    assert [row["generation"] for row in history] == list(range(14 - KEPT_GENERATIONS + 1, 15))
    with store.writer() as writer:
        writer.rollback(5)
        with pytest.raises(UsageError, match="no generation 2"):
            writer.rollback(2)
    assert store.snapshot().manifest.live_rows("fake") == 5


def test_a_reader_keeps_its_generation_while_writers_go_on(store):
    add(store, names("a", 5), "fake", "g")
    snapshot = store.snapshot()
    for i in range(12):
        add(store, [embedded(i)], "fake", "g")
    assert snapshot.scan(["uri"]).num_rows == 5


def test_nothing_is_left_lying_about(store):
    for i in range(13):
        add(store, [embedded(i)], "fake", "g")
    (store.folder / "shards" / "0123456789abcdef.proj.npy").write_bytes(b"orphan")
    (store.folder / "shards" / ".tmp-dead").write_bytes(b"torn")
    add(store, [embedded("x")], "fake", "g")
    needed = set()
    for row in kept_history(store.snapshot()):
        path = manifest_path(store.folder, row["generation"])
        data = json.loads(path.read_text())
        needed |= {f"{s['id']}.{suffix}" for s in data["shards"] for suffix in s["files"]}
    assert {path.name for path in (store.folder / "shards").iterdir()} == needed
    assert not (store.folder / "staging").exists()


# ---------------------------------------------------------------- compacting and purging


def test_compacting_drops_removed_rows_and_can_be_undone(store):
    add(store, names("a", 10), "fake", "g")
    with store.writer() as writer:
        writer.remove([0, 1], reason="", detail={})
        manifest = writer.compact()
    assert manifest.tombstones == () and sum(s.rows for s in manifest.shards) == 8
    assert list(findings(store.snapshot())) == []
    with store.writer() as writer:
        writer.rollback(1)
    assert len(live_ids(store)) == 10


def test_compacting_away_everything(store):
    add(store, names("a", 3), "fake", "g")
    with store.writer() as writer:
        writer.remove([0, 1, 2], reason="", detail={})
        manifest = writer.compact()
    assert manifest.shards == () and live_ids(store) == []


def test_a_purge_leaves_no_trace_of_vectors_or_names(store):
    add(store, [embedded("secret"), embedded("public")], "fake", "g")
    row_id = store.snapshot().find([digest("secret")])[0][1]
    vector = embedded("secret").vectors["proj"]
    stored = (vector / np.linalg.norm(vector)).astype(np.float16).tobytes()
    with store.writer() as writer:
        writer.remove([row_id], reason="", detail={})
        writer.compact()
        manifest = writer.compact(purge=True)
    everything = b"".join(path.read_bytes() for path in store.folder.rglob("*") if path.is_file())
    assert stored not in everything and b"secret" not in everything and digest("secret") not in everything
    assert manifest.purge.digests == (keyed_digest(manifest.purge.key, digest("secret")),)
    assert [row["generation"] for row in kept_history(store.snapshot())] == [manifest.generation]
    with pytest.raises(UsageError), store.writer() as writer:
        writer.rollback(1)


# ---------------------------------------------------------------- what can be wrong with the files


def test_no_index_there(tmp_path):
    with pytest.raises(IndexNotFound, match="no index"):
        Store(tmp_path / "nothing").snapshot()
    with pytest.raises(IndexNotFound), Store(tmp_path / "nothing").writer():
        pass
    assert not (tmp_path / "nothing").exists()


def test_a_folder_with_other_things_is_not_taken_over(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="not an index"):
        new_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    store = new_store(tmp_path / "i")
    with pytest.raises(UsageError, match="is an index already"):
        Store.create(store.folder, spec(), canaries={"proj": np.ones((16, 32), np.float32)})


@pytest.mark.parametrize(
    "suffix", ["proj.npy", "rows.arrow", "ids.npy", "keys.npy", "near.npy", "phashes.npy"]
)
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_file_is_named(store, suffix, damage):
    add(store, names("a", 30), "fake", "g")
    path = next((store.folder / "shards").glob(f"*.{suffix}"))
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data[: len(data) // 2] if damage == "cut" else data))
    with pytest.raises(IndexCorrupt, match=path.name):
        store.snapshot()


@pytest.mark.parametrize("name", ["CURRENT", "manifests/00000001.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../etc/passwd 00", b"{}", b"[1]"])
def test_a_damaged_commit_is_an_error_and_never_a_path_elsewhere(store, name, content):
    add(store, [embedded(1)], "fake", "g")
    (store.folder / name).write_bytes(content)
    with pytest.raises(IndexCorrupt):
        store.snapshot()


def test_a_newer_format_is_refused(store):
    path = manifest_path(store.folder, 0)
    data = json.loads(path.read_text()) | {"version": 3}
    path.write_text(json.dumps(data))
    from retrieval_detect.files import sha256_file

    (store.folder / "CURRENT").write_text(f"{path.name} {sha256_file(path)}\n")
    with pytest.raises(FormatUnsupported, match="version 3"):
        store.snapshot()


@pytest.mark.parametrize("change", [{"id": "../../../tmp/x"}, {"label": "maybe"}, {"files": {"../x": {}}}])
def test_a_hostile_manifest_cannot_name_files_elsewhere(store, change):
    add(store, [embedded(1)], "fake", "g")
    path = manifest_path(store.folder, 1)
    data = json.loads(path.read_text())
    data["shards"][0] |= change
    path.write_text(json.dumps(data))
    from retrieval_detect.files import sha256_file

    (store.folder / "CURRENT").write_text(f"{path.name} {sha256_file(path)}\n")
    with pytest.raises(IndexCorrupt):
        store.snapshot()


def test_two_writers(store):
    with store.writer(), pytest.raises(IndexLocked), Store(store.folder).writer():
        pass
    add(store, [embedded(1)], "fake", "g")
    assert read_current(store.folder).generation == 1


def test_an_index_can_be_moved(store, tmp_path):
    add(store, names("a", 5), "fake", "g")
    shutil.move(store.folder, tmp_path / "elsewhere")
    assert list(findings(Store(tmp_path / "elsewhere").snapshot())) == []


def test_verify_sees_what_checksums_cannot(store):
    """A file whose record was changed along with it: rows and counts still have to agree."""
    add(store, names("a", 5), "fake", "g")
    path = manifest_path(store.folder, 1)
    data = json.loads(path.read_text())
    data["strata"][0]["bank"] = 4
    path.write_text(json.dumps(data))
    from retrieval_detect.files import sha256_file

    (store.folder / "CURRENT").write_text(f"{path.name} {sha256_file(path)}\n")
    assert any("5 live fake references" in finding for finding in findings(store.snapshot()))


def test_staged_embeddings_of_another_encoder_or_torn_parts_are_not_used(store):
    with store.writer() as writer:
        staging = writer.staging()
        staging.add(names("a", 3))
        staging.add(names("b", 3))
        vectors = sorted((store.folder / "staging").glob("*.npy"))
        vectors[0].write_bytes(vectors[0].read_bytes()[:-1])
        assert len(writer.staging()) == 3
        from retrieval_detect.store.staging import Staging

        assert len(Staging(store.folder, fingerprint="other", layers=("proj",))) == 0


def test_an_addition_leaves_alone_what_another_has_staged(store):
    with store.writer() as writer:
        writer.staging().add(names("interrupted", 3))
    add(store, names("small", 2), "fake", "g")
    with store.writer() as writer:
        assert len(writer.staging()) == 3
    add(store, names("interrupted", 3), "fake", "g")
    assert not (store.folder / "staging").exists()
    assert store.snapshot().manifest.live_rows("fake") == 5
