"""Reread everything and say what is wrong: for ``rd index verify``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retrieval_detect.errors import IndexCorrupt
from retrieval_detect.files import sha256_file
from retrieval_detect.store.manifest import ShardRecord
from retrieval_detect.store.schema import rows_schema
from retrieval_detect.store.shards import Shard, damaged, layer_file
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.types import ORIGINAL_VIEW

_NORM_TOLERANCE = 2e-3
"""A unit vector rounded to float16 is off by less."""


def findings(snapshot: Snapshot) -> Iterator[str]:
    """Problems in words; none means the store is whole. Nothing is taken from a digest cache."""
    hurt = list(_damaged_files(snapshot)) or list(_useless_rows(snapshot))
    if hurt:
        yield from hurt
        return
    seen: list[np.ndarray] = []
    for shard in snapshot.shards():
        yield from _shard_findings(shard, snapshot.manifest.layers)
        seen.append(shard.row_ids)
    ids = np.concatenate(seen) if seen else np.empty(0, np.int64)
    if len(np.unique(ids)) != len(ids):
        yield "a row id is used twice"
    if len(ids) and ids.max() >= snapshot.manifest.next_row_id:
        yield "a row id is beyond the next one to be given"
    yield from _count_findings(snapshot)
    yield from _conflicts(snapshot)
    yield from _stray_views(snapshot)


def _damaged_files(snapshot: Snapshot) -> Iterator[str]:
    for path, record in snapshot.files():
        try:
            whole = path.stat().st_size == record.bytes and sha256_file(path) == record.sha256
        except OSError:
            whole = False
        if not whole:
            yield damaged(path).message


def _useless_rows(snapshot: Snapshot) -> Iterator[str]:
    for shard in snapshot.shards():
        try:
            shard.validate()
        except IndexCorrupt as error:
            yield error.message


def _shard_findings(shard: Shard, layers: tuple[str, ...]) -> Iterator[str]:
    record: ShardRecord = shard.record
    name = f"shard {record.id}"
    schema = rows_schema(layers)
    row_ids = shard.columns(["row_id"])["row_id"]
    if len(row_ids) != record.rows:
        yield f"{name} has {len(row_ids)} rows, its record says {record.rows}"
    if row_ids.to_pylist() != shard.row_ids.tolist():
        yield f"{name}: {schema.field(0).name} and the id file differ"
    if not (np.diff(shard.row_ids) > 0).all():
        yield f"{name}: row ids do not increase"
    for layer in layers:
        vectors = shard.vectors(layer)
        norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
        if vectors.shape[0] != record.rows or not np.isfinite(norms).all():
            yield f"{name}: {layer_file(layer)} is not {record.rows} finite vectors"
        elif np.abs(norms - 1).max() > _NORM_TOLERANCE:
            yield f"{name}: {layer_file(layer)} has vectors that are not unit norm"


def _count_findings(snapshot: Snapshot) -> Iterator[str]:
    for label in ("real", "fake"):
        for split in ("bank", "calib"):
            views = snapshot.scan(["view"], label=label, split=split)["view"].to_pylist()
            live = views.count(ORIGINAL_VIEW)
            stated = snapshot.manifest.live_rows(label, split)
            if live != stated:
                yield f"{live} live {label} references in split {split}, the manifest says {stated}"


def _conflicts(snapshot: Snapshot) -> Iterator[str]:
    real = set(snapshot.scan(["content_id"], label="real")["content_id"].to_pylist())
    fake = set(snapshot.scan(["content_id"], label="fake")["content_id"].to_pylist())
    if both := real & fake:
        yield f"{len(both)} images are stored under both labels, the first is {min(both).hex()}"


def _stray_views(snapshot: Snapshot) -> Iterator[str]:
    rows = snapshot.scan(["content_id", "view", "group", "split"]).to_pylist()
    homes = {row["content_id"]: (row["group"], row["split"]) for row in rows if row["view"] == ORIGINAL_VIEW}
    stray = sum(homes.get(row["content_id"]) != (row["group"], row["split"]) for row in rows)
    if stray:
        yield f"{stray} views are not in the group and the split of their original"
