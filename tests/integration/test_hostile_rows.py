"""Rows files that somebody altered, their checksums with them: refused by name, never a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from retrieval_detect.errors import IndexCorrupt
from retrieval_detect.files import sha256_file
from retrieval_detect.store.manifest import manifest_path
from retrieval_detect.store.verify import findings
from tests.factories import add, names, new_store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    """One shard of 60 rows, some with pictures."""
    store = new_store(tmp_path / "idx")
    images = names("a", 60)
    add(
        store, [replace(i, thumbnail=i.content_id) if n % 3 else i for n, i in enumerate(images)], "fake", "g"
    )
    return store


def test_bytes_that_were_altered(store):
    command = [sys.executable, "-m", "tests.integration.hostile_rows", str(store.folder), "600"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found.keys() == {"refused", "read"} and found["refused"] > 100


def written(table, **options):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table, **options)
    return sink.getvalue().to_pybytes()


def with_column(name, column, *, field=None):
    def changed(table):
        at = table.schema.get_field_index(name)
        kept = field or table.schema.field(at)
        return written(table.set_column(at, kept, column(table[name].chunk(0))))

    return changed


def pointing_out(array):
    """Texts whose last one is said to end far behind them."""
    offsets = bytearray(array.buffers()[1].to_pybytes())
    offsets[4 * len(array) - 4 : 4 * len(array)] = (1 << 30).to_bytes(4, "little")
    return pa.StringArray.from_buffers(len(array), pa.py_buffer(bytes(offsets)), array.buffers()[2])


def no_such_text(array):
    return pa.DictionaryArray.from_arrays(pa.array([7] * len(array), pa.int32()), ["g"], safe=False)


HOSTILE = {
    "nothing": lambda table: b"",
    "no Arrow": lambda table: b"ARROW1\0\0" + b"x" * 500 + b"ARROW1",
    "two batches": lambda table: written(table, max_chunksize=30),
    "fewer rows": lambda table: written(table.slice(1)),
    "no column": lambda table: written(table.drop_columns(["uri"])),
    "no norms": lambda table: written(table.drop_columns(["norm_proj"])),
    "other type": with_column(
        "width", lambda c: c.cast(pa.int64()), field=pa.field("width", pa.int64(), False)
    ),
    "other picture": with_column(
        "thumbnail", lambda c: pa.array(range(len(c))), field=pa.field("thumbnail", pa.int64())
    ),
    "one name twice": lambda table: written(table.append_column(table.schema.field("uri"), table["uri"])),
    "empty value": with_column("phash", lambda c: pa.nulls(len(c), pa.uint64())),
    "offset": with_column("uri", pointing_out),
    "index": with_column("generator", no_such_text),
    "no text": with_column("pair_id", lambda c: pa.array([b"\xff"] * len(c)).view(pa.string())),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_rows_that_are_none(store, hostile):
    shard = store.snapshot().shards()[0]
    path = shard.path("rows.arrow")
    path.write_bytes(hostile(shard.columns(shard.names)))
    manifest = manifest_path(store.folder, 1)
    data = json.loads(manifest.read_text())
    data["shards"][0]["files"]["rows.arrow"] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    manifest.write_text(json.dumps(data))
    (store.folder / "CURRENT").write_text(f"{manifest.name} {sha256_file(manifest)}\n")
    with pytest.raises(IndexCorrupt, match=r"rows\.arrow is missing, truncated or altered"):
        store.snapshot()
    with store.writer(checked=False) as writer:
        assert list(findings(writer.snapshot)) == [f"{path} is missing, truncated or altered"]
