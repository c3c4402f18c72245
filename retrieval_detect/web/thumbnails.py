"""Small pictures of references, by row id: from the file they came from, if it still holds the same bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retrieval_detect.errors import ImageError
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.items import file_item

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.web.decoding import Decoders

SIDE = 256
_QUALITY = 75


def thumbnail(snapshot: Snapshot, row_id: int, decoders: Decoders) -> bytes | None:
    """A reference as WebP, its longer side at most ``SIDE``; ``None`` where there is none to be had."""
    found = _stored(snapshot, row_id)
    if found is None:
        return None
    uri, identity = found
    try:
        data = file_item(Path(uri), uri).read()
        if content_id(data) != identity:
            return None
        rgb = decoders.decode(data).rgb
    except (ImageError, OSError, ValueError):
        return None
    small = Image.fromarray(rgb)
    small.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=_QUALITY)
    return stream.getvalue()


def _stored(snapshot: Snapshot, row_id: int) -> tuple[str, bytes] | None:
    """Uri and content id of a live reference."""
    if np.isin(row_id, snapshot.dead):
        return None
    try:
        row = snapshot.take([row_id], ["uri", "content_id"])[0]
    except (KeyError, OverflowError):
        return None
    return row["uri"], row["content_id"]
