"""Fitting a calibration: ask the banks about every row set aside, and keep the scores.

Calibration rows are in no bank and fit nothing else, so that they stand for images never seen. They
are asked about in the very way of a query, near-duplicates left out.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.banks import Asked
from retrieval_detect.ask.fitted import PLAIN
from retrieval_detect.ask.methods import Methods, calibration_name
from retrieval_detect.errors import UsageError
from retrieval_detect.progress import quiet
from retrieval_detect.scoring.calibration import LOWEST, Calibration
from retrieval_detect.scoring.conformal import TRAITS, Conformal, size_class
from retrieval_detect.scoring.likelihood import LikelihoodMethod, cllr, fit_likelihood_ratio
from retrieval_detect.scoring.vote import nobody_left
from retrieval_detect.store.manifest import ALL_ROWS
from retrieval_detect.store.schema import norm_column
from retrieval_detect.types import LABELS, ORIGINAL_VIEW
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.ask.methods import Answers
    from retrieval_detect.store.manifest import FittedRecord, Manifest
    from retrieval_detect.store.shards import Shard
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.store.writer import Writer
    from retrieval_detect.types import Bool, Label, Split

    Float64 = NDArray[np.float64]

_FOLDS = 5
_COLUMNS = ["content_id", "phash", "group", "width", "height", "format"]
_AT_ONCE = 1024
"""Rows asked about together."""

Progress = Callable[[int], None]


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
    ``scores`` : float64, positive = fake; ``typical`` : float64; ``fake`` : bool. ``traits`` : each of
    ``conformal.TRAITS`` → its value for every row. ``own`` : float64, how close a fake lies to its own
    generator (``attribution.generator_densities``), -inf for a photograph.
    """

    names: list[str]
    row_ids: NDArray[np.int64]
    groups: NDArray[np.int64]
    scores: Float64
    typical: Float64
    fake: Bool
    traits: Mapping[str, list[str]]
    own: Float64


def score_rows(
    rows: Snapshot,
    question: Question,
    *,
    chosen: Chosen = Chosen(),
    judge: Snapshot | None = None,
    device: str = "auto",
    progress: Progress = quiet,
) -> CalibrationScores:
    """Ask ``judge`` (default: ``rows`` itself) about rows, in an order of ``rows`` alone.

    A row's own group does not vote; views are not asked about.
    """
    methods = Methods(judge or rows, device=device)
    question = methods.checked(question)
    parts = []
    for block in rows_to_ask(rows, chosen, methods.layers(question)):
        answers = methods.ask(block.asked, question)
        if not answers.voted.all():
            raise nobody_left(answers.missing[0])
        own = _own_densities(methods, question, block, answers)
        parts.append((block, answers.scores, answers.typical, own))
        progress(len(block.names))
    scores, typical, own = (
        np.concatenate([np.empty(0), *(part[column] for part in parts)]) for column in (1, 2, 3)
    )
    return CalibrationScores(
        [name for block, *_ in parts for name in block.names],
        np.concatenate([np.empty(0, np.int64), *(block.row_ids for block, *_ in parts)]),
        np.concatenate([np.empty(0, np.int64), *(block.groups for block, *_ in parts)]),
        scores,
        typical,
        np.concatenate([np.empty(0, bool), *(block.fake for block, *_ in parts)]),
        {trait: [value for block, *_ in parts for value in block.traits[trait]] for trait in TRAITS},
        own,
    )


def _own_densities(methods: Methods, question: Question, block: AskedRows, answers: Answers) -> Float64:
    """How close each fake lies to its own generator, float64 (n,); see ``CalibrationScores.own``."""
    codes = {name: i for i, name in enumerate(methods.banks(question.projection).references("fake").names)}
    known = [codes.get(name, -1) if fake else -1 for name, fake in zip(block.names, block.fake, strict=True)]
    code = np.array(known, np.int64)
    densities = methods.generator_densities(answers, question)[np.arange(len(code)), code]
    return np.where(code < 0, -np.inf, densities)


@dataclass(frozen=True, slots=True, eq=False)
class AskedRows:
    """Stored images of one shard that are asked about; the group of each is its own.

    ``row_ids``, ``groups`` : int64 (n,). ``names`` : see ``CalibrationScores``. ``traits`` : each of
    ``conformal.TRAITS`` → its value for every row.
    """

    row_ids: NDArray[np.int64]
    asked: Asked
    names: list[str]
    groups: NDArray[np.int64]
    label: Label
    traits: Mapping[str, list[str]]

    @property
    def fake(self) -> Bool:
        """Bool (n,), all alike."""
        return np.full(len(self.names), self.label == "fake")


def rows_to_ask(snapshot: Snapshot, chosen: Chosen, layers: Sequence[str]) -> Iterator[AskedRows]:
    """The rows chosen, a block at a time, in an order of ``snapshot`` alone; views are left out."""
    shards = [s for label in LABELS for split in chosen.splits for s in snapshot.shards(label, split)]
    live = [np.flatnonzero(snapshot.live(s) & _within(s, chosen) & _original(s)) for s in shards]
    total = sum(map(len, live))
    step = 1 if chosen.at_most is None else max(1, -(-total // chosen.at_most))
    for shard, positions in zip(shards, live, strict=True):
        wanted = positions[::step]
        for start in range(0, len(wanted), _AT_ONCE):
            yield _block(shard, wanted[start : start + _AT_ONCE], layers)


def _original(shard: Shard) -> Bool:
    views = shard.columns(["view"])["view"].to_pylist()
    return np.array([view == ORIGINAL_VIEW for view in views], bool)


def _within(shard: Shard, chosen: Chosen) -> Bool:
    row_ids = np.asarray(shard.row_ids)
    inside: Bool = row_ids >= chosen.since
    return inside if chosen.until is None else inside & (row_ids < chosen.until)


def _block(shard: Shard, positions: NDArray[np.int64], layers: Sequence[str]) -> AskedRows:
    label = shard.record.label
    name = "generator" if label == "fake" else "source"
    rows = shard.take(positions, [*_COLUMNS, name, *(norm_column(layer) for layer in layers)])
    columns = {column: rows[column].to_pylist() for column in [*_COLUMNS, name]}
    vectors = {
        layer: shard.vectors(layer)[positions].astype(np.float32)
        * rows[norm_column(layer)].to_numpy()[:, None]
        for layer in layers
    }
    asked = Asked(
        columns["content_id"],
        np.array(columns["phash"], np.uint64),
        vectors,
        {i: {group} for i, group in enumerate(columns["group"])},
    )
    sizes = map(size_class, columns["width"], columns["height"])
    return AskedRows(
        np.asarray(shard.row_ids)[positions],
        asked,
        columns[name],
        np.array(columns["group"], np.int64),
        label,
        {"format": columns["format"], "size": list(sizes)},
    )


def fit_calibration(
    snapshot: Snapshot,
    question: Question | None = None,
    *,
    likelihood: LikelihoodMethod = "logistic",
    device: str = "auto",
    progress: Progress = quiet,
) -> Calibration:
    """Fit on the rows that a generation has set aside.

    ``question`` : the method, its k and the projection; the defaults where there is none.

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
    rows = score_rows(snapshot, question, device=device, progress=progress)
    fake, real = rows.scores[rows.fake], rows.scores[~rows.fake]
    return Calibration(
        method=question.method,
        k=question.k or 0,
        projection=question.projection or PLAIN,
        scorer=methods.scorer(question),
        rows_digest=snapshot.rows_digest(),
        conformal=Conformal(
            _by_name(rows, ~rows.fake, rows.names),
            _by_name(rows, rows.fake, rows.names),
            np.sort(rows.typical),
            {trait: _by_name(rows, ~rows.fake, values) for trait, values in rows.traits.items()},
        ),
        generators=_by_name(replace(rows, scores=np.maximum(rows.own, LOWEST)), rows.fake, rows.names),
        likelihood=fit_likelihood_ratio(fake, real, method=likelihood),
        likelihood_method=likelihood,
        quality={
            "cllr": _cross_fitted_cllr(rows, likelihood),
            "photographs": float(len(real)),
            "fakes": float(len(fake)),
        },
    )


def _by_name(rows: CalibrationScores, chosen: Bool, names: Sequence[str]) -> dict[str, Float64]:
    scores: dict[str, list[float]] = defaultdict(list)
    for position in np.flatnonzero(chosen).tolist():
        scores[names[position]].append(float(rows.scores[position]))
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


# ---------------------------------------------------------------- in the index


def write_calibration(writer: Writer, calibration: Calibration) -> FittedRecord:
    """The calibration as a file of the index; it counts once it is committed."""
    data = json.dumps(calibration.to_json(), sort_keys=True).encode()
    return writer.write_fitted(
        "calibration",
        calibration_name(calibration.method, calibration.projection),
        method="conformal",
        files={"json": data},
        rows=(calibration.rows_digest, ALL_ROWS),
    )


def commit_calibration(store: Store, calibration: Calibration) -> Manifest:
    """Make it the one in force for its method; refuses if the references have changed since it was fitted."""
    with store.writer() as writer:
        if writer.snapshot.rows_digest() != calibration.rows_digest:
            raise UsageError(
                "the references changed while the calibration was fitted",
                hint="Run rd fit calibration again.",
            )
        return writer.fit([write_calibration(writer, calibration)])
