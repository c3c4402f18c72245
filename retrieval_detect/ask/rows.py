"""Stored rows asked about as if they were images never seen: calibration rows, references under review."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.banks import Asked
from retrieval_detect.ask.methods import Methods
from retrieval_detect.scoring.conformal import TRAITS, size_class
from retrieval_detect.scoring.vote import nobody_left
from retrieval_detect.store.schema import norm_column
from retrieval_detect.types import LABELS, ORIGINAL_VIEW, quiet
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.ask.methods import Answers
    from retrieval_detect.store.shards import Shard
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Label, Split

    Float64 = NDArray[np.float64]


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


Said = dict[Question, CalibrationScores]
"""What one generation said of rows, by the ``checked`` question that they were asked about with."""


def score_rows(
    rows: Snapshot,
    question: Question,
    *,
    chosen: Chosen = Chosen(),
    judge: Methods | None = None,
    known: CalibrationScores | None = None,
    progress: Progress = quiet,
) -> CalibrationScores:
    """Ask ``judge`` (default: the methods of ``rows`` itself) about rows, in an order of ``rows`` alone.

    A row's own group does not vote; views are not asked about. ``known`` : what the judge said of some of
    them when it was asked the same; it is not asked about those again.
    """
    methods = judge or Methods(rows)
    question = methods.checked(question)
    parts = []
    for block in rows_to_ask(rows, chosen, methods.layers(question)):
        parts.append((block, _said(methods, question, block, known)))
        progress(len(block.names))
    scores, typical, own = np.concatenate([np.empty((3, 0)), *(said for _, said in parts)], axis=1)
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


def _said(methods: Methods, question: Question, block: AskedRows, known: CalibrationScores | None) -> Float64:
    """Scores, typicality and own densities of a block, float64 (3, n); asks about what is not ``known``."""
    said = np.empty((3, len(block.names)))
    fresh = np.arange(len(block.names))
    if known is not None:
        fresh = np.flatnonzero(~np.isin(block.row_ids, known.row_ids))
        there, at = np.intersect1d(block.row_ids, known.row_ids, return_indices=True)[1:]
        said[:, there] = known.scores[at], known.typical[at], known.own[at]
    if len(fresh):
        asked = block if len(fresh) == len(block.names) else block.take(fresh)
        answers = methods.ask(asked.asked, question)
        if not answers.voted.all():
            raise nobody_left(answers.missing[0])
        own = _own_densities(methods, question, asked, answers)
        said[:, fresh] = answers.scores, answers.typical, own
    return said


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

    def take(self, at: NDArray[np.int64]) -> AskedRows:
        """The images at some positions, int64 (m,)."""
        chosen = at.tolist()
        return AskedRows(
            self.row_ids[at],
            self.asked.take(at),
            [self.names[i] for i in chosen],
            self.groups[at],
            self.label,
            {trait: [values[i] for i in chosen] for trait, values in self.traits.items()},
        )


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
