"""Fitting projections and heads on the bank rows of an index, and committing them to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.ask.fitted import PLAIN, read_projection
from retrieval_detect.ask.methods import Methods, calibration_name, calibrations, load_head
from retrieval_detect.errors import EncoderMismatch, UsageError
from retrieval_detect.heads.ensemble import EnsembleHead
from retrieval_detect.progress import quiet
from retrieval_detect.projections.inner import Trial, Vote
from retrieval_detect.projections.registry import fit_projection
from retrieval_detect.store.append import grouping_layer
from retrieval_detect.store.manifest import BANK_ROWS, FITTED_NAME
from retrieval_detect.store.training import TrainingSet, load_training_set, require_layers_stored
from retrieval_detect.teach.calibrate import fit_calibration, write_calibration
from retrieval_detect.texts import read_csv
from retrieval_detect.types import LABELS, METHODS, ORIGINAL_VIEW, SPLITS

if TYPE_CHECKING:
    from retrieval_detect.encoders.text import TextTower
    from retrieval_detect.heads.base import Head
    from retrieval_detect.heads.base import Progress as Say
    from retrieval_detect.heads.linear import LinearHead
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.search.projection import Affine
    from retrieval_detect.store.manifest import FittedRecord, Manifest, RowStratum
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.store.writer import Writer
    from retrieval_detect.types import Float32, Split

TEMPERATURES = (0.05, 0.1, 0.2)
KNOWN = (0, 5, 20)
"""How many references of a new generator there may be when a temperature is chosen."""
DEFAULT, DIRECTIONS, DEFAULT_T, FEWEST = "default", 32, 0.1, 100
"""The projection a new index gets: its name, directions of content removed and temperature, both chosen
by ``python -m bench.methods``, references of each label that it wants in the banks."""
LONGEST_NAME = 30
_NAMES = f"Use lower-case letters, digits, '-' (never two) and '_', at most {LONGEST_NAME} characters."


# ---------------------------------------------------------------- projections


def _can_name(name: str) -> bool:
    """Whether a calibration can be named by it and another such name together."""
    return len(name) <= LONGEST_NAME and "--" not in name and bool(FITTED_NAME.fullmatch(name))


def check_projection_name(name: str) -> None:
    """Raise ``UsageError`` for what cannot name a projection."""
    if name == PLAIN or not _can_name(name):
        raise UsageError(
            f"{name!r} cannot name a fitted projection",
            hint=f"{_NAMES} {PLAIN!r} stands for the stored vectors.",
        )


def fitted_projection(
    snapshot: Snapshot,
    kind: str,
    layers: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    progress: Say = quiet,
) -> Affine:
    """Fit a projection on bank rows, and the temperature of the density vote through it.

    T is that of ``TEMPERATURES`` which tells generators and sources apart best that are held out, over
    ``KNOWN`` references of the held-out generator in the bank; its ``facts`` keep those AUCs.
    """
    progress(f"fitting {kind}")
    rows = load_training_set(snapshot, layers)
    projection = fit_projection(kind, rows, layers=layers, **options or {})
    trial = Trial.of(rows)
    if not trial.possible:
        return projection
    progress("choosing the temperature on generators and sources held out")
    # Not of ``layers``: a kind may have left out some of them.
    side_by_side = np.concatenate([trial.rows.vectors[layer] for layer in projection.layers], axis=1)
    z = projection.apply(side_by_side)
    found = {t: {n: trial.auc(z, vote=Vote(temperature=t), known=n) for n in KNOWN} for t in TEMPERATURES}
    best = max(found, key=lambda t: sum(found[t].values()))
    chosen = {"temperature": best, "held_out_auc": {str(n): round(v, 4) for n, v in found[best].items()}}
    return replace(projection, facts=dict(projection.facts) | chosen)


def commit_projection(
    store: Store, name: str, projection: Affine, *, of: Snapshot | None = None, device: str = "auto"
) -> Manifest:
    """Store a projection and search the banks through it from now on.

    ``of`` : what it was fitted on. Every calibrated method is calibrated anew through it, in the same
    generation.
    """
    check_projection_name(name)
    with store.writer() as writer:
        record = write_projection(writer, name, projection, of=of or writer.snapshot)
        return _commit_default(writer, name, [record], device=device)


def write_projection(writer: Writer, name: str, projection: Affine, *, of: Snapshot) -> FittedRecord:
    """The projection as a file of the index; it counts once committed. ``of`` : what it was fitted on."""
    strata: tuple[RowStratum, ...] = tuple(
        s for s in BANK_ROWS if s[0] in projection.facts.get("labels", LABELS)
    )
    rows = writer.fitted_on(of, strata)
    files = {"safetensors": projection.to_bytes()}
    record = writer.write_fitted("projection", name, method=projection.kind, files=files, rows=rows)
    return replace(record, until=of.manifest.next_row_id, n_rows=of.n_rows(strata))


def fit_default(store: Store, *, device: str = "auto") -> Manifest | None:
    """Fit and commit the projection that a new index searches through, if there is enough to fit it on.

    Smaller indexes, and those with a single source, go on searching the stored vectors.
    """
    snapshot = store.snapshot()
    try:
        projection = default_projection(snapshot)
    except UsageError:
        return None
    return commit_projection(store, DEFAULT, projection, of=snapshot, device=device)


def default_projection(snapshot: Snapshot) -> Affine:
    """The map through which a new generator is learnt and those before are kept, fitted on the banks.

    What is learnt: ``bench.methods``; what is kept: ``bench.accuracy.incremental``. Raises ``UsageError``
    where there is too little to fit it on.
    """
    counts = [snapshot.manifest.live_rows(label, "bank") for label in LABELS]
    if min(counts) < FEWEST or len(snapshot.manifest.names("real")) < 2:
        raise UsageError(f"the default projection takes {FEWEST} references of each label, and two sources")
    layer = grouping_layer(snapshot.manifest.layers)
    directions = max(1, min(DIRECTIONS, snapshot.manifest.encoder.layers[layer] // 16))
    rows = load_training_set(snapshot, (layer,))
    projection = fit_projection("nullspace", rows, layers=(layer,), content="within", directions=directions)
    return replace(projection, facts=dict(projection.facts) | {"temperature": DEFAULT_T})


def use_projection(store: Store, name: str, *, device: str = "auto") -> Manifest:
    """Search the banks through a projection that is stored already; ``identity`` always is."""
    with store.writer() as writer:
        read_projection(writer.snapshot, name)
        return _commit_default(writer, name, [], device=device)


def _commit_default(writer: Writer, name: str, records: Sequence[FittedRecord], *, device: str) -> Manifest:
    to_be = writer.preview(records, projection=name)
    banks = Methods(to_be, device=device).banks()
    for label in LABELS:
        if to_be.manifest.live_rows(label, "bank"):
            banks.bank(label)
    return writer.fit([*records, *calibrated_anew(writer, to_be, device=device)], projection=name)


# ---------------------------------------------------------------- calibrations


def measurable(snapshot: Snapshot) -> bool:
    """Whether both banks can vote and rows of both labels are set aside."""
    return all(snapshot.n_rows([(label, split)]) for label in LABELS for split in SPLITS)


def calibrated_anew(writer: Writer, to_be: Snapshot, *, device: str = "auto") -> list[FittedRecord]:
    """Calibrations for the generation to be, where those it has are of other scores or other rows."""
    return [fit() for fit in calibrations_to_fit(writer, to_be, device=device)]


def calibrations_to_fit(
    writer: Writer, to_be: Snapshot, *, device: str = "auto"
) -> Iterator[Callable[[], FittedRecord]]:
    """What fits each of them.

    What is calibrated through the default projection in force will be through that to come.
    """
    if not measurable(to_be):
        return
    methods, rows_digest = Methods(to_be, device=device), to_be.rows_digest()
    before, after = writer.snapshot.manifest.projection, to_be.manifest.projection
    known = {(c.method, c.projection): c for c in calibrations(to_be)}
    moved = {
        (c.method, after): replace(c, projection=after) for c in known.values() if c.projection == before
    }
    for old in (moved | known).values():
        if (old.scorer, old.rows_digest) != (methods.scorer(old.question), rows_digest):
            yield partial(_calibrated_again, writer, to_be, old, device)


def _calibrated_again(writer: Writer, to_be: Snapshot, old: Calibration, device: str) -> FittedRecord:
    fitted = fit_calibration(to_be, old.question, likelihood=old.likelihood_method, device=device)
    return write_calibration(writer, fitted)


# ---------------------------------------------------------------- heads


def check_name(name: str, *, members: Sequence[str] = ()) -> None:
    """Raise ``UsageError`` for what cannot name a head beside the votes, or one made of ``members``."""
    if name in METHODS or not _can_name(name):
        raise UsageError(
            f"{name!r} cannot name a head", hint=f"{_NAMES} These are votes: {', '.join(METHODS)}."
        )
    if name in members:
        raise UsageError(f"{name!r} cannot be a member of itself", hint="Choose another --name.")


def training_set(snapshot: Snapshot, head: Head, *, split: Split = "bank") -> TrainingSet:
    """The rows a head is trained on, views included; of calibration rows, only to see how well it does."""
    layers = head.layers or snapshot.manifest.layers
    return load_training_set(snapshot, layers, split=split, views=split == "bank")


def scored_rows(snapshot: Snapshot, head: Head, table: str | Path) -> tuple[TrainingSet, Float32]:
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
            hint="Give the file the index was built with: --encoder-weights FILE.",
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
        return writer.fit([record, *calibrated_anew(writer, writer.preview([record]), device=device)])


def remove_head(store: Store, name: str) -> Manifest:
    """Take a head and its calibrations out of an index; refuses what an ensemble is made of."""
    with store.writer() as writer:
        require_removable(writer.snapshot, name)
        fitted = writer.snapshot.manifest.fitted
        projections = (PLAIN, *(f.name for f in fitted if f.kind == "projection"))
        return writer.forget("head", name, along={calibration_name(name, p) for p in projections})


def require_removable(snapshot: Snapshot, name: str) -> None:
    """Raise ``UsageError`` for a head that is not there, or that an ensemble is made of."""
    heads = [f for f in snapshot.manifest.fitted if f.kind == "head"]
    if name not in [head.name for head in heads]:
        raise UsageError(f"there is no head {name!r}", hint="See: rd head list")
    for head in heads:
        if head.method == "ensemble" and name in load_head(snapshot, head.name).members:
            raise UsageError(
                f"ensemble {head.name!r} is made of {name!r}", hint=f"First: rd head remove {head.name}"
            )


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
    files = head.to_files(fingerprint=writer.snapshot.manifest.encoder.fingerprint)
    rows = writer.fitted_on(seen, strata)
    return writer.write_fitted("head", name, method=head.kind, files=files, rows=rows)
