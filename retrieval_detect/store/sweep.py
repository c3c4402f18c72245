"""Sweeping: delete what no kept generation refers to. Only the holder of the writer lock may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrieval_detect.errors import IndexCorrupt, RdError
from retrieval_detect.files import TEMPORARY
from retrieval_detect.store.layout import (
    BANKS,
    CANARIES,
    FITTED,
    MANIFESTS,
    PROJECTION_ID,
    SHARDS,
    STAGING,
    TOMBSTONES,
    plain_id,
)
from retrieval_detect.store.manifest import Manifest, generations, manifest_path, read_manifest
from retrieval_detect.store.pins import pinned
from retrieval_detect.store.snapshot import Snapshot

KEPT_GENERATIONS = 10
_SWEPT = (MANIFESTS, SHARDS, TOMBSTONES, CANARIES, *FITTED.values())


def kept_generations(folder: Path, current: Manifest) -> list[int]:
    """Generations that may be gone back to: the last ten and pinned ones, from the last purge to CURRENT."""
    there = [g for g in generations(folder) if current.purge.floor <= g <= current.generation]
    keep = {*there[-KEPT_GENERATIONS:], *pinned(folder)}
    return [g for g in there if g in keep]


def kept_manifests(folder: Path, current: Manifest) -> Iterator[Manifest]:
    """Those of ``kept_generations``, oldest first; what is swept meanwhile is left out."""
    for generation in kept_generations(folder, current):
        path = manifest_path(folder, generation)
        try:
            yield read_manifest(path)
        except IndexCorrupt:
            if path.exists():
                raise


def sweep(folder: Path, current: Manifest) -> list[Path]:
    """Delete leftovers of crashed writers, generations past keeping, and what derives from neither.

    Returns what could not be deleted, as on a system that locks open files: the next sweep tries again.
    """
    folder = folder.absolute()  # as the paths of a snapshot are, which are compared with
    left: list[Path] = []
    keep: set[Path] = set()
    derived: set[tuple[str, str]] = set()
    for generation in kept_generations(folder, current):
        path = manifest_path(folder, generation)
        try:
            manifest = current if generation == current.generation else read_manifest(path)
        except RdError:
            continue
        keep |= {path, *(file for file, _ in Snapshot(folder, manifest).files())}
        derived |= {(shard.id, id_) for shard in manifest.shards for id_ in _projection_ids(manifest)}
        if tuned := manifest.tuned:
            present = {shard.id for shard in manifest.shards}
            derived |= {(tuned.stem(label, present), tuned.projection) for label in tuned.banks}
    for path in _candidates(folder):
        of = tuple(path.name.split(".")[:2]) if path.parent.name == BANKS else None
        if path.name.startswith(TEMPORARY) or (path not in keep and of not in derived):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                left.append(path)
    return left


def _projection_ids(manifest: Manifest) -> Iterator[str]:
    yield from map(plain_id, manifest.layers)
    for record in manifest.fitted:
        if record.kind == "projection":
            yield record.files["safetensors"].sha256[:PROJECTION_ID]


def _candidates(folder: Path) -> Iterator[Path]:
    for name in (*_SWEPT, BANKS, STAGING):
        for path in sorted((folder / name).glob("*")):
            if name != STAGING or path.name.startswith(TEMPORARY):
                yield path
    yield from folder.glob(f"{TEMPORARY}*")
