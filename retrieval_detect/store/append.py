"""Staged embeddings → shards: row ids, groups, splits, strata."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retrieval_detect.store.groups import NONE, Grouping, group_rows
from retrieval_detect.store.manifest import ShardRecord, Stratum
from retrieval_detect.store.schema import norm_column, rows_table
from retrieval_detect.store.shards import cut, write_shard
from retrieval_detect.store.splits import StratumKey, assign_splits
from retrieval_detect.types import LABELS, ORIGINAL_VIEW, SPLITS, Facts

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.staging import Staging
    from retrieval_detect.types import Split

_FACT_COLUMNS = (
    "generator",
    "source",
    "category",
    "pair_id",
    "licence",
    "contributor",
    "batch",
    "tags",
    "label",
)


@dataclass(frozen=True, slots=True)
class NewRow:
    """A reference to be stored: its vectors are staged under ``content_id``."""

    content_id: bytes
    uri: str
    facts: Facts
    view: str = ORIGINAL_VIEW

    @property
    def stratum(self) -> StratumKey:
        """What the split rule counts it under."""
        return self.facts.label, self.facts.generator if self.facts.label == "fake" else self.facts.source


@dataclass(frozen=True, slots=True)
class Appended:
    """What an addition puts into the next manifest."""

    shards: list[ShardRecord]
    strata: tuple[Stratum, ...]
    next_row_id: int


def append_rows(
    folder: Path, rows: Sequence[NewRow], staging: Staging, snapshot: Snapshot, *, added_at: datetime
) -> Appended:
    """Write ``rows`` as new shards; nothing refers to them until a manifest does."""
    manifest = snapshot.manifest
    ids = [row.content_id for row in rows]
    layer = grouping_layer(manifest.layers)
    facts = staging.facts(ids)
    grouping = group_rows(facts["phash"].to_numpy(), staging.vectors(ids, layer), snapshot.shards(), layer)
    groups, splits, new_groups = _assign(rows, grouping, snapshot)
    row_ids = np.arange(manifest.next_row_id, manifest.next_row_id + len(rows), dtype=np.int64)
    table = _table(
        rows,
        facts,
        manifest.layers,
        {"row_id": row_ids, "group": groups, "split": splits, "added_at": added_at},
    )
    return Appended(
        _write(folder, table, ids, staging, manifest.layers),
        count_strata(manifest.strata, rows, splits, new_groups),
        manifest.next_row_id + len(rows),
    )


def grouping_layer(layers: Sequence[str]) -> str:
    """The layer whose cosine confirms near-duplicates: ``proj`` where it is stored."""
    return "proj" if "proj" in layers else layers[0]


def _assign(
    rows: Sequence[NewRow], grouping: Grouping, snapshot: Snapshot
) -> tuple[np.ndarray, list[Split], Counter[StratumKey]]:
    """Group (the row id of its first member) and split of every new row; new groups a stratum."""
    n = len(rows)
    groups = snapshot.manifest.next_row_id + grouping.cluster
    splits: list[Split] = ["bank"] * n
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
    return groups, splits, Counter(strata)


def _table(
    rows: Sequence[NewRow], facts: pa.Table, layers: Sequence[str], given: Mapping[str, Any]
) -> pa.Table:
    columns: dict[str, Any] = {name: [getattr(row.facts, name) for row in rows] for name in _FACT_COLUMNS}
    columns |= {
        name: facts[name].to_pylist()
        for name in ("content_id", "phash", "width", "height", "format", "notes")
    }
    columns |= {norm_column(layer): facts[norm_column(layer)].to_numpy() for layer in layers}
    columns |= {"uri": [row.uri for row in rows], "view": [row.view for row in rows]}
    columns |= dict(given) | {"added_at": [given["added_at"]] * len(rows)}
    return rows_table(columns, layers)


def _write(
    folder: Path, table: pa.Table, ids: Sequence[bytes], staging: Staging, layers: Sequence[str]
) -> list[ShardRecord]:
    label, split = table["label"].to_numpy(), table["split"].to_numpy()
    records = []
    for class_label in LABELS:
        for class_split in SPLITS:
            members = np.flatnonzero((label == class_label) & (split == class_split))
            for piece in cut(len(members)):
                index = members[piece]
                wanted = [ids[i] for i in index]
                vectors = {layer: staging.vectors(wanted, layer) for layer in layers}
                records.append(write_shard(folder, table.take(pa.array(index)).combine_chunks(), vectors))
    return records


def count_strata(
    before: Iterable[Stratum],
    rows: Sequence[NewRow],
    splits: Sequence[Split],
    new_groups: Mapping[StratumKey, int],
) -> tuple[Stratum, ...]:
    """Strata after adding ``rows``."""
    counts = {(s.label, s.name): s for s in before}
    added = Counter((row.stratum, split) for row, split in zip(rows, splits, strict=True))
    for (stratum, split), number in added.items():
        old = counts.get(stratum) or Stratum(*stratum)
        counts[stratum] = (
            replace(old, bank=old.bank + number)
            if split == "bank"
            else replace(old, calib=old.calib + number)
        )
    for stratum, number in new_groups.items():
        counts[stratum] = replace(counts[stratum], groups=counts[stratum].groups + number)
    return tuple(counts[key] for key in sorted(counts))
