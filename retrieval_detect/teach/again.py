"""What was fitted on references, fitted in the same way on others: after a change, or with some left out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from retrieval_detect.ask.fitted import read_fitted
from retrieval_detect.encoders.base import default_layers
from retrieval_detect.errors import UsageError
from retrieval_detect.projections.registry import fit_projection
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.training import load_training_set
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrieval_detect.search.projection import Affine
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import EncoderSpec
    from retrieval_detect.vectors import Rows

DEFAULT, DEFAULT_T, FEWEST = "default", 0.1, 100
"""The projection a new index gets: its name, its temperature, and references of each label that it wants."""
DIRECTIONS, FEW_DIRECTIONS = 32, 8
"""Directions of content removed from ``proj``, and from a block inside a CLIP, where less is content."""
CENTRED_FROM = 20
"""References of each label from which smaller indexes of a CLIP transformer, too, are searched inside it."""


def default_projection(snapshot: Snapshot, rows: Rows | None = None, *, kind: str = "") -> Affine:
    """The map through which a new generator is learnt and those before are kept, fitted on the banks.

    What is learnt: ``bench.methods``; what is kept: ``bench.accuracy.incremental``. ``rows`` : some of the
    banks' with its layers, however few, and ``kind`` what is to be fitted on them. All, the default, must be
    enough: else ``UsageError``. Where they are too few to tell content, a block of a CLIP is only centred.
    """
    layers, directions = default_reads(snapshot.manifest.encoder, snapshot.manifest.layers)
    kind = kind or _kind_for(snapshot, layers)
    how = {"shrinkage": "1"} if kind == "whiten" else {"content": "within", "directions": directions}
    rows = load_training_set(snapshot, layers) if rows is None else rows
    projection = fit_projection(kind, rows, layers=layers, **how)
    # The number of fakes decides the kind, so that it is fitted anew when any reference comes.
    facts = {"temperature": DEFAULT_T, "labels": list(LABELS)}
    return replace(projection, facts=dict(projection.facts) | facts)


def _kind_for(snapshot: Snapshot, layers: Sequence[str]) -> str:
    fewest = min(snapshot.manifest.live_rows(label, "bank") for label in LABELS)
    if fewest >= FEWEST and len(snapshot.manifest.names("real")) >= 2:
        return "nullspace"
    if fewest >= CENTRED_FROM and grouping_layer(snapshot.manifest.layers) not in layers:
        return "whiten"
    raise UsageError(f"the default projection takes {FEWEST} references of each label, and two sources")


def default_reads(spec: EncoderSpec, stored: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The layers that it reads of those ``stored``, and how many directions of content it removes."""
    inside = tuple(layer for layer in default_layers(spec) if layer != "proj" and layer in stored)
    layers = inside or (grouping_layer(stored),)
    most = FEW_DIRECTIONS if inside else DIRECTIONS
    return layers, max(1, min(most, sum(spec.layers[layer] for layer in layers) // 16))


def projection_again(snapshot: Snapshot, name: str, rows: Rows | None = None) -> Affine:
    """The projection called ``name``, fitted on what the banks hold now, or on ``rows`` of them.

    Its temperature stays, so that scores keep their scale.
    """
    if name == DEFAULT:
        return default_projection(
            snapshot, rows, kind="" if rows is None else read_fitted(snapshot, name).kind
        )
    old = read_fitted(snapshot, name)
    rows = load_training_set(snapshot, old.layers) if rows is None else rows
    projection = fit_projection(old.kind, rows, layers=old.layers, **old.facts.get("options", {}))
    return replace(projection, facts=dict(projection.facts) | {"temperature": old.temperature})
