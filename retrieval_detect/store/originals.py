"""Stored images by content id: where the original's row is, which views and what picture lie beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.store.schema import THUMBNAIL, view_code
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.staging import Key
    from retrieval_detect.types import Label


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One live reference. ``row_id`` : of its original; ``row_ids`` : of all its views, the original too."""

    label: Label
    row_id: int
    row_ids: tuple[int, ...]
    codes: frozenset[int]

    def has(self, view: str) -> bool:
        """Whether a view is stored."""
        return view_code(view) in self.codes


def stored_images(snapshot: Snapshot, content_ids: Sequence[bytes]) -> dict[bytes, StoredImage]:
    """Those of some images that are live; only key files are read."""
    views: dict[bytes, dict[int, int]] = defaultdict(dict)
    labels: dict[bytes, Label] = {}
    for index, row_id, code, fake in snapshot.find(content_ids):
        views[content_ids[index]][code] = row_id
        labels[content_ids[index]] = "fake" if fake else "real"
    original = view_code(ORIGINAL_VIEW)
    return {
        image: StoredImage(labels[image], rows[original], tuple(rows.values()), frozenset(rows))
        for image, rows in views.items()
        if original in rows
    }


def committed(snapshot: Snapshot, keys: Sequence[Key]) -> set[Key]:
    """Which views are stored."""
    stored = stored_images(snapshot, list(dict.fromkeys(content_id for content_id, _ in keys)))
    return {(image, view) for image, view in keys if image in stored and stored[image].has(view)}


def stored_thumbnail(snapshot: Snapshot, content_id: bytes) -> bytes | None:
    """The WebP file kept of one live reference; ``None`` where none was."""
    stored = stored_images(snapshot, [content_id]).get(content_id)
    if stored is None:
        return None
    for shard in snapshot.shards(stored.label):
        _, at = shard.positions(np.array([stored.row_id]))
        if len(at) and THUMBNAIL in shard.names:
            kept: bytes | None = shard.take(at, [THUMBNAIL])[THUMBNAIL][0].as_py()
            return kept
    return None
