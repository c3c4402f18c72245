"""Other names for stored references: what is spelt otherwise than it should be, and rows under new names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_detect.names import NAMED, spelling
from retrieval_detect.store.manifest import GeneratorFacts, ShardRecord, Stratum
from retrieval_detect.store.select import could_have
from retrieval_detect.store.shards import read_whole, rewrite, write_shard
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.store.shards import Shard
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Label

Names: TypeAlias = Mapping[str, Mapping[str, str]]
"""Column of rows → name → what it is to be."""

OWN_COLUMN: Mapping[Label, str] = {"fake": "generator", "real": "source"}


def misspelt(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """Names of live references that are not spelt as rd spells them: column → name → its spelling."""
    rows = snapshot.scan(NAMED)
    found = {
        column: {
            name: spelling(name)
            for name in rows[column].cast(pa.string()).unique().to_pylist()
            if name != spelling(name)
        }
        for column in NAMED
    }
    return {column: names for column, names in found.items() if names}


def twins(snapshot: Snapshot) -> dict[str, list[list[str]]]:
    """Misspelt names, each with the others that are the same name: column → spellings that occur."""
    wrong = misspelt(snapshot)
    rows = snapshot.scan(list(wrong))
    found: dict[str, list[list[str]]] = {}
    for column, names in wrong.items():
        alike: dict[str, list[str]] = defaultdict(list)
        for name in rows[column].cast(pa.string()).unique().to_pylist():
            alike[spelling(name)].append(name)
        found[column] = [sorted(alike[name]) for name in sorted(set(names.values()))]
    return found


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a renaming puts into the next manifest; ``images`` : how many references got another name."""

    shards: list[ShardRecord]
    strata: tuple[Stratum, ...]
    generators: dict[str, GeneratorFacts]
    next_row_id: int
    images: int


def renamed(folder: Path, snapshot: Snapshot, names: Names) -> Renamed:
    """Write live references under new names as new rows, and what is left of their shards.

    They get new row ids: whatever was fitted on the old ones was fitted on other names, and is stale.
    """
    manifest = snapshot.manifest
    kept: list[ShardRecord] = []
    moved: list[ShardRecord] = []
    next_row_id, images = manifest.next_row_id, 0
    for shard in snapshot.shards():
        chosen = snapshot.live(shard) & _named(shard, names)
        if not chosen.any():
            kept.append(shard.record)
            continue
        rest = rewrite(folder, [shard], manifest.layers, shard.row_ids[chosen])
        kept += [rest] if rest else []
        moved.append(_moved(folder, shard, chosen, names, manifest.layers, next_row_id))
        next_row_id += int(chosen.sum())
        images += _n_originals(shard, chosen)
    strata, generators = _strata(manifest, names), _generators(manifest, names)
    return Renamed([*kept, *moved], strata, generators, next_row_id, images)


def _named(shard: Shard, names: Names) -> Bool:
    """Which rows have one of the names: bool (n,)."""
    table = shard.columns(["label", *names])
    found: Bool = np.zeros(len(shard), dtype=bool)
    for column, changes in names.items():
        texts = table[column].cast(pa.string())
        here = pc.is_in(texts, value_set=pa.array(list(changes), pa.string())).to_numpy()
        found |= here & could_have(table, column)
    return found


def _moved(
    folder: Path, shard: Shard, chosen: Bool, names: Names, layers: tuple[str, ...], first: int
) -> ShardRecord:
    whole, vectors = read_whole(shard, layers)
    table = whole.filter(pa.array(chosen))
    for column, changes in names.items():
        texts = [changes.get(name, name) for name in table[column].cast(pa.string()).to_pylist()]
        at = table.schema.get_field_index(column)
        table = table.set_column(at, table.schema.field(at), pa.array(texts, table.schema.field(at).type))
    ids = pa.array(np.arange(first, first + len(table), dtype=np.int64))
    at = table.schema.get_field_index("row_id")
    table = table.set_column(at, table.schema.field(at), ids)
    return write_shard(folder, table.combine_chunks(), {layer: v[chosen] for layer, v in vectors.items()})


def _n_originals(shard: Shard, chosen: Bool) -> int:
    views = shard.columns(["view"])["view"].cast(pa.string())
    return int((pc.equal(views, ORIGINAL_VIEW).to_numpy() & chosen).sum())


def _strata(manifest: Manifest, names: Names) -> tuple[Stratum, ...]:
    """Counts, those of names that become one added up."""
    found: dict[tuple[Label, str], Stratum] = {}
    for old in manifest.strata:
        key = old.label, names.get(OWN_COLUMN[old.label], {}).get(old.name, old.name)
        so_far = found.get(key) or Stratum(*key)
        found[key] = so_far.plus(bank=old.bank, calib=old.calib, groups=old.groups)
    return tuple(found[key] for key in sorted(found))


def _generators(manifest: Manifest, names: Names) -> dict[str, GeneratorFacts]:
    """What is known about generators; where several become one, what the name had already counts first."""
    changes = names.get("generator", {})
    found: dict[str, GeneratorFacts] = {}
    for name in sorted(manifest.generators, key=lambda name: name in changes):
        facts, known = manifest.generators[name], found.get(changes.get(name, name), GeneratorFacts())
        found[changes.get(name, name)] = GeneratorFacts(
            known.family or spelling(facts.family), known.released_at or facts.released_at
        )
    return found
