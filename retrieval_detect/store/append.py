"""Staged embeddings → shards: row ids, groups, splits, strata."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retrieval_detect.names import WRITTEN
from retrieval_detect.store.groups import NONE, StratumKey, assign_splits, group_rows
from retrieval_detect.store.manifest import ShardRecord, Stratum
from retrieval_detect.store.originals import stored_images
from retrieval_detect.store.schema import ASIDE, THUMBNAIL, grouping_layer, norm_column, rows_table
from retrieval_detect.store.shards import cut, write_shard
from retrieval_detect.store.staging import FOUND
from retrieval_detect.types import LABELS, ORIGINAL_VIEW, SPLITS, Facts

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.staging import Key, Staging
    from retrieval_detect.types import Int64, Split


@dataclass(frozen=True, slots=True)
class NewRow:
    """A reference, or a view of one, to be stored: its vectors are staged under ``key``.

    ``facts`` and ``uri`` of a view are those of its original, which is stored already or comes along.
    """

    content_id: bytes
    uri: str
    facts: Facts
    view: str = ORIGINAL_VIEW

    @property
    def key(self) -> Key:
        """What identifies it."""
        return self.content_id, self.view

    @property
    def stratum(self) -> StratumKey:
        """What the split rule counts it under."""
        return self.facts.label, self.facts.generator if self.facts.label == "fake" else self.facts.source


def append_rows(
    folder: Path, rows: Sequence[NewRow], staging: Staging, snapshot: Snapshot, *, added_at: datetime
) -> tuple[list[ShardRecord], tuple[Stratum, ...]]:
    """Write ``rows`` as new shards, to which nothing refers until a manifest does; with the strata then.

    Views lie in the group and the split of their original. Strata count images, not views.
    """
    manifest = snapshot.manifest
    row_ids = np.arange(manifest.next_row_id, manifest.next_row_id + len(rows), dtype=np.int64)
    originals = [index for index, row in enumerate(rows) if row.view == ORIGINAL_VIEW]
    images = [rows[index] for index in originals]
    groups, splits, new_groups = _assign(images, row_ids[originals], staging, snapshot)
    homes = dict(zip((row.content_id for row in images), zip(groups, splits, strict=True), strict=True))
    homes |= _stored_homes({row.content_id for row in rows} - homes.keys(), snapshot)
    given = {
        "row_id": row_ids,
        "group": [homes[row.content_id][0] for row in rows],
        "split": [homes[row.content_id][1] for row in rows],
        "added_at": [added_at] * len(rows),
    }
    keys = [row.key for row in rows]
    table = _table(rows, staging.facts(keys), manifest.layers, given)
    originals_only = [row.facts if row.view == ORIGINAL_VIEW else None for row in rows]
    written = {name: [getattr(facts, name, None) or None for facts in originals_only] for name in WRITTEN}
    shards = _write(folder, table, keys, staging, manifest.layers, written)
    return shards, _strata(manifest.strata, images, splits, new_groups)


def _stored_homes(images: set[bytes], snapshot: Snapshot) -> dict[bytes, tuple[int, Split]]:
    """Group and split of images that are stored already."""
    stored = stored_images(snapshot, sorted(images))
    rows = snapshot.take([image.row_id for image in stored.values()], ["group", "split"])
    return {image: (row["group"], row["split"]) for image, row in zip(stored, rows, strict=True)}


def _assign(
    rows: Sequence[NewRow], row_ids: Int64, staging: Staging, snapshot: Snapshot
) -> tuple[list[int], list[Split], Counter[StratumKey]]:
    """Group (the row id of its first member) and split of every new image; new groups a stratum."""
    if not rows:
        return [], [], Counter()
    staged, layer = [row.key for row in rows], grouping_layer(snapshot.manifest.layers)
    phashes = staging.facts(staged)["phash"].to_numpy()
    grouping = group_rows(phashes, staging.vectors(staged, layer), snapshot.shards(), layer)
    groups = row_ids[grouping.cluster]
    splits: list[Split] = ["bank"] * len(rows)
    shards = snapshot.shards()
    for number in np.unique(grouping.shard[grouping.shard != NONE]):
        members = np.flatnonzero(grouping.shard == number)
        shard = shards[number]
        groups[members] = shard.columns(["group"])["group"].to_numpy()[grouping.position[members]]
        for member in members:
            splits[member] = shard.record.split
    members_of: dict[int, list[int]] = defaultdict(list)
    for index in np.flatnonzero(grouping.shard == NONE).tolist():
        members_of[int(grouping.cluster[index])].append(index)
    strata = [rows[root].stratum for root in members_of]
    keys = [min(rows[index].content_id for index in members) for members in members_of.values()]
    existing = {(s.label, s.name): s.groups for s in snapshot.manifest.strata}
    for members_, split in zip(members_of.values(), assign_splits(strata, keys, existing), strict=True):
        for index in members_:
            splits[index] = split
    return groups.tolist(), splits, Counter(strata)


def _table(
    rows: Sequence[NewRow], facts: pa.Table, layers: Sequence[str], given: Mapping[str, Any]
) -> pa.Table:
    columns: dict[str, Any] = {f.name: [getattr(row.facts, f.name) for row in rows] for f in fields(Facts)}
    columns |= {name: facts[name].to_pylist() for name in FOUND}
    columns |= {norm_column(layer): facts[norm_column(layer)].to_numpy() for layer in layers}
    columns |= {"uri": [row.uri for row in rows], **given}
    return rows_table(columns, layers)


def _write(
    folder: Path,
    table: pa.Table,
    keys: Sequence[Key],
    staging: Staging,
    layers: Sequence[str],
    written: Mapping[str, Sequence[str | None]],
) -> list[ShardRecord]:
    label, split = table["label"].to_numpy(), table["split"].to_numpy()
    records = []
    for class_label in LABELS:
        for class_split in SPLITS:
            members = np.flatnonzero((label == class_label) & (split == class_split))
            for piece in cut(len(members)):
                index = members[piece]
                wanted = [keys[i] for i in index]
                vectors = {layer: staging.vectors(wanted, layer) for layer in layers}
                rows = table.take(pa.array(index))
                aside = {THUMBNAIL: staging.thumbnails(wanted)}
                aside |= {name: [texts[i] for i in index] for name, texts in written.items()}
                for name, values in aside.items():
                    if any(values):
                        rows = rows.append_column(ASIDE[name], pa.array(values, ASIDE[name].type))
                records.append(write_shard(folder, rows.combine_chunks(), vectors))
    return records


def _strata(
    before: Iterable[Stratum],
    rows: Sequence[NewRow],
    splits: Sequence[Split],
    new_groups: Mapping[StratumKey, int],
) -> tuple[Stratum, ...]:
    """Strata after adding ``rows``, which are originals."""
    counts = {(s.label, s.name): s for s in before}
    added = Counter((row.stratum, split) for row, split in zip(rows, splits, strict=True))
    for (stratum, split), number in added.items():
        counts[stratum] = (counts.get(stratum) or Stratum(*stratum)).plus(**{split: number})
    for stratum, number in new_groups.items():
        counts[stratum] = counts[stratum].plus(groups=number)
    return tuple(counts[key] for key in sorted(counts))
