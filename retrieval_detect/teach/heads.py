"""Training heads on stored references, and committing them to an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.calibrations import NAMES, can_name
from retrieval_detect.ask.fitted import HEAD, read_projection
from retrieval_detect.errors import EncoderMismatch, UsageError
from retrieval_detect.heads.ensemble import EnsembleHead
from retrieval_detect.store.manifest import BANK_ROWS
from retrieval_detect.store.training import load_training_set, require_layers_stored
from retrieval_detect.teach.calibrate import rates_anew
from retrieval_detect.teach.fitted import write
from retrieval_detect.texts import read_csv
from retrieval_detect.types import METHODS, ORIGINAL_VIEW
from retrieval_detect.vectors import Rows

if TYPE_CHECKING:
    from retrieval_detect.encoders.text import TextTower
    from retrieval_detect.heads.base import Head
    from retrieval_detect.heads.linear import LinearHead
    from retrieval_detect.store.manifest import FittedRecord, Manifest, RowStratum
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.store.writer import Writer
    from retrieval_detect.types import Float32, Split


def check_name(name: str, *, members: Sequence[str] = ()) -> None:
    """Raise ``UsageError`` for what cannot name a head beside the votes, or one made of ``members``."""
    if name in METHODS or not can_name(name):
        raise UsageError(
            f"{name!r} cannot name a head", hint=f"{NAMES} These are votes: {', '.join(METHODS)}."
        )
    if name in members:
        raise UsageError(f"{name!r} cannot be a member of itself", hint="Choose another --name.")


def training_set(snapshot: Snapshot, head: Head, *, split: Split = "bank") -> Rows:
    """The rows a head is trained on, views included; of calibration rows, only to see how well it does."""
    layers = head.layers or snapshot.manifest.layers
    return load_training_set(snapshot, layers, split=split, views=split == "bank")


def scored_rows(snapshot: Snapshot, head: Head, table: str | Path) -> tuple[Rows, Float32]:
    """References that people gave a score, and the scores, float32 (n,).

    ``table`` : a CSV file with columns ``image`` (a path as it was stored, or a sha256) and ``score``.
    """
    given = _score_table(Path(table))
    columns = snapshot.scan(["row_id", "uri", "content_id", "view"], split="bank").to_pylist()
    by_row = {
        row["row_id"]: given.get(row["content_id"].hex(), given.get(row["uri"]))
        for row in columns
        if row["view"] == ORIGINAL_VIEW
    }
    rows = training_set(snapshot, head)
    scores = np.array([by_row.get(row_id) for row_id in rows.row_ids.tolist()], np.float32)
    if not np.isfinite(scores).any():
        raise UsageError(
            f"none of the {len(given):,} images in {table} is a reference that may be trained on",
            hint="Add them first: rd bank add. Name them by sha256, or by the paths that rd bank list shows.",
        )
    return rows.take(np.isfinite(scores)), scores[np.isfinite(scores)]


def _score_table(path: Path) -> dict[str, float]:
    table = read_csv(path)
    try:
        if not {"image", "score"} <= set(table.columns):
            raise ValueError("its header is another")
        return {row["image"]: _finite(row["score"]) for row in table.rows}
    except ValueError as error:
        raise UsageError(
            f"{path} is no table of scores: {error}",
            hint="It needs a header 'image,score' and a number in each row.",
        ) from error


def _finite(text: str) -> float:
    if not np.isfinite(value := float(text)):
        raise ValueError(f"{text!r} is no score")
    return value


def require_same_weights(text: TextTower, snapshot: Snapshot) -> None:
    """Raise ``EncoderMismatch`` if a text tower is not of the model whose image tower made the index."""
    encoder = snapshot.manifest.encoder
    if text.weights_sha256 != encoder.weights_sha256:
        raise EncoderMismatch(
            f"the text tower is of other weights than the index's encoder {encoder.name}",
            hint="Give the file the index was built with: --set encoder-weights=FILE.",
        )


def import_for(snapshot: Snapshot, head: LinearHead) -> Iterator[str]:
    """Check that an imported head fits the index; yields what should be said of it."""
    require_layers_stored(snapshot, head.layers)
    spec, (layer,) = snapshot.manifest.encoder, head.layers
    if spec.layers[layer] != len(head.weight):
        raise UsageError(
            f"these weights take {len(head.weight)} dimensions, layer {layer} of {spec.name} has "
            f"{spec.layers[layer]}",
            hint="They are for ViT-L-14:openai@crop.",
        )
    if not spec.name.startswith("ViT-L-14:openai"):
        yield f"these weights were trained on ViT-L-14:openai; with {spec.name} their scores mean nothing"


def commit_head(
    store: Store,
    name: str,
    head: Head,
    *,
    strata: Sequence[RowStratum] = BANK_ROWS,
    of: Snapshot | None = None,
    device: str = "auto",
) -> Manifest:
    """Store a trained head; what was calibrated by another of its name is calibrated anew along with it.

    ``strata`` : the classes of rows it has seen; none for imported weights. ``of`` : see ``write_head``.
    """
    check_name(name, members=head.members)
    with store.writer() as writer:
        record = write_head(writer, name, head, strata=tuple(strata), of=of)
        return writer.fit([record, *rates_anew(writer, writer.preview([record]), device=device)])


def write_head(
    writer: Writer,
    name: str,
    head: Head,
    *,
    strata: tuple[RowStratum, ...] = BANK_ROWS,
    of: Snapshot | None = None,
) -> FittedRecord:
    """The head as files of the index; it counts once it is committed. ``of`` : what it was trained on."""
    seen = of or writer.snapshot
    if isinstance(head, EnsembleHead):
        head.projection = read_projection(seen).id
    record = write(writer, HEAD, name, head, method=head.kind, rows=writer.fitted_on(seen, strata))
    return replace(record, n_rows=seen.n_rows(strata))
