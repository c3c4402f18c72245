"""Going back, and erasing for good: what older generations still hold."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import numpy as np

from retrieval_detect.errors import IndexCorrupt, UsageError
from retrieval_detect.files import DigestCache
from retrieval_detect.store.manifest import manifest_path, read_current, read_manifest
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.sweep import KEPT_GENERATIONS, kept_generations, kept_manifests


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


def keyed_digest(key: str, content_id: bytes) -> str:
    """HMAC-SHA256, hex: enough to refuse an image again, not enough to list what was purged."""
    return hmac.new(bytes.fromhex(key), content_id, hashlib.sha256).hexdigest()
