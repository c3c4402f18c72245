"""Sweeping: delete what no kept generation refers to. Only the holder of the writer lock may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from retrieval_detect.errors import RdError
from retrieval_detect.files import TEMPORARY
from retrieval_detect.store.layout import BANKS, CANARIES, FITTED, MANIFESTS, SHARDS, STAGING, TOMBSTONES
from retrieval_detect.store.manifest import Manifest, generations, manifest_path, read_manifest
from retrieval_detect.store.snapshot import Snapshot

KEPT_GENERATIONS = 10
_SWEPT = (MANIFESTS, SHARDS, TOMBSTONES, CANARIES, *FITTED.values())


def kept_generations(folder: Path, current: Manifest) -> list[int]:
    """Generations that may be gone back to: the last ten, none below a purge, none beyond CURRENT."""
    there = [g for g in generations(folder) if current.purge.floor <= g <= current.generation]
    return there[-KEPT_GENERATIONS:]


def sweep(folder: Path, current: Manifest) -> None:
    """Delete leftovers of crashed writers, generations past keeping, and derived files without a shard."""
    keep: set[Path] = set()
    shard_ids: set[str] = set()
    for generation in kept_generations(folder, current):
        path = manifest_path(folder, generation)
        try:
            manifest = current if generation == current.generation else read_manifest(path)
        except RdError:
            continue
        keep |= {path, *(file for file, _ in Snapshot(folder, manifest).files())}
        shard_ids |= {record.id for record in manifest.shards}
    for path in _candidates(folder):
        derived = path.parent.name == BANKS and path.name.split(".")[0] in shard_ids
        if path.name.startswith(TEMPORARY) or (path not in keep and not derived):
            with suppress(OSError):  # a reader on a system that locks open files: the next sweep gets it
                path.unlink()


def _candidates(folder: Path) -> Iterator[Path]:
    for name in (*_SWEPT, BANKS, STAGING):
        for path in sorted((folder / name).glob("*")):
            if name != STAGING or path.name.startswith(TEMPORARY):
                yield path
    yield from folder.glob(f"{TEMPORARY}*")
