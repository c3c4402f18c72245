"""An index as one tar file to hand on: rows and vectors of what is live, and what was fitted on them.

The file is plain POSIX tar: ``export.json`` first, then what it names. Nothing derived is in it, nothing
that was removed, no picture, and neither uris nor contributors unless asked for. ``store.imported`` takes
it in.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_detect.errors import UsageError
from retrieval_detect.files import require_folder_of, write_atomically, write_json
from retrieval_detect.store.layout import SHARDS
from retrieval_detect.store.manifest import FileRecord, Manifest, Operation, Purge, ShardRecord
from retrieval_detect.store.rows import PARQUET
from retrieval_detect.store.schema import PARQUET_VERSION, exact_dictionaries, rows_schema
from retrieval_detect.store.shards import layer_file, write_array
from retrieval_detect.store.snapshot import Snapshot

if TYPE_CHECKING:
    from retrieval_detect.store.shards import Shard
    from retrieval_detect.types import Bool

EXPORT_FORMAT, EXPORT_VERSION = "retrieval-detect/export", 1
HEAD = "export.json"
PRIVATE = ("uri", "contributor")
"""Columns that tell of people and their machines: left empty unless asked for."""


def export_index(snapshot: Snapshot, out: Path, *, keep: Collection[str] = ()) -> Manifest:
    """Write the generation that ``snapshot`` is to ``out``, a new file, all or nothing.

    ``keep`` : which of ``PRIVATE`` go along. Returns the manifest that is in the file. Needs the room of the
    vectors beside ``out`` for as long as it takes.
    """
    taken = UsageError(f"{out} exists already", hint="Give the name of a new file.")
    if out.exists() or out.is_symlink():
        raise taken
    require_folder_of(out)
    with TemporaryDirectory(prefix=".rd-export-", dir=out.parent) as name:
        folder = Path(name)
        (folder / SHARDS).mkdir()
        shards = [record for shard in snapshot.shards() if (record := _shard(folder, snapshot, shard, keep))]
        manifest = _handed_on(snapshot.manifest, shards)
        head = {"format": EXPORT_FORMAT, "version": EXPORT_VERSION, "manifest": manifest.to_json()}
        write_json(folder / HEAD, head)
        for path, _ in _small(manifest, snapshot.folder):
            copy = folder / path.relative_to(snapshot.folder)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(snapshot.read(path))  # its own file may have been swept by now
        files = [(part, folder / part) for part in (HEAD, *exported_files(manifest))]
        try:
            write_atomically(out, lambda file: _pack(file, files), new=True)
        except FileExistsError:
            raise taken from None
    return manifest


def exported_files(manifest: Manifest) -> dict[str, FileRecord]:
    """What must be in the file besides its head: name → what it must be."""
    files = {
        f"{SHARDS}/{shard.id}.{suffix}": record
        for shard in manifest.shards
        for suffix, record in shard.files.items()
    }
    root = Path("/")
    return files | {str(path.relative_to(root)): record for path, record in _small(manifest, root)}


def _handed_on(manifest: Manifest, shards: list[ShardRecord]) -> Manifest:
    """Without history, what was removed, the key of what was purged, and searches tuned for other files."""
    return replace(
        manifest.of_live_rows(),
        parent=None,
        operation=Operation("export"),
        shards=tuple(shards),
        tombstones=(),
        purge=Purge(),
        tuned=None,
        version=PARQUET_VERSION,
    )


def _small(manifest: Manifest, folder: Path) -> Iterator[tuple[Path, FileRecord]]:
    """Canaries and what was fitted."""
    yield from Snapshot(folder, replace(manifest, shards=())).files()


def _shard(folder: Path, snapshot: Snapshot, shard: Shard, keep: Collection[str]) -> ShardRecord | None:
    """The live rows of a shard, written anew; ``None`` if there are none."""
    live, layers = snapshot.live(shard), snapshot.manifest.layers
    if not live.any():
        return None
    row_ids = shard.row_ids[live]
    names = {
        suffix: folder / SHARDS / f"{shard.record.id}.{suffix}"
        for suffix in (PARQUET, *map(layer_file, layers))
    }
    # Not compressed, so that a receiver knows by the size of the file what reading it takes.
    pq.write_table(_rows(shard, live, layers, keep), names[PARQUET], compression="none")
    for layer in layers:
        write_array(names[layer_file(layer)], shard.vectors(layer)[live])
    return replace(
        shard.record,
        rows=len(row_ids),
        first_row_id=int(row_ids[0]),
        last_row_id=int(row_ids[-1]),
        files={suffix: FileRecord.of(path) for suffix, path in names.items()},
    )


def _rows(shard: Shard, live: Bool, layers: Sequence[str], keep: Collection[str]) -> pa.Table:
    schema = rows_schema(layers, version=PARQUET_VERSION)
    table = shard.columns(schema.names).filter(pa.array(live))
    columns = []
    for field in schema:
        column = table[field.name]
        if field.name in PRIVATE and field.name not in keep:
            column = pa.array([""] * len(table))
        columns.append(column.cast(field.type))
    return exact_dictionaries(pa.table(columns, schema=schema))


def _pack(out: BinaryIO, files: Iterable[tuple[str, Path]]) -> None:
    """Equal exports give equal bytes: names, sizes and contents are all that a member has."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in files:
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(member, file)
