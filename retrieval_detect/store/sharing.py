"""An index as one tar file to hand on, and such a file taken in.

It is plain POSIX tar: ``export.json`` first, then what it names: rows and vectors of what is live, and what
was fitted on them. Nothing derived is in it, nothing that was removed, no picture, and neither uris,
contributors nor mistakes unless asked for.

Of a file taken in, every byte is hostile until it was checked. What is expected follows from its head
alone, whose names match patterns: a member that is not expected, is no plain file, comes twice, or has
another size or checksum ends the import. Rows and vectors are then read, checked and written anew as
shards, so that nothing derived is taken over.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_detect.errors import FormatUnsupported, IndexCorrupt, UsageError
from retrieval_detect.files import (
    TEMPORARY,
    require_folder_of,
    sync_folder,
    write_atomically,
    write_bytes,
    write_json,
)
from retrieval_detect.names import NAMED, checked
from retrieval_detect.store.layout import CANARIES, MANIFESTS, MISTAKES, SHARDS, TOMBSTONES
from retrieval_detect.store.manifest import (
    FileRecord,
    Manifest,
    Operation,
    Purge,
    ShardRecord,
    commit,
    tool_versions,
)
from retrieval_detect.store.renaming import misspelt
from retrieval_detect.store.rows import PARQUET
from retrieval_detect.store.schema import (
    PARQUET_VERSION,
    VERSION,
    exact_dictionaries,
    norm_column,
    rows_schema,
)
from retrieval_detect.store.shards import SHARD_ROWS, layer_file, write_array, write_shard
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.verify import findings
from retrieval_detect.store.writer import Writer

if TYPE_CHECKING:
    from retrieval_detect.store.shards import Shard
    from retrieval_detect.types import Bool, Float16

EXPORT_FORMAT, EXPORT_VERSION = "retrieval-detect/export", 1
HEAD = "export.json"
PRIVATE = ("uri", "contributor")
"""Columns that tell of people and their machines: left empty unless asked for, as mistakes are left out."""


def export_index(snapshot: Snapshot, out: Path, *, keep: Collection[str] = ()) -> Manifest:
    """Write the generation that ``snapshot`` is to ``out``, a new file, all or nothing.

    ``keep`` : which of ``PRIVATE`` and ``MISTAKES`` go along. Returns the manifest that is in the file. Needs
    the room of the vectors beside ``out`` for as long as it takes.
    """
    taken = UsageError(f"{out} exists already", hint="Give the name of a new file.")
    if out.exists() or out.is_symlink():
        raise taken
    require_folder_of(out)
    with TemporaryDirectory(prefix=".rd-export-", dir=out.parent) as name:
        folder = Path(name)
        (folder / SHARDS).mkdir()
        shards = [record for shard in snapshot.shards() if (record := _shard(folder, snapshot, shard, keep))]
        # Without history, what was removed, the key of what was purged, and searches tuned for other files.
        manifest = replace(
            snapshot.manifest.of_live_rows(),
            parent=None,
            operation=Operation("export"),
            shards=tuple(shards),
            tombstones=(),
            purge=Purge(),
            tuned=None,
            mistakes=snapshot.manifest.mistakes if MISTAKES in keep else None,
            version=PARQUET_VERSION,
        )
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


def _small(manifest: Manifest, folder: Path) -> Iterator[tuple[Path, FileRecord]]:
    """Canaries, what was fitted, and mistakes."""
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


# ---------------------------------------------------------------- taking in

_HEAD_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
_LARGEST_NUMBER = 1 << 62
_TEXT_CHARS = 4096
"""No text of a row is longer."""


def import_index(file: Path, folder: Path, *, check: Callable[[Snapshot], None]) -> Manifest:
    """Make a new index at ``folder`` of a file that ``export_index`` wrote; all or nothing.

    ``check`` : is shown the index before it is in place, and raises what is wrong with it. Raises
    ``UsageError`` where something lies at ``folder`` already, ``IndexCorrupt`` or ``FormatUnsupported`` for a
    file that is not what it should be.
    """
    taken = UsageError(f"{folder} exists already", hint="Give another name: --name NAME")
    if folder.exists() or folder.is_symlink():
        raise taken
    folder.parent.mkdir(parents=True, exist_ok=True)
    # One folder deeper than indexes are looked for: what a crash leaves is never taken for one.
    outer = folder.parent.absolute() / f"{TEMPORARY}import-{secrets.token_hex(8)}"
    outer.mkdir()
    try:
        received, made = outer / "received", outer / "made"
        head = _unpacked(file, received)
        manifest = _rebuilt(head, received, made)
        if names := misspelt(Snapshot(made, manifest)):  # a generation more, in the spelling of names here
            renaming = Writer(made, Snapshot(made, manifest))
            manifest = renaming.rename(names, detail={"command": "index import"})
        check(Snapshot(made, manifest))
        if folder.exists() or folder.is_symlink():
            raise taken
        try:
            made.rename(folder)
        except OSError as error:  # nothing that holds something is renamed over
            raise taken if folder.exists() else error from None
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(outer, ignore_errors=True)
    return manifest


# ---------------------------------------------------------------- the file


def _unpacked(file: Path, folder: Path) -> Manifest:
    """Write the members of a file below ``folder``, each as its head says that it must be."""
    with _opened(file) as archive:
        members = iter(archive)
        manifest = _head(file, archive, next(members, None))
        expected = exported_files(manifest)
        for member in members:
            record = expected.pop(member.name, None)
            if record is None or not member.isreg() or member.issparse() or member.size != record.bytes:
                raise _corrupt(file, f"{member.name!r} should not be there, or not like this")
            content = archive.extractfile(member)
            if content is None or not _copied(content, folder / member.name, record):
                raise _corrupt(file, f"{member.name} is not what was exported: its checksum differs")
        if expected:
            raise _corrupt(file, f"{min(expected)} is missing")
    return manifest


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:") as archive:
            yield archive
    except FileNotFoundError:
        raise UsageError(f"there is no file {file}", hint="Make one: rd index export FILE") from None
    except (tarfile.TarError, EOFError) as error:
        raise _corrupt(file, f"it is no tar file, or cut short ({error})") from error


def _head(file: Path, archive: tarfile.TarFile, member: tarfile.TarInfo | None) -> Manifest:
    content = archive.extractfile(member) if member and member.isreg() and not member.issparse() else None
    if member is None or content is None or member.name != HEAD or member.size > _HEAD_BYTES:
        raise _corrupt(file, f"it does not begin with {HEAD}")
    try:
        head = json.loads(content.read(_HEAD_BYTES))
        if (head["format"], head["version"]) != (EXPORT_FORMAT, EXPORT_VERSION):
            raise FormatUnsupported(
                f"{file} has format {head['format']!r}, version {head['version']!r}; "
                f"this version of rd reads {EXPORT_FORMAT!r}, version {EXPORT_VERSION}",
                hint="Install a newer retrieval-detect.",
            )
        manifest = Manifest.from_json(head["manifest"])
        _require_plain(manifest)
    except FormatUnsupported:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(file, f"{HEAD} is no head of an export") from error
    return manifest


def _require_plain(manifest: Manifest) -> None:
    """Raise ``ValueError`` unless it is what ``export_index`` writes, in types and sizes."""
    files = exported_files(manifest)
    suffixes = {PARQUET, *map(layer_file, manifest.layers)}
    if manifest.tombstones or manifest.tuned or set(manifest.canaries) != set(manifest.layers):
        raise ValueError("history has no place in an export")
    if any(set(s.files) != suffixes or not 0 < s.rows <= SHARD_ROWS for s in manifest.shards):
        raise ValueError("a shard has other files, or another size")
    if len({s.id for s in manifest.shards}) != len(manifest.shards):
        raise ValueError("a shard is there twice")
    for stratum in manifest.strata:
        checked(stratum.name, "generator" if stratum.label == "fake" else "source")
    for name, facts in manifest.generators.items():
        checked(name, "generator")
        checked(facts.family, "family")
    if not all(_is_count(f.bytes) and _is_digest(f.sha256) for f in files.values()):
        raise ValueError("a record has no size or no checksum")
    counts = [n for s in manifest.strata for n in (s.bank, s.calib, s.groups)]
    numbers = [manifest.generation, manifest.next_row_id, manifest.n_mistakes, *counts]
    if not all(map(_is_count, numbers)):
        raise ValueError("a count is none")


def _is_count(number: object) -> bool:
    return isinstance(number, int) and 0 <= number < _LARGEST_NUMBER


def _is_digest(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _copied(content: IO[bytes], path: Path, record: FileRecord) -> bool:
    """Write one member; whether it has its checksum."""
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
            out.write(block)
    return digest.hexdigest() == record.sha256


# ---------------------------------------------------------------- the index


def _rebuilt(head: Manifest, received: Path, made: Path) -> Manifest:
    """An index of what was received: checked, written anew, committed."""
    for name in (MANIFESTS, SHARDS, TOMBSTONES, CANARIES):
        (made / name).mkdir(parents=True)
    try:
        shards = tuple(_written_anew(record, head, received, made) for record in head.shards)
        for path, _record in Snapshot(received, replace(head, shards=())).files():
            target = made / path.relative_to(received)
            target.parent.mkdir(exist_ok=True)
            write_bytes(target, path.read_bytes())
        for layer in head.layers:
            d = head.encoder.layers[layer]
            _array(Snapshot(made, head).canary_path(layer), np.dtype(np.float32), (None, d))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, such as a full disk; of a damaged file libraries give no number
        raise IndexCorrupt(
            f"what was exported cannot be used: {error}", hint="Ask for the file again."
        ) from error
    operation = Operation("import", added=sum(s.bank + s.calib for s in head.strata))
    manifest = replace(head, shards=shards, operation=operation, tools=tool_versions(), version=VERSION)
    for problem in findings(Snapshot(made, manifest)):
        raise IndexCorrupt(f"what was exported is not whole: {problem}", hint="Ask for the file again.")
    commit(made, manifest)
    return manifest


def _written_anew(record: ShardRecord, head: Manifest, received: Path, made: Path) -> ShardRecord:
    base = received / SHARDS
    table = _table(base / f"{record.id}.{PARQUET}", record, head)
    vectors: dict[str, Float16] = {}
    for layer in head.layers:
        shape = (record.rows, head.encoder.layers[layer])
        vectors[layer] = _array(base / f"{record.id}.{layer_file(layer)}", np.dtype(np.float16), shape)
    return write_shard(made, table, vectors)


def _array(path: Path, dtype: np.dtype[np.generic], shape: tuple[int | None, int]) -> np.ndarray:
    """A mapped array of this type and shape; a file that promises more than it holds cannot be mapped."""
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    wanted = tuple(n if n is not None else have for n, have in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or array.shape != wanted or not array.flags.c_contiguous:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, not {dtype} {wanted}")
    return array


def _table(path: Path, record: ShardRecord, head: Manifest) -> pa.Table:
    """The rows of a shard. Bounded by the size of the file: nothing in it is compressed, no text repeated."""
    schema = rows_schema(head.layers)
    texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_dictionary(f.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        facts = file.metadata
        groups = [facts.row_group(i) for i in range(facts.num_row_groups)]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
        if facts.num_rows != record.rows or {column.compression for column in columns} != {"UNCOMPRESSED"}:
            raise ValueError(f"{path.name} has another number of rows, or is compressed")
        table = file.read(schema.names)
    if len(table) != record.rows:
        raise ValueError(f"{path.name} has another number of rows")
    table = pa.table([_column(table, field) for field in schema], schema=schema)
    table.validate(full=True)
    strata = table.select(["label", "split"]).group_by(["label", "split"]).aggregate([]).to_pylist()
    if [{"label": record.label, "split": record.split}] != strata:
        raise ValueError(f"{path.name} holds rows of another label or split")
    norms = np.stack([table[norm_column(layer)].to_numpy() for layer in head.layers])
    if not (np.isfinite(norms) & (norms > 0)).all() or table["row_id"].to_numpy().min() < 0:
        raise ValueError(f"{path.name} has a norm or a row id that is none")
    return table


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    column = table[field.name]
    if column.null_count:
        raise ValueError(f"column {field.name} has empty values")
    for chunk in column.chunks if pa.types.is_dictionary(column.type) else ():
        chunk.validate(full=True)
        for text in chunk.dictionary.to_pylist():
            if len(text) > _TEXT_CHARS:
                raise ValueError(f"column {field.name} has a text of more than {_TEXT_CHARS:,} characters")
            if field.name in NAMED:
                checked(text, field.name)
    return column.cast(field.type)


def _corrupt(file: Path, what: str) -> IndexCorrupt:
    return IndexCorrupt(
        f"{file} is no export of an index that can be used: {what}",
        hint="Ask for the file again; it is made with: rd index export FILE",
    )
