"""Which generations stay: those that can be gone back to, pins, what is swept, and erasing for good."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from retrieval_detect.errors import IndexCorrupt, IndexStateError, RdError, UsageError
from retrieval_detect.files import TEMPORARY, DigestCache, write_bytes
from retrieval_detect.store import layout
from retrieval_detect.store.layout import PROJECTION_ID, plain_id
from retrieval_detect.store.manifest import (
    Manifest,
    Purge,
    generations,
    manifest_path,
    read_current,
    read_manifest,
)
from retrieval_detect.store.snapshot import Snapshot

KEPT_GENERATIONS = 10
_SWEPT = (
    *(layout.MANIFESTS, layout.SHARDS, layout.TOMBSTONES, layout.CANARIES, layout.MISTAKES),
    *layout.FITTED.values(),
)


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
        present = {shard.id for shard in manifest.shards}
        derived |= {(shard, id_) for shard in present for id_ in _projection_ids(manifest)}
        if tuned := manifest.tuned:
            derived |= {(tuned.stem(label, present), tuned.projection) for label in tuned.banks}
    for path in _candidates(folder):
        of = tuple(path.name.split(".")[:2]) if path.parent.name == layout.BANKS else None
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
    for name in (*_SWEPT, layout.BANKS, layout.STAGING):
        for path in sorted((folder / name).glob("*")):
            if name != layout.STAGING or path.name.startswith(TEMPORARY):
                yield path
    yield from folder.glob(f"{TEMPORARY}*")


def pin(folder: Path, generation: int) -> None:
    """Keep a generation for ever. No lock is needed: a pin is one file, and only sweeps read it.

    Raises ``IndexStateError`` where the generation has gone meanwhile.
    """
    (folder / layout.PINS).mkdir(exist_ok=True)
    write_bytes(folder / layout.PINS / f"{generation:08d}", b"")
    if not manifest_path(folder, generation).exists():
        raise IndexStateError(
            f"generation {generation} of {folder} has gone while it was asked", hint="Ask again."
        )


def pinned(folder: Path) -> set[int]:
    """The generations that are pinned."""
    return {int(path.name) for path in (folder / layout.PINS).glob("????????") if path.name.isdigit()}


def snapshot_before(folder: Path, manifest: Manifest) -> Snapshot | None:
    """The generation that a change began from; ``None`` if there was none, or it is purged or swept."""
    if manifest.parent is None:
        return None
    try:
        return kept_snapshot(folder, manifest.parent)
    except (UsageError, IndexCorrupt):
        return None


def kept_snapshot(folder: Path, generation: int) -> Snapshot:
    """A generation that can be gone back to, checked and held.

    Raises ``UsageError`` where it is not kept and ``IndexCorrupt`` where it is damaged.
    """
    try:
        if generation in kept_generations(folder, read_current(folder)):
            snapshot = Snapshot(folder, read_manifest(manifest_path(folder, generation)))
            snapshot.check(DigestCache.for_user())
            snapshot.hold()
            return snapshot
    except IndexCorrupt:
        if generation in kept_generations(folder, read_current(folder)):  # else it was swept meanwhile
            raise
    raise UsageError(
        f"there is no generation {generation} to go back to",
        hint=f"See which are kept (the last {KEPT_GENERATIONS}): rd bank list --by generation",
    )


def erasable(snapshot: Snapshot) -> set[bytes]:
    """Content ids that some kept generation calls removed and that have no live row now."""
    removed: set[bytes] = set()
    for manifest in kept_manifests(snapshot.folder, snapshot.manifest):
        then = Snapshot(snapshot.folder, manifest)
        dead = np.concatenate([np.empty(0, np.int64), *(s.row_ids[~then.live(s)] for s in then.shards())])
        removed |= {row["content_id"] for row in then.take(dead.tolist(), ["content_id"])}
    content_ids = sorted(removed)
    return removed - {content_ids[index] for index, *_ in snapshot.find(content_ids)}


def were_purged(content_ids: Iterable[bytes], purge: Purge) -> set[bytes]:
    """Which of some images were erased for good."""
    digests = frozenset(purge.digests)
    return {image for image in content_ids if keyed_digest(purge.key, image) in digests} if digests else set()


def keyed_digest(key: str, content_id: bytes) -> str:
    """HMAC-SHA256, hex: enough to refuse an image again, not enough to list what was purged."""
    return hmac.new(bytes.fromhex(key), content_id, hashlib.sha256).hexdigest()
