"""Fitting a calibration: ask the banks about every row set aside, and keep the scores.

Calibration rows are in no bank and fit nothing else, so that they stand for images never seen. They
are asked about in the very way of a query, near-duplicates left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.calibrations import calibration_name
from retrieval_detect.ask.fitted import CALIBRATION, COVERAGE, PLAIN, REGIONS, Kind, Rates
from retrieval_detect.ask.methods import Methods, rates
from retrieval_detect.ask.regions import CropMethods, holds_crops
from retrieval_detect.ask.rows import Progress, Said, ScoredRows, score_rows, scores_by
from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.calibration import LOWEST, Calibration
from retrieval_detect.scoring.conformal import ALPHA, photographs_needed
from retrieval_detect.scoring.likelihood import LikelihoodMethod, cllr, fit_likelihood_ratio
from retrieval_detect.scoring.new_sources import MOST_ROWS
from retrieval_detect.teach.coverage import coverage_to_fit
from retrieval_detect.teach.fitted import commit_rates, write_rates
from retrieval_detect.teach.left_out import left_out
from retrieval_detect.teach.regions import fit_regions
from retrieval_detect.types import LABELS, SPLITS, quiet
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.store.manifest import FittedRecord, Manifest
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.store.writer import Writer

    Float64 = NDArray[np.float64]

_FOLDS = 5


def fit_calibration(
    snapshot: Snapshot,
    question: Question | None = None,
    *,
    likelihood: LikelihoodMethod = "logistic",
    device: str = "auto",
    progress: Progress = quiet,
    said: Said | None = None,
) -> Calibration:
    """Fit on the rows that a generation has set aside.

    ``question`` : the method, its k and the projection; the defaults where there is none. ``said`` : what
    the generation said of rows already, which are not asked about again; what it says now is kept there.

    Raises ``UsageError`` where there are none of one label: sources and generators with fewer than 25
    groups give all their images to the banks.
    """
    for label in LABELS:
        if not snapshot.manifest.live_rows(label, "calib"):
            raise UsageError(
                f"no {label} references are set aside for calibration",
                hint="A fifth of each source and generator with 25 images or more is: add references.",
            )
    methods = Methods(snapshot, device=device)
    question = methods.checked(question or Question())
    said = {} if said is None else said
    rows = score_rows(snapshot, question, judge=methods, known=said.get(question), progress=progress)
    said[question] = rows
    fake, real, names = rows.scores[rows.fake], rows.scores[~rows.fake], rows.names
    conformal = rows.conformal
    return Calibration(
        method=question.method,
        k=question.k or 0,
        projection=question.projection or PLAIN,
        scorer=methods.scorer(question),
        rows_digest=snapshot.rows_digest(),
        conformal=conformal,
        generators=scores_by(np.maximum(rows.own[rows.fake], LOWEST), names[rows.fake]),
        likelihood=fit_likelihood_ratio(fake, real, method=likelihood),
        likelihood_method=likelihood,
        quality={
            "cllr": _cross_fitted_cllr(rows, likelihood),
            "photographs": float(len(real)),
            "fakes": float(len(fake)),
            "groups": float(len(np.unique(rows.groups[~rows.fake]))),
        },
        new=left_out(snapshot, question, conformal, likelihood=likelihood, device=device, progress=progress),
    )


def _cross_fitted_cllr(rows: ScoredRows, likelihood: LikelihoodMethod) -> float:
    """Cllr of ratios fitted on the other folds; a group is never cut. Falls back to the fit's own data."""
    fold = np.unique(rows.groups, return_inverse=True)[1] % _FOLDS
    log10_lr = np.full(len(rows.scores), np.nan)
    for number in range(_FOLDS):
        rest, here = fold != number, fold == number
        if not (here.any() and (rest & rows.fake).any() and (rest & ~rows.fake).any()):
            continue
        fit = fit_likelihood_ratio(
            rows.scores[rest & rows.fake], rows.scores[rest & ~rows.fake], method=likelihood
        )
        log10_lr[here] = fit(rows.scores[here])
    fitted = np.isfinite(log10_lr)
    if not ((fitted & rows.fake).any() and (fitted & ~rows.fake).any()):
        fit = fit_likelihood_ratio(rows.scores[rows.fake], rows.scores[~rows.fake], method=likelihood)
        log10_lr, fitted = fit(rows.scores), np.ones(len(rows.scores), bool)
    return cllr(log10_lr[fitted & rows.fake], log10_lr[fitted & ~rows.fake])


# ---------------------------------------------------------------- in the index


def commit_calibration(store: Store, calibration: Calibration) -> Manifest:
    """Make it the one in force for its method, with the index's coverage, where that is not of these rows.

    Refuses if the references have changed since it was fitted.
    """
    return commit_rates(store, CALIBRATION, calibration, along=coverage_to_fit)


def measurable(snapshot: Snapshot) -> bool:
    """Whether both banks can vote and rows of both labels are set aside."""
    return all(snapshot.n_rows([(label, split)]) for label in LABELS for split in SPLITS)


def enough(snapshot: Snapshot) -> bool:
    """Whether both banks can vote and so many of both labels are set aside as the usual rate takes."""
    aside = (snapshot.n_rows([(label, "calib")]) for label in LABELS)
    return measurable(snapshot) and min(aside) >= photographs_needed(ALPHA)


def rates_anew(
    writer: Writer, to_be: Snapshot, *, usual: bool = False, device: str = "auto"
) -> list[FittedRecord]:
    """Calibrations for the generation to be, and what is known of crops; see ``rates_to_fit``."""
    return [fit() for fit in rates_to_fit(writer, to_be, usual=usual, device=device)]


def n_asked(snapshot: Snapshot) -> int:
    """How many rows ``fit_calibration`` asks about, those of names left out counted once more."""
    rows = [s for s in snapshot.manifest.strata if s.bank + s.calib]
    aside = sum(s.calib for s in rows)
    return aside + sum(min(MOST_ROWS, s.bank + s.calib) for s in rows)


def rates_to_fit(
    writer: Writer, to_be: Snapshot, *, usual: bool = False, device: str = "auto", said: Said | None = None
) -> Iterator[Callable[[], FittedRecord]]:
    """What fits those that are of other scores or other rows.

    ``usual`` : that of the default method too, where there is none and enough is set aside. ``said`` : see
    ``fit_calibration``.

    How near the real bank usually is (``teach.coverage``) goes along with the calibration of the default
    method. What is calibrated through the default projection in force will be through that to come. Through
    any other, what was fitted on other references stays as it is, and stale: projections that were tried
    once would make every addition slower for ever. Crops go by the same rule.
    """
    if measurable(to_be):
        fit = partial(fit_calibration, device=device, said=said)
        for old in _outlived(writer, to_be, CALIBRATION, Methods(to_be, device=device)):
            again = partial(fit, to_be, old.question, likelihood=old.likelihood_method)
            yield partial(_written, writer, CALIBRATION, again)
        if usual and enough(to_be) and not _is_fitted(writer.snapshot, to_be.manifest.projection):
            yield partial(_written, writer, CALIBRATION, partial(fit, to_be))
        if (usual and enough(to_be)) or any(record.kind == COVERAGE.name for record in to_be.manifest.fitted):
            yield from coverage_to_fit(writer, to_be)
    if all(holds_crops(to_be, *stratum) for stratum in REGIONS.strata):
        for crops in _outlived(writer, to_be, REGIONS, CropMethods(to_be, device=device)):
            judge = partial(fit_regions, to_be, crops.question, device=device)
            yield partial(_written, writer, REGIONS, judge)


def _is_fitted(before: Snapshot, projection: str) -> bool:
    """Whether the usual calibration is there, or will be fitted in the place of one through another map."""
    names = (calibration_name(Question().method, name) for name in (projection, before.manifest.projection))
    return any(before.fitted("calibration", name) for name in names)


def _written(writer: Writer, kind: Kind[Rates], fit: Callable[[], Rates]) -> FittedRecord:
    return write_rates(writer, kind, fit())


def _outlived(writer: Writer, to_be: Snapshot, kind: Kind[Rates], methods: Methods) -> Iterator[Rates]:
    rows_digest = to_be.rows_digest(kind.strata)
    before, after = writer.snapshot.manifest.projection, to_be.manifest.projection
    known = {(found.method, found.projection): found for found in rates(to_be, kind)}
    moved = {
        (found.method, after): replace(found, projection=after)
        for found in known.values()
        if found.projection == before
    }
    for asked, old in (moved | known).items():
        current = old.rows_digest == rows_digest
        if current and asked in known and old.scorer == methods.scorer(old.question):
            continue
        if current or old.projection == after:
            yield old
