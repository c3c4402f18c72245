"""Small pictures that an index keeps beside its rows, where it was asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.store.originals import stored_images
from retrieval_detect.store.schema import THUMBNAIL

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot


def stored_thumbnail(snapshot: Snapshot, content_id: bytes) -> bytes | None:
    """The WebP file kept of one live reference; ``None`` where none was."""
    stored = stored_images(snapshot, [content_id]).get(content_id)
    if stored is None:
        return None
    for shard in snapshot.shards(stored.label):
        position = int(np.searchsorted(shard.row_ids, stored.row_id))
        if position < len(shard) and shard.row_ids[position] == stored.row_id:
            if THUMBNAIL not in shard.names:
                return None
            kept: bytes | None = shard.take(np.array([position]), [THUMBNAIL])[THUMBNAIL][0].as_py()
            return kept
    return None
