"""Indexes as earlier versions of rd wrote them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_detect.files import sha256_file
from retrieval_detect.store.manifest import manifest_path
from retrieval_detect.store.store import Store


def as_format_1(store: Store, change: Callable[[pa.Table], pa.Table] = lambda table: table) -> None:
    """Give the generation in force the rows of format 1, changed before they are written."""
    snapshot = store.snapshot()
    manifest = manifest_path(store.folder, snapshot.manifest.generation)
    body = json.loads(manifest.read_text()) | {"version": 1}
    for shard, record in zip(snapshot.shards(), body["shards"], strict=True):
        path = shard.path("rows.parquet")
        pq.write_table(change(shard.columns(shard.names)), path, compression="zstd", row_group_size=4096)
        del record["files"]["rows.arrow"]
        shard.path("rows.arrow").unlink()
        record["files"]["rows.parquet"] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    manifest.write_text(json.dumps(body))
    (store.folder / "CURRENT").write_text(f"{manifest.name} {sha256_file(manifest)}\n")
