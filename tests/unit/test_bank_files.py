"""Derived FAISS files: trusted only when everything about them is as it was written."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval_detect import files as durable
from retrieval_detect.errors import VectorError
from retrieval_detect.search._faiss import faiss
from retrieval_detect.search.bank import Bank
from retrieval_detect.search.derived import BankFiles
from retrieval_detect.search.exact import ShardVectors
from retrieval_detect.search.projection import Identity
from retrieval_detect.vectors import unit

D = 24


def make_shard(name="s1", n=50, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    return ShardVectors(name, np.arange(n, dtype=np.int64), unit(rows).astype(np.float16))


@pytest.fixture
def shard():
    return make_shard()


@pytest.fixture
def files(tmp_path):
    return BankFiles(tmp_path / "banks", Identity("proj", D))


def the_file(files, suffix=".faiss"):
    (path,) = files.folder.glob(f"*{suffix}")
    return path


def inode(path):
    return path.stat().st_ino


def test_codes_are_the_stored_vectors_bit_for_bit(files, shard):
    for opened in (files.open(shard), files.open(shard)):
        np.testing.assert_array_equal(opened.codes.view(np.uint16), shard.vectors.view(np.uint16))
        assert opened.row_ids is shard.row_ids
        norms = np.linalg.norm(shard.vectors.astype(np.float64), axis=1)
        assert opened.spread == pytest.approx(np.abs(1 / norms - 1).max())
    with pytest.raises(ValueError, match="read-only"):
        opened.codes[0] = 0


def test_codes_outlive_everything_else(files, shard):
    kept = [files.open(shard).codes, BankFiles(None, Identity("proj", D)).open(shard).codes]
    gc.collect()
    scratch = [np.full_like(shard.vectors, 7) for _ in range(100)]
    for codes in kept:
        np.testing.assert_array_equal(codes, shard.vectors)
    assert len(scratch) == 100


def test_a_good_file_is_named_by_shard_and_projection_and_kept(files, shard, caplog):
    files.open(shard)
    path = the_file(files)
    assert path.name == f"s1.{Identity('proj', D).id}.faiss"
    before = inode(path)
    with caplog.at_level(logging.INFO):
        files.open(shard)
    assert inode(path) == before
    assert not caplog.records


def test_layers_and_shards_have_files_of_their_own(files, shard):
    files.open(shard)
    files.open(make_shard("s2"))
    BankFiles(files.folder, Identity("pre", D)).open(shard)
    assert len(list(files.folder.glob("*.faiss"))) == len(list(files.folder.glob("*.json"))) == 3


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)


def replace_by_foreign(path):
    index = faiss().IndexFlatIP(D)
    index.add(np.eye(D, dtype=np.float32))
    path.write_bytes(bytes(faiss().serialize_index(index)))


def replace_by_foreign_with_record(path):
    replace_by_foreign(path)
    record(path, sha256=durable.sha256_file(path))


def record(path, **changes):
    """Write a well-formed record with other facts."""
    from retrieval_detect.search.derived import _digest

    side = path.with_suffix(".json")
    facts = json.loads(side.read_bytes())["facts"] | changes
    durable.write_json(side, {"facts": facts, "sha256": _digest(facts)})


def edit_record(path):
    side = path.with_suffix(".json")
    record = json.loads(side.read_bytes())
    record["facts"]["spread"] = 0.0
    side.write_text(json.dumps(record))


DAMAGES = {
    "truncated": truncate,
    "empty": empty,
    "one flipped bit": flip_a_bit,
    "another kind of FAISS index": replace_by_foreign,
    "another kind, vouched for": replace_by_foreign_with_record,
    "record missing": lambda path: path.with_suffix(".json").unlink(),
    "record no JSON": lambda path: path.with_suffix(".json").write_bytes(b"{"),
    "record no record": lambda path: path.with_suffix(".json").write_bytes(b"[1]"),
    "record binary": lambda path: path.with_suffix(".json").write_bytes(b"\xff\xfe\x00"),
    "record edited": edit_record,
    "of fewer rows": lambda path: record(path, rows=49),
    "of another shard": lambda path: record(path, shard="s9"),
    "of an older layout": lambda path: record(path, version=0),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("cached", [False, True])
def test_what_cannot_be_trusted_is_rebuilt(tmp_path, shard, caplog, damage, cached):
    digests = durable.DigestCache(tmp_path / "digests.json") if cached else None
    files = BankFiles(tmp_path / "banks", Identity("proj", D), digests=digests)
    files.open(shard)
    path = the_file(files)
    good, spread = path.read_bytes(), files.open(shard).spread
    damage(path)
    with caplog.at_level(logging.WARNING):
        opened = files.open(shard)
    np.testing.assert_array_equal(opened.codes, shard.vectors)
    assert opened.spread == spread > 0
    assert path.read_bytes() == good
    caplog.clear()
    files.open(shard)
    assert not caplog.records


def test_damage_is_said_and_absence_is_not(files, shard, caplog):
    with caplog.at_level(logging.WARNING):
        files.open(shard)
        assert not caplog.records
        flip_a_bit(the_file(files))
        files.open(shard)
    assert "its checksum differs): rebuilding it" in caplog.text


def test_faiss_is_never_shown_another_kind_of_file(files, shard, caplog):
    files.open(shard)
    replace_by_foreign_with_record(the_file(files))
    files.open(shard)
    assert "it is a FAISS index of another kind, or none" in caplog.text


def test_a_file_of_another_shard_under_this_name_is_rebuilt(files, shard):
    files.open(shard)
    other = make_shard("s2", seed=1)
    files.open(other)
    identity = Identity("proj", D).id
    for suffix in (".faiss", ".json"):
        shutil.copy(files.folder / f"s2.{identity}{suffix}", files.folder / f"s1.{identity}{suffix}")
    np.testing.assert_array_equal(files.open(shard).codes, shard.vectors)


@pytest.mark.parametrize("refused", [PermissionError(13, "no"), OSError(28, "No space left on device")])
def test_a_folder_that_cannot_be_written_means_memory(files, shard, caplog, monkeypatch, refused):
    def refuse(*_):
        raise refused

    monkeypatch.setattr(durable, "write_atomically", refuse)
    opened = files.open(shard)
    np.testing.assert_array_equal(opened.codes, shard.vectors)
    assert "searching from memory" in caplog.text
    assert list(files.folder.iterdir()) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_folder_means_memory(files, shard):
    files.folder.mkdir()
    files.folder.chmod(0o500)
    np.testing.assert_array_equal(files.open(shard).codes, shard.vectors)
    assert list(files.folder.iterdir()) == []


def test_no_folder_means_memory(shard):
    opened = BankFiles(None, Identity("proj", D)).open(shard)
    np.testing.assert_array_equal(opened.codes, shard.vectors)


def test_digests_are_remembered(tmp_path, shard, monkeypatch):
    digests = durable.DigestCache(tmp_path / "digests.json")
    files = BankFiles(tmp_path / "banks", Identity("proj", D), digests=digests)
    files.open(shard)
    monkeypatch.setattr(durable, "sha256_file", lambda path: pytest.fail(f"{path} was read again"))
    files.open(shard)


def changed(shard, row, value):
    vectors = shard.vectors.copy()
    vectors[row] = value
    return ShardVectors(shard.shard_id, shard.row_ids + 100, vectors)


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 2])
def test_rows_that_are_not_unit_vectors_are_named(files, shard, value):
    with pytest.raises(VectorError, match="row 107 of shard s1 is not a unit vector"):
        files.open(changed(shard, 7, value))


def test_another_dimension_is_refused(shard):
    with pytest.raises(VectorError, match="24 dimensions, the projection takes 25"):
        BankFiles(None, Identity("proj", D + 1)).open(shard)


def test_a_projection_makes_the_codes(tmp_path, shard):
    flipped = SimpleNamespace(id="flip", widths=(D,), d_out=2, apply=lambda x: unit(x[:, 1::-1]))
    opened = BankFiles(tmp_path, flipped).open(shard)
    expected = unit(shard.vectors[:, 1::-1].astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(opened.codes, expected)


@pytest.mark.parametrize(
    ("row_ids", "vectors", "says"),
    [
        ([1, 1], np.eye(2, dtype=np.float16), "row ids repeat or are out of order"),
        ([2, 1], np.eye(2, dtype=np.float16), "row ids repeat or are out of order"),
        ([1], np.eye(2, dtype=np.float16), "row ids for 2 vectors"),
        ([1, 2], np.eye(2, dtype=np.float32), "float32"),
        ([1, 2], np.zeros(2, np.float16), "not float16"),
    ],
)
def test_shards_that_make_no_sense_are_refused(row_ids, vectors, says):
    with pytest.raises(VectorError, match=says):
        ShardVectors("s1", np.array(row_ids, np.int64), vectors)


@pytest.mark.parametrize("q", [1, 8])
def test_codes_are_read_where_they_lie(files, q):
    """In a file of FAISS they are not aligned: for some of what it does, numpy copies such arrays whole."""
    shard = make_shard(n=40_000)
    files.open(shard)
    bank = Bank.open([shard], label="fake", files=files)
    queries = np.random.default_rng(1).normal(size=(q, D)).astype(np.float32)
    bank.search(queries, 10)
    tracemalloc.start()
    bank.search(queries, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < shard.vectors.nbytes / 2
