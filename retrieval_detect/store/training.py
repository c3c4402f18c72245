"""Stored references as arrays, for everything that is fitted on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.store.groups import beside
from retrieval_detect.store.schema import grouping_layer, norm_column
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Float32, Int64, Split

_BLOCK = 4096
_COLUMNS = ["row_id", "group", "label", "generator", "source", "batch", "category"]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Vectors and labels of n live references.

    ``vectors`` : layer → float32 (n, d), unit norm to float16 rounding; ``norms`` : layer → float32 (n,),
    before normalisation. ``fake`` : bool (n,). ``names`` : text (n,), generators of fakes, sources of
    photographs, ``""`` where none was given. ``groups`` : int64 (n,); images of one group are
    near-duplicates or views of one file and must never be parted. ``row_ids`` : int64 (n,).
    ``batches`` and ``categories`` : text (n,), ``""`` where none was given.
    """

    vectors: Mapping[str, Float32]
    norms: Mapping[str, Float32]
    fake: Bool
    names: NDArray[np.str_]
    groups: Int64
    row_ids: Int64
    batches: NDArray[np.str_]
    categories: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.fake)

    def as_encoded(self, layer: str) -> Float32:
        """Vectors as the network gave them, float32 (n, d), NOT unit norm."""
        return self.vectors[layer] * self.norms[layer][:, None]

    def take(self, chosen: Bool | Int64) -> TrainingSet:
        """Some of the references, by mask or by position."""
        return TrainingSet(
            {layer: x[chosen] for layer, x in self.vectors.items()},
            {layer: norms[chosen] for layer, norms in self.norms.items()},
            *(
                getattr(self, name)[chosen]
                for name in ("fake", "names", "groups", "row_ids", "batches", "categories")
            ),
        )


def load_training_set(
    snapshot: Snapshot, layers: Sequence[str], *, split: Split = "bank", views: bool = False
) -> TrainingSet:
    """Read the live references of one split. Only bank rows may be fitted on.

    Of the banks, what is a near-duplicate of a row set aside is left out with its views: what is fitted on
    it would have seen what it is measured by. ``views`` : also their laundered copies, as rows of the same
    group. Raises ``UsageError`` for a layer that the index does not store.
    """
    require_layers_stored(snapshot, layers)
    columns = [*_COLUMNS, "content_id", "view", *(norm_column(layer) for layer in dict.fromkeys(layers))]
    table = snapshot.scan(columns, split=split)
    found = _training_set(snapshot, table, layers, split)
    wanted = np.ones(len(found), bool)
    if not views:
        wanted = np.array([view == ORIGINAL_VIEW for view in table["view"].to_pylist()], bool)
    if split == "bank" and (near := near_calibration(snapshot)):
        content_ids = table["content_id"].to_pylist()
        apart = {content_ids[i] for i in np.flatnonzero(np.isin(found.row_ids, sorted(near)))}
        wanted &= np.array([content_id not in apart for content_id in content_ids], bool)
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


def _training_set(snapshot: Snapshot, table: pa.Table, layers: Sequence[str], split: Split) -> TrainingSet:
    fake = np.array([label == "fake" for label in table["label"].to_pylist()], dtype=bool)
    generators, sources = (np.array(table[c].to_pylist(), dtype=str) for c in ("generator", "source"))
    return TrainingSet(
        {layer: _vectors(snapshot, layer, split) for layer in layers},
        {layer: table[norm_column(layer)].to_numpy() for layer in layers},
        fake,
        np.where(fake, generators, sources) if len(fake) else np.empty(0, dtype=str),
        table["group"].to_numpy(),
        table["row_id"].to_numpy(),
        *(np.array(table[c].to_pylist(), dtype=str) for c in ("batch", "category")),
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


def _vectors(snapshot: Snapshot, layer: str, split: Split) -> Float32:
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
