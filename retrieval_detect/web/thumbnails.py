"""Small pictures of references, by row id: made of what they came from, else those that the index keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import ImageError
from retrieval_detect.images.stored import stored_items
from retrieval_detect.images.thumbnails import thumbnail as small
from retrieval_detect.store.originals import stored_thumbnail

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.web.decoding import Decoders

SIDE, LARGEST_SIDE = 256, 1024


def thumbnail(snapshot: Snapshot, row_id: int, decoders: Decoders, *, side: int = SIDE) -> bytes | None:
    """A reference as WebP, its longer side at most ``side``; ``None`` where there is none to be had."""
    found = _stored(snapshot, row_id)
    if found is None:
        return None
    (item,) = stored_items([found])
    try:
        return small(decoders.decode(item.read()).rgb, side=side)
    except ImageError:
        return stored_thumbnail(snapshot, found[1])


def _stored(snapshot: Snapshot, row_id: int) -> tuple[str, bytes] | None:
    """Uri and content id of a live reference."""
    if np.isin(row_id, snapshot.dead):
        return None
    try:
        row = snapshot.take([row_id], ["uri", "content_id"])[0]
    except (KeyError, OverflowError):
        return None
    return row["uri"], row["content_id"]
