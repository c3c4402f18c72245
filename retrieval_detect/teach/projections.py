"""Fitting projections on the bank rows of an index, and committing them to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.ask.calibrations import NAMES, can_name
from retrieval_detect.ask.fitted import PLAIN, PROJECTION, read_projection
from retrieval_detect.ask.methods import Methods
from retrieval_detect.errors import UsageError
from retrieval_detect.projections.inner import Trial, Vote
from retrieval_detect.projections.registry import fit_projection
from retrieval_detect.store.manifest import BANK_ROWS
from retrieval_detect.store.training import load_training_set
from retrieval_detect.teach.again import DEFAULT, default_projection
from retrieval_detect.teach.calibrate import enough, rates_anew
from retrieval_detect.teach.fitted import write
from retrieval_detect.types import LABELS, quiet

if TYPE_CHECKING:
    from retrieval_detect.heads.base import Progress as Say
    from retrieval_detect.search.projection import Affine
    from retrieval_detect.store.manifest import FittedRecord, Manifest, RowStratum
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.store.writer import Writer

TEMPERATURES = (0.05, 0.1, 0.2)
KNOWN = (0, 5, 20)
"""How many references of a new generator there may be when a temperature is chosen."""


def check_projection_name(name: str) -> None:
    """Raise ``UsageError`` for what cannot name a projection."""
    if name == PLAIN or not can_name(name):
        raise UsageError(
            f"{name!r} cannot name a fitted projection",
            hint=f"{NAMES} {PLAIN!r} stands for the stored vectors.",
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
    record = write(writer, PROJECTION, name, projection, method=projection.kind, rows=rows)
    return replace(record, until=of.manifest.next_row_id, n_rows=of.n_rows(strata))


def fit_default(
    store: Store, *, plain: bool = False, calibrate: bool = True, device: str = "auto"
) -> Manifest | None:
    """Fit and commit what a new index gets: the projection it searches through, and a calibration.

    Smaller indexes, those with a single source, and ``plain`` ones go on searching the stored vectors; where
    less is set aside than the usual rate takes, and without ``calibrate``, there is no calibration.
    """
    with store.writer() as writer:
        records, name = [], PLAIN
        if not plain:
            with suppress(UsageError):
                projection = default_projection(writer.snapshot)
                records, name = [write_projection(writer, DEFAULT, projection, of=writer.snapshot)], DEFAULT
        if not records and not (calibrate and enough(writer.snapshot)):
            return None
        return _commit_default(writer, name, records, calibrate=calibrate, usual=True, device=device)


def use_projection(store: Store, name: str, *, device: str = "auto") -> Manifest:
    """Search the banks through a projection that is stored already; ``identity`` always is."""
    with store.writer() as writer:
        read_projection(writer.snapshot, name)
        return _commit_default(writer, name, [], device=device)


def _commit_default(
    writer: Writer,
    name: str,
    records: Sequence[FittedRecord],
    *,
    calibrate: bool = True,
    usual: bool = False,
    device: str,
) -> Manifest:
    to_be = writer.preview(records, projection=name)
    banks = Methods(to_be, device=device).banks()
    for label in LABELS:
        if to_be.manifest.live_rows(label, "bank"):
            banks.bank(label)
    rates = rates_anew(writer, to_be, usual=usual, device=device) if calibrate else []
    return writer.fit([*records, *rates], projection=name)
