"""Projections of an index, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval_detect.errors import UsageError
from retrieval_detect.search.projection import Affine, Identity
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.shards import damaged
from retrieval_detect.store.training import require_layers_stored

if TYPE_CHECKING:
    from retrieval_detect.search.projection import Projection
    from retrieval_detect.store.snapshot import Snapshot

PLAIN = "identity"
"""The projection every index has: the stored vectors of the layer that tells near-duplicates."""


def read_projection(snapshot: Snapshot, name: str | None = None) -> Projection:
    """The projection called ``name``; ``None`` is the index's default.

    Raises ``UsageError`` if there is none, ``IndexCorrupt`` if its file is none.
    """
    name = snapshot.manifest.projection if name is None else name
    if name == PLAIN:
        layer = grouping_layer(snapshot.manifest.layers)
        return Identity(layer, snapshot.manifest.encoder.layers[layer])
    return read_fitted(snapshot, name)


def read_fitted(snapshot: Snapshot, name: str) -> Affine:
    """The same of one that was fitted, ``PLAIN`` being none."""
    record = snapshot.fitted("projection", name)
    if record is None:
        known = [PLAIN, *(f.name for f in snapshot.manifest.fitted if f.kind == "projection")]
        raise UsageError(
            f"there is no projection {name!r}",
            hint=f"There are: {', '.join(known)}. Fit one: rd fit projection {name} --kind whiten",
        )
    path = snapshot.fitted_path(record, "safetensors")
    try:
        projection = Affine.from_bytes(snapshot.read(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path) from error
    require_layers_stored(snapshot, projection.layers)
    return projection
