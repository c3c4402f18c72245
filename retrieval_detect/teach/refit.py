"""What was fitted on references follows them when some are added or removed, as far as that takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from retrieval_detect.ask.calibrations import in_force
from retrieval_detect.ask.fitted import load_head
from retrieval_detect.errors import RdError, UsageError
from retrieval_detect.projections.registry import KINDS
from retrieval_detect.store.manifest import BANK_ROWS
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.training import near_calibration
from retrieval_detect.store.writer import with_records
from retrieval_detect.teach.again import projection_again
from retrieval_detect.teach.calibrate import measurable, rates_to_fit
from retrieval_detect.teach.heads import training_set, write_head
from retrieval_detect.teach.projections import write_projection

if TYPE_CHECKING:
    from retrieval_detect.ask.rows import Said
    from retrieval_detect.store.manifest import FittedRecord
    from retrieval_detect.store.writer import Writer

    Fit: TypeAlias = Callable[[], FittedRecord]

REFIT_AT_MOST = 100_000
"""References with which a projection is fitted anew at every change: it takes seconds for these."""
_ANY = (RdError, OSError, ValueError, ArithmeticError, MemoryError, RuntimeError)
"""How a fit can fail: by what is left to it, by a file, by numbers, by memory, inside a library."""


def refitted(
    writer: Writer,
    new: Snapshot,
    *,
    device: str = "auto",
    whatever_fails: bool = False,
    calibrate: bool = True,
    said: Said | None = None,
) -> list[FittedRecord]:
    """What goes with the generation to be: all that was fitted on references that change, fitted on it.

    That is the projection in force, heads that are cheap, every calibration through that projection, and
    what was kept of crops through it: see ``follows``; and the calibration of the default method, where there
    is none and enough is set aside. Without ``calibrate`` no calibration is fitted, and what there is becomes
    stale. Additions and removals come through here alike, so that an index holds what it would
    had it been built of what is left, and removing what was added restores it to the bit: searched through
    a map that has not seen a generator, its images take photographs along, and older generators lose
    (``bench.accuracy.incremental``). A temperature stays, so that scores keep their scale. Where too little
    is left to fit something on, it keeps what it had and becomes stale; with ``whatever_fails``, for
    changes that nothing may hold up, also where fitting fails in any other way. ``said`` takes what the
    generation to be says of its calibration rows.
    """
    harmless = _ANY if whatever_fails else (UsageError,)
    fitted: list[FittedRecord] = []
    parts: list[Callable[[Writer, Snapshot], Iterator[Fit]]] = [_maps_and_heads]
    parts += [partial(rates_to_fit, usual=True, device=device, said=said)] * calibrate
    for fits in parts:
        with suppress(*harmless):
            for fit in fits(writer, with_fitted(new, fitted)):
                with suppress(*harmless):
                    fitted.append(fit())
    return fitted


def with_fitted(new: Snapshot, records: list[FittedRecord]) -> Snapshot:
    """The generation to be, with what was fitted on it."""
    fitted = with_records(new.manifest.fitted, records)
    return Snapshot(new.folder, replace(new.manifest, fitted=fitted))


def follows(old: Snapshot, new: Snapshot, record: FittedRecord) -> bool:
    """Whether something has seen other references than there are, and is fitted on them in passing.

    Rows set aside teach nothing, but keep their near-duplicates in the banks from teaching: what is the
    same in both generations may be fitted on other rows of them.
    """
    if record.rows_digest == new.rows_digest(record.strata):
        taught = record.kind in ("projection", "head") and old.rows_digest() != new.rows_digest()
        if not taught or near_calibration(old) == near_calibration(new):
            return False
    match record.kind:
        case "projection":
            small = new.n_rows(BANK_ROWS) <= REFIT_AT_MOST
            return record.name == new.manifest.projection and KINDS[record.method].cheap and small
        case "head":
            return load_head(new, record.name).cheap
    return in_force(new, record) and measurable(new)


def _maps_and_heads(writer: Writer, new: Snapshot) -> Iterator[Fit]:
    for record in new.manifest.fitted:
        if record.kind == "projection" and follows(writer.snapshot, new, record):
            yield partial(_projection_again, writer, new, record.name)
        if record.kind == "head" and follows(writer.snapshot, new, record):
            yield partial(_head_again, writer, new, record.name)


def _projection_again(writer: Writer, new: Snapshot, name: str) -> FittedRecord:
    return write_projection(writer, name, projection_again(new, name), of=new)


def _head_again(writer: Writer, new: Snapshot, name: str) -> FittedRecord:
    head = load_head(new, name)
    return write_head(writer, name, head.fit(training_set(new, head)), of=new)
