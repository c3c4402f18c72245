"""Embeddings files are read in as little memory however long they are."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.store import exchange
from retrieval_detect.store.exchange import EmbeddingsFile, write_embeddings
from retrieval_detect.types import Embedded, EncoderSpec, ImageItem, Preprocessing

D, A_GROUP = 1024, 128
SPEC = EncoderSpec(
    "wide", "wide", "00", False, Preprocessing("clip", 32, "bicubic", (0.5,) * 3, (0.5,) * 3), {"proj": D}
)


def embedded(n):
    rng = np.random.default_rng(0)
    for i in range(n):
        item, content_id = ImageItem(f"{i}.png", bytes), hashlib.sha256(str(i).encode()).digest()
        yield Embedded(item, content_id, i, 64, 64, "PNG", {"proj": rng.normal(size=D).astype(np.float32)})


@pytest.fixture
def held_bytes(tmp_path, monkeypatch):
    """What Arrow holds at the most while a file of so many row groups is read to its end."""
    monkeypatch.setattr(exchange, "_ROWS_AT_ONCE", A_GROUP)

    def measured(n_groups):
        path, before = tmp_path / f"{n_groups}.parquet", pa.total_allocated_bytes()
        write_embeddings(path, embedded(n_groups * A_GROUP), spec=SPEC, layers=("proj",))
        file = EmbeddingsFile(path)
        assert file.row_groups == (A_GROUP,) * n_groups
        held = [
            pa.total_allocated_bytes() - before
            for _ in file.rows(range(n_groups), ("proj",), at_once=A_GROUP // 2)
        ]
        assert len(held) == 2 * n_groups
        return max(held)

    return measured


def test_a_long_file_takes_no_more_memory_than_a_short_one(held_bytes):
    a_group_bytes = 2 * D * A_GROUP
    short, long = held_bytes(4), held_bytes(40)
    assert long < short + 2 * a_group_bytes < 12 * a_group_bytes


def as_bytes(column):
    """As earlier versions wrote them."""
    vectors = np.array(column.to_pylist(), "<f2")
    return pa.array([vector.tobytes() for vector in vectors], pa.binary(2 * D))


def as_others_write(column):
    return pa.array(column.to_pylist(), pa.list_(pa.float16(), D))


def all_rows(path):
    file = EmbeddingsFile(path)
    file.require(SPEC, ("proj",))
    (rows,) = file.rows(range(len(file.row_groups)), ("proj",), at_once=10)
    return rows


@pytest.mark.parametrize("written", [as_bytes, as_others_write])
def test_vectors_are_read_however_they_were_written(tmp_path, written):
    path = tmp_path / "v.parquet"
    write_embeddings(path, embedded(5), spec=SPEC, layers=("proj",))
    ours = all_rows(path).vectors["proj"]
    assert np.abs(ours - np.stack([row.vectors["proj"] for row in embedded(5)])).max() < 0.01
    table = pq.read_table(path)
    at = table.schema.get_field_index("proj")
    pq.write_table(table.set_column(at, "proj", written(table["proj"])), path)
    assert np.array_equal(all_rows(path).vectors["proj"], ours)


def test_a_missing_value_costs_one_row(tmp_path):
    path = tmp_path / "v.parquet"
    write_embeddings(path, embedded(3), spec=SPEC, layers=("proj",))
    table = pq.read_table(path)
    vectors, at = table["proj"].to_pylist(), table.schema.get_field_index("proj")
    vectors[0][7], vectors[2] = None, None
    pq.write_table(table.set_column(at, "proj", pa.array(vectors, pa.list_(pa.float16(), D))), path)
    assert all_rows(path).wrong == {0: "a vector is zero or not finite", 2: "a value is missing"}
