"""Stored references as ``Rows``, for everything that is fitted on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.store.groups import beside
from retrieval_detect.store.schema import grouping_layer, norm_column
from retrieval_detect.types import ORIGINAL_VIEW
from retrieval_detect.vectors import Rows

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Float32, Split

_BLOCK = 4096
COLUMNS = (
    *("row_id", "content_id", "group", "phash", "width", "height", "label", "generator", "source"),
    *("view", "format", "category", "batch"),
)
"""Of the store, what ``Rows`` have."""


def rows_of(table: pa.Table, *, vectors: Mapping[str, Float32], norms: Mapping[str, Float32]) -> Rows:
    """Columns of the store, ``COLUMNS`` at least, with the vectors of the same rows."""
    fake = _texts(table["label"]) == "fake"
    return Rows(
        vectors=vectors,
        norms=norms,
        fake=fake,
        names=np.where(fake, _texts(table["generator"]), _texts(table["source"])),
        groups=table["group"].to_numpy(),
        row_ids=table["row_id"].to_numpy(),
        content_ids=np.array(table["content_id"].to_pylist(), object),
        phash=table["phash"].to_numpy(),
        sizes=np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1).astype(np.int64),
        views=_texts(table["view"]),
        formats=_texts(table["format"]),
        categories=_texts(table["category"]),
        batches=_texts(table["batch"]),
    )


def _texts(column: pa.ChunkedArray) -> NDArray[np.str_]:
    coded = column.unify_dictionaries().combine_chunks()
    texts: NDArray[np.str_] = np.array(coded.dictionary.to_pylist(), np.str_)[coded.indices.to_numpy()]
    return texts


def stored_rows(snapshot: Snapshot, layers: Sequence[str], *, split: Split | None = None) -> Rows:
    """All live rows, views included, with unit vectors; ``UsageError`` for a layer that is not stored."""
    require_layers_stored(snapshot, layers)
    norms = {layer: norm_column(layer) for layer in layers}
    table = snapshot.scan([*COLUMNS, *norms.values()], split=split)
    return rows_of(
        table,
        vectors={layer: _vectors(snapshot, layer, split) for layer in layers},
        norms={layer: table[norm].to_numpy() for layer, norm in norms.items()},
    )


def load_training_set(
    snapshot: Snapshot, layers: Sequence[str], *, split: Split = "bank", views: bool = False
) -> Rows:
    """The live references of one split, with unit vectors. Only bank rows may be fitted on.

    Of the banks, what is a near-duplicate of a row set aside is left out with its views: what is fitted on
    it would have seen what it is measured by. ``views`` : also their laundered copies, as rows of the same
    group. Raises ``UsageError`` for a layer that the index does not store.
    """
    found = stored_rows(snapshot, layers, split=split)
    wanted = np.full(len(found), True) if views else found.views == ORIGINAL_VIEW
    if split == "bank" and (near := near_calibration(snapshot)):
        apart = set(found.content_ids[np.isin(found.row_ids, sorted(near))].tolist())
        wanted &= np.array([content_id not in apart for content_id in found.content_ids], bool)
    return found if wanted.all() else found.take(wanted)


def near_calibration(snapshot: Snapshot) -> frozenset[int]:
    """Ids of the live bank rows that are near-duplicates of a live row set aside.

    An image that resembles rows of two groups can join but one of them (``groups.group_rows``), so that its
    like may lie on the other side of the split.
    """
    layer = grouping_layer(snapshot.manifest.layers)
    aside, banks = (snapshot.shards(split=split) for split in ("calib", "bank"))
    blocks = []
    for shard in aside:
        live = np.flatnonzero(snapshot.live(shard))
        for start in range(0, len(live), _BLOCK):
            at = live[start : start + _BLOCK]
            blocks.append((shard.phashes[at], shard.vectors(layer)[at]))
    positions = beside(banks, blocks, layer)
    return frozenset(
        row_id
        for shard, at in zip(banks, positions, strict=True)
        for row_id in shard.row_ids[at[snapshot.live(shard)[at]]].tolist()
    )


def require_layers_stored(snapshot: Snapshot, layers: Sequence[str]) -> None:
    """Raise ``UsageError`` for the first layer that an index does not store."""
    stored = snapshot.manifest.layers
    missing = [layer for layer in layers if layer not in stored]
    if missing:
        raise UsageError(
            f"index {snapshot.folder.name!r} does not store layer {missing[0]!r}",
            hint=f"It stores: {', '.join(stored)}. Layers are chosen when an index is built: --layers.",
        )


def _vectors(snapshot: Snapshot, layer: str, split: Split | None) -> Float32:
    shards = snapshot.shards(split=split)
    live = [snapshot.live(shard) for shard in shards]
    unit = np.empty((sum(map(np.count_nonzero, live)), snapshot.manifest.encoder.layers[layer]), np.float32)
    start = 0
    for shard, rows in zip(shards, live, strict=True):  # one by one: there may be as many as memory holds
        rounded = shard.vectors(layer)[rows].astype(np.float32)
        norms = np.linalg.norm(rounded, axis=1, keepdims=True)
        np.divide(rounded, norms, out=unit[start : start + len(rounded)])
        start += len(rounded)
    return unit
