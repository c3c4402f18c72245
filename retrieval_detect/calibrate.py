"""Fitting a calibration: ask the banks about every row set aside, and keep the scores.

Calibration rows are in no bank and fit nothing else, so that they stand for images never seen. They
are asked about in the very way of a query, near-duplicates left out.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.calibration import Calibration
from retrieval_detect.scoring.conformal import Conformal
from retrieval_detect.scoring.likelihood import LikelihoodMethod, cllr, fit_likelihood_ratio
from retrieval_detect.scoring.vote import DEFAULT_K
from retrieval_detect.search.ask import ask
from retrieval_detect.search.banks import Banks
from retrieval_detect.store.append import grouping_layer
from retrieval_detect.types import LABELS, Probe, Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.store.manifest import FittedRecord, Manifest
    from retrieval_detect.store.shards import Shard
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.store.writer import Writer
    from retrieval_detect.types import Bool, Float32, Label, Method, Split

    Float64 = NDArray[np.float64]

_FOLDS = 5
_COLUMNS = ["content_id", "phash", "group", "generator", "source"]

Progress = Callable[[int], None]


def _quiet(_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which live rows to ask about: of ``splits``, with row ids from ``since`` up to ``until``.

    ``at_most`` : so many, evenly spread.
    """

    splits: tuple[Split, ...] = ("calib",)
    since: int = 0
    until: int | None = None
    at_most: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationScores:
    """What the banks say of stored rows; all of length n.

    ``names`` : generators of fakes, sources of photographs; ``row_ids``, ``groups`` : int64;
    ``scores`` : float64, positive = fake; ``typical`` : float64; ``fake`` : bool.
    """

    names: list[str]
    row_ids: NDArray[np.int64]
    groups: NDArray[np.int64]
    scores: Float64
    typical: Float64
    fake: Bool


def score_rows(
    rows: Snapshot,
    question: Question,
    *,
    chosen: Chosen = Chosen(),
    judge: Snapshot | None = None,
    device: str = "auto",
    progress: Progress = _quiet,
) -> CalibrationScores:
    """Ask the banks of ``judge`` (default: of ``rows`` itself) about rows, in an order of ``rows`` alone.

    A row's own group does not vote.
    """
    judge = judge or rows
    banks = Banks(judge, layer=grouping_layer(judge.manifest.layers), device=device)
    asked = list(_rows(rows, chosen))
    answers = []
    for row in asked:
        groups = {row.group}
        answers.append(ask(banks, row.probe, row.vector, question=question, own_groups=groups))
        progress(1)
    return CalibrationScores(
        [row.name for row in asked],
        np.array([row.row_id for row in asked], np.int64),
        np.array([row.group for row in asked], np.int64),
        np.array([answer.result.score for answer in answers]),
        np.array([answer.typical for answer in answers]),
        np.array([row.label == "fake" for row in asked], bool),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    row_id: int
    probe: Probe
    vector: Float32
    name: str
    group: int
    label: Label


def _rows(snapshot: Snapshot, chosen: Chosen) -> Iterator[_Row]:
    shards = [s for label in LABELS for split in chosen.splits for s in snapshot.shards(label, split)]
    live = [np.flatnonzero(snapshot.live(s) & _within(np.asarray(s.row_ids), chosen)) for s in shards]
    total = sum(map(len, live))
    step = 1 if chosen.at_most is None else max(1, -(-total // chosen.at_most))
    for shard, positions in zip(shards, live, strict=True):
        yield from _rows_of(shard, positions[::step], grouping_layer(snapshot.manifest.layers))


def _within(row_ids: NDArray[np.int64], chosen: Chosen) -> Bool:
    inside: Bool = row_ids >= chosen.since
    return inside if chosen.until is None else inside & (row_ids < chosen.until)


def _rows_of(shard: Shard, positions: NDArray[np.int64], layer: str) -> Iterator[_Row]:
    label = shard.record.label
    column = "generator" if label == "fake" else "source"
    rows = shard.take(positions, ["row_id", *_COLUMNS]).to_pylist() if len(positions) else []
    for row, position in zip(rows, positions.tolist(), strict=True):
        probe = Probe(row["content_id"], row["phash"])
        vector = shard.vectors(layer)[position].astype(np.float32)
        yield _Row(row["row_id"], probe, vector, row[column], row["group"], label)


def fit_calibration(
    snapshot: Snapshot,
    *,
    method: Method = "density",
    k: int | None = None,
    likelihood: LikelihoodMethod = "logistic",
    device: str = "auto",
    progress: Progress = _quiet,
) -> Calibration:
    """Fit on the rows that a generation has set aside.

    Raises ``UsageError`` where there are none of one label: sources and generators with fewer than 25
    groups give all their images to the banks.
    """
    for label in LABELS:
        if not snapshot.manifest.live_rows(label, "calib"):
            raise UsageError(
                f"no {label} references are set aside for calibration",
                hint="A fifth of each source and generator with 25 images or more is: add references.",
            )
    k = k or DEFAULT_K[method]
    rows = score_rows(snapshot, Question(method, k), device=device, progress=progress)
    fake, real = rows.scores[rows.fake], rows.scores[~rows.fake]
    return Calibration(
        method=method,
        k=k,
        layer=grouping_layer(snapshot.manifest.layers),
        rows_digest=snapshot.rows_digest("calibration"),
        conformal=Conformal(_by_name(rows, ~rows.fake), _by_name(rows, rows.fake), np.sort(rows.typical)),
        likelihood=fit_likelihood_ratio(fake, real, method=likelihood),
        likelihood_method=likelihood,
        quality={
            "cllr": _cross_fitted_cllr(rows, likelihood),
            "photographs": float(len(real)),
            "fakes": float(len(fake)),
        },
    )


def _by_name(rows: CalibrationScores, chosen: Bool) -> dict[str, Float64]:
    scores: dict[str, list[float]] = defaultdict(list)
    for position in np.flatnonzero(chosen).tolist():
        scores[rows.names[position]].append(float(rows.scores[position]))
    return {name: np.sort(scores[name]) for name in sorted(scores)}


def _cross_fitted_cllr(rows: CalibrationScores, likelihood: LikelihoodMethod) -> float:
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


def write_calibration(writer: Writer, calibration: Calibration) -> FittedRecord:
    """The calibration as a file of the index, named for its vote; it counts once it is committed."""
    data = json.dumps(calibration.to_json(), sort_keys=True).encode()
    return writer.write_fitted(
        "calibration",
        calibration.method,
        method="conformal",
        files={"json": data},
        rows_digest=calibration.rows_digest,
    )


def commit_calibration(store: Store, calibration: Calibration) -> Manifest:
    """Make it the one in force for its vote; refuses if the references have changed since it was fitted."""
    with store.writer() as writer:
        if writer.snapshot.rows_digest("calibration") != calibration.rows_digest:
            raise UsageError(
                "the references changed while the calibration was fitted",
                hint="Run rd fit calibration again.",
            )
        return writer.fit(write_calibration(writer, calibration))
