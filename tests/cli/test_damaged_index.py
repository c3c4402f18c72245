"""Asking an index that is damaged, lacks its derived files, or cannot be written."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from retrieval_detect.search._faiss import faiss


def verdict(run_rd):
    result = run_rd("query", "ask/0200.png", "--json")
    assert result.exit_code == 0, result.stderr
    return {key: value for key, value in json.loads(result.stdout)[0].items() if key != "elapsed_s"}


def damage_shard(index):
    path = next((index / "shards").glob("*.proj.npy"))
    path.write_bytes(path.read_bytes()[:100])


def flip_a_bit(index):
    path = next((index / "shards").glob("*.proj.npy"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def alter_manifest(index):
    path = index / "manifests" / "00000001.json"
    path.write_text(path.read_text().replace("sdxl", "real"))


@pytest.mark.parametrize("damage", [damage_shard, flip_a_bit, alter_manifest])
def test_a_damaged_index_is_named_and_left_as_it_is(index, run_rd, contents, damage):
    damage(index)
    before = contents(index)
    result = run_rd("query", "ask")
    assert result.exit_code == 1 and result.stdout == "" and result.stderr.count("Error: ") == 1
    said = result.stderr
    assert ("shards/" in said or "00000001.json" in said) and "estore" in said
    assert contents(index) == before


def garbage(path):
    path.write_bytes(b"garbage")


def foreign(path):
    """A FAISS index that somebody else made, of the right name and shape."""
    library = faiss()
    ours = library.read_index(str(path))
    kind = library.ScalarQuantizer.QT_fp16
    theirs = library.IndexScalarQuantizer(ours.d, kind, library.METRIC_INNER_PRODUCT)
    theirs.add(np.random.default_rng(0).normal(size=(ours.ntotal, ours.d)).astype(np.float32))
    library.write_index(theirs, str(path))


@pytest.mark.parametrize("spoil", [garbage, foreign, lambda path: path.unlink()])
def test_spoilt_derived_files_are_rebuilt_and_answers_stay(index, run_rd, spoil):
    old = verdict(run_rd)
    for path in (index / "banks").glob("*.faiss"):
        spoil(path)
    new = verdict(run_rd)
    assert new == old
    assert run_rd("index", "verify").exit_code == 0
    assert run_rd("query", "ask/0200.png").stderr == ""


def test_without_its_derived_files(index, run_rd):
    old = verdict(run_rd)["score"]
    shutil.rmtree(index / "banks")
    assert verdict(run_rd)["score"] == old
    assert len(list((index / "banks").glob("*.faiss"))) == 2


def test_asking_writes_nothing_into_the_index(index, run_rd, contents):
    before = contents(index)
    assert run_rd("query", "ask").exit_code == 0
    assert run_rd("query", "photos/camera/0003.png", "--method", "majority").exit_code == 0
    assert contents(index) == before


@pytest.mark.parametrize("banks", ["kept", "deleted"])
def test_an_index_that_cannot_be_written_can_be_asked(index, pictures, run_rd, banks):
    old = verdict(run_rd)["score"]
    if banks == "deleted":
        shutil.rmtree(index / "banks")
    folders = [index, *(path for path in index.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        if os.access(index, os.W_OK):
            pytest.skip("permissions do not bind this user")
        assert verdict(run_rd)["score"] == old
        assert run_rd("bank", "add", "new", "--label", "fake").exit_code == 1
    finally:
        for folder in folders:
            folder.chmod(0o755)
