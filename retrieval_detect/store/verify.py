"""Reread everything and say what is wrong: for ``rd index verify``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from retrieval_detect.errors import IndexCorrupt
from retrieval_detect.store.manifest import ALL_ROWS
from retrieval_detect.store.mistakes import read_mistakes
from retrieval_detect.store.shards import Shard, damaged, layer_file
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.types import LABELS, ORIGINAL_VIEW
from retrieval_detect.vectors import NORM_TOLERANCE


def findings(snapshot: Snapshot) -> Iterator[str]:
    """Problems in words; none means the store is whole. Nothing is taken from a digest cache."""
    hurt = list(_damaged_files(snapshot)) or [*_useless_rows(snapshot), *_useless_mistakes(snapshot)]
    if hurt:
        yield from hurt
        return
    for shard in snapshot.shards():
        yield from _shard_findings(shard, snapshot.manifest.layers)
    ids = np.concatenate([np.empty(0, np.int64), *(shard.row_ids for shard in snapshot.shards())])
    if len(np.unique(ids)) != len(ids):
        yield "a row id is used twice"
    if ids.max(initial=-1) >= snapshot.manifest.next_row_id:
        yield "a row id is beyond the next one to be given"
    yield from _row_findings(snapshot)


def _damaged_files(snapshot: Snapshot) -> Iterator[str]:
    for path, record in snapshot.files():
        try:
            whole = record.holds(path)
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


def _useless_mistakes(snapshot: Snapshot) -> Iterator[str]:
    try:
        read_mistakes(snapshot)
    except IndexCorrupt as error:
        yield error.message


def _shard_findings(shard: Shard, layers: tuple[str, ...]) -> Iterator[str]:
    name, rows = f"shard {shard.record.id}", shard.record.rows
    row_ids = shard.columns(["row_id"])["row_id"]
    if len(row_ids) != rows:
        yield f"{name} has {len(row_ids)} rows, its record says {rows}"
    if row_ids.to_pylist() != shard.row_ids.tolist():
        yield f"{name}: row_id and the id file differ"
    if not (np.diff(shard.row_ids) > 0).all():
        yield f"{name}: row ids do not increase"
    for layer in layers:
        vectors = shard.vectors(layer)
        norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
        if vectors.shape[0] != rows or not np.isfinite(norms).all():
            yield f"{name}: {layer_file(layer)} is not {rows} finite vectors"
        elif np.abs(norms - 1).max() > NORM_TOLERANCE:
            yield f"{name}: {layer_file(layer)} has vectors that are not unit norm"


def _row_findings(snapshot: Snapshot) -> Iterator[str]:
    """What the rows say of one another, and of the manifest's counts."""
    rows = snapshot.scan(["content_id", "view", "group", "label", "split"]).to_pylist()
    originals = [row for row in rows if row["view"] == ORIGINAL_VIEW]
    counts = Counter((row["label"], row["split"]) for row in originals)
    for label, split in ALL_ROWS:
        live, stated = counts[label, split], snapshot.manifest.live_rows(label, split)
        if live != stated:
            yield f"{live} live {label} references in split {split}, the manifest says {stated}"
    real, fake = ({row["content_id"] for row in rows if row["label"] == label} for label in LABELS)
    if both := real & fake:
        yield f"{len(both)} images are stored under both labels, the first is {min(both).hex()}"
    homes = {row["content_id"]: (row["group"], row["split"]) for row in originals}
    if stray := sum(homes.get(row["content_id"]) != (row["group"], row["split"]) for row in rows):
        yield f"{stray} views are not in the group and the split of their original"
