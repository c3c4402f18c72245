"""``rd embed``: a Parquet file that anybody can read."""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.sources import scan
from retrieval_detect.types import EncoderSpec
from tests.factories import png


def embedded(run_rd, *args, exit_code=0):
    result = run_rd("embed", *args, "--out", "v.parquet", "--encoder", "tiny", "--json")
    assert result.exit_code == exit_code, result.stderr
    return json.loads(result.stdout)


def vectors(table, layer):
    kind = table.schema.field(layer).type
    assert kind == pa.list_(pa.field("item", pa.float16(), nullable=False), kind.list_size)
    return np.array(table[layer].to_pylist(), np.float16)


def test_vectors_come_back(pictures, run_rd):
    record = embedded(run_rd, "photos", "ask/0200.png", "--layers", "proj,block01")
    assert (record["rows"], record["failures"], record["encoder"]) == (13, 0, "tiny")
    table = pq.read_table("v.parquet")
    assert table["uri"].to_pylist()[-1] == "ask/0200.png"
    assert table["content_id"].to_pylist()[-1] == sha256(png(200)).digest()
    assert set(table["width"].to_pylist()) == {64} and set(table["format"].to_pylist()) == {"PNG"}
    expected = list(embed(scan(["photos", "ask/0200.png"]), TinyEncoder(), layers=["proj", "block01"]))
    for layer in ("proj", "block01"):
        unit = vectors(table, layer).astype(np.float32)
        assert np.abs(np.linalg.norm(unit, axis=1) - 1).max() < 2e-3
        restored = unit * table[f"norm_{layer}"].to_numpy()[:, None]
        wanted = np.stack([image.vectors[layer] for image in expected])
        assert np.abs(restored - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_the_encoder_is_in_the_file(pictures, run_rd):
    embedded(run_rd, "ask")
    metadata = pq.read_schema("v.parquet").metadata
    spec = EncoderSpec.from_json(json.loads(metadata[b"encoder"]))
    assert spec == TinyEncoder().spec and metadata[b"fingerprint"].decode() == spec.fingerprint


def test_bad_files_are_left_out(pictures, run_rd):
    (pictures / "ask" / "0201.png").write_bytes(b"no picture")
    assert embedded(run_rd, "ask", exit_code=3)["failures"] == 1
    assert pq.read_table("v.parquet").num_rows == 2


def test_nothing_usable_overwrites_nothing(pictures, run_rd):
    embedded(run_rd, "ask")
    before = (pictures / "v.parquet").read_bytes()
    (pictures / "bad.png").write_bytes(b"no picture")
    result = run_rd("embed", "bad.png", "--out", "v.parquet", "--encoder", "tiny")
    assert result.exit_code == 1 and "none of the images could be used" in result.stderr
    assert (pictures / "v.parquet").read_bytes() == before
    assert [path.name for path in pictures.iterdir() if ".tmp-" in path.name] == []


def test_parts_are_the_whole_and_the_same_in_any_place(pictures, run_rd):
    def parts(folder, n):
        found = []
        for i in range(n):
            embedded(run_rd, folder, "--shard", f"{i + 1}/{n}")
            uris = pq.read_table("v.parquet")["uri"].to_pylist()
            found.append({uri.removeprefix(f"{folder}/") for uri in uris})
        return found

    embedded(run_rd, "photos")
    whole = {uri.removeprefix("photos/") for uri in pq.read_table("v.parquet")["uri"].to_pylist()}
    before = parts("photos", 3)
    assert set.union(*before) == whole and sum(map(len, before)) == len(whole) == 12
    assert sum(bool(part) for part in before) > 1
    (pictures / "photos").rename(pictures / "elsewhere")
    (pictures / "elsewhere" / "0.png").write_bytes(png(999))
    assert [part - {"0.png"} for part in parts("elsewhere", 3)] == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("ask", "--out", "no/v.parquet"), "there is no folder no to write v.parquet to"),
        (("ask", "--out", "photos"), "is a directory"),
        (("ask",), "Missing option '--out'"),
        (("--out", "v.parquet"), "Missing argument 'PATH...'"),
        (("nowhere", "--out", "v.parquet"), "'nowhere' does not exist"),
        (("ask", "--out", "v.parquet", "--layers", "block12"), "no layer block12"),
        (("ask", "--out", "v.parquet", "--shard", "0/2"), "'0/2' is no part of a whole"),
        (("ask", "--out", "v.parquet", "--shard", "3/2"), "'3/2' is no part of a whole"),
        (("ask", "--out", "v.parquet", "--shard", "half"), "'half' is no part of a whole"),
        (("ask", "--out", "v.parquet", "--layers", "last"), "--layers: 'last' is not the name of a layer"),
    ],
)
def test_a_call_that_cannot_be_meant(pictures, run_rd, contents, args, said):
    before = contents(pictures)
    result = run_rd("embed", *args, "--encoder", "tiny")
    assert result.exit_code == 2 and said in result.stderr and contents(pictures) == before
