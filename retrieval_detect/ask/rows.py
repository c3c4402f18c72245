"""Stored rows asked about as if they were images never seen: calibration rows, references under review."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.banks import Asked
from retrieval_detect.ask.methods import Methods
from retrieval_detect.scoring.conformal import Conformal, traits_of
from retrieval_detect.scoring.vote import nobody_left
from retrieval_detect.store.schema import norm_column
from retrieval_detect.store.training import COLUMNS, rows_of
from retrieval_detect.types import LABELS, ORIGINAL_VIEW, quiet
from retrieval_detect.vectors import Rows
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Split

    Float64 = NDArray[np.float64]

_AT_ONCE = 1024
"""Rows asked about together."""

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which live rows to ask about: of ``splits``, with row ids from ``since`` up to ``until``.

    ``at_most`` : so many, evenly spread. ``only`` : of these row ids alone.
    """

    splits: tuple[Split, ...] = ("calib",)
    since: int = 0
    until: int | None = None
    at_most: int | None = None
    only: frozenset[int] | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScoredRows(Rows):
    """Stored rows without their vectors, and what the banks say of them; columns float64 (n,).

    ``scores`` : positive = fake. ``typical`` : see ``Answers``. ``own`` : how close a fake lies to its own
    generator (``attribution.generator_densities``), -inf for a photograph.
    """

    scores: Float64
    typical: Float64
    own: Float64

    @property
    def conformal(self) -> Conformal:
        """The scores as a calibration keeps them."""
        real, fake = self.take(~self.fake), self.take(self.fake)
        traits = traits_of(real.formats.tolist(), real.sizes)
        return Conformal(
            scores_by(real.scores, real.names),
            scores_by(fake.scores, fake.names),
            np.sort(self.typical),
            {trait: scores_by(real.scores, np.array(of)) for trait, of in traits.items()},
        )


def scores_by(scores: Float64, names: NDArray[np.str_]) -> dict[str, Float64]:
    """Name → the scores of its rows, ascending; both (n,)."""
    return {name: np.sort(scores[names == name]) for name in sorted(set(names.tolist()))}


Said = dict[Question, ScoredRows]
"""What one generation said of rows, by the ``checked`` question that they were asked about with."""


def score_rows(
    rows: Snapshot,
    question: Question,
    *,
    chosen: Chosen = Chosen(),
    judge: Methods | None = None,
    known: ScoredRows | None = None,
    progress: Progress = quiet,
) -> ScoredRows:
    """Ask ``judge`` (default: the methods of ``rows`` itself) about rows, in an order of ``rows`` alone.

    A row's own group does not vote; views are not asked about. ``known`` : what the judge said of some of
    them when it was asked the same; it is not asked about those again.
    """
    methods = judge or Methods(rows)
    question = methods.checked(question)
    parts = []
    for block in rows_to_ask(rows, chosen, methods.layers(question)):
        parts.append(_scored(methods, question, block, known))
        progress(len(block))
    nothing = np.empty(0)
    empty = ScoredRows.of(fake=nothing.astype(bool), scores=nothing, typical=nothing, own=nothing)
    return empty.followed_by(*parts)


def _scored(methods: Methods, question: Question, block: Rows, known: ScoredRows | None) -> ScoredRows:
    """A block with what is said of it; asks about what is not ``known``."""
    said = np.empty((3, len(block)))
    fresh = np.arange(len(block))
    if known is not None:
        fresh = np.flatnonzero(~np.isin(block.row_ids, known.row_ids))
        there, at = np.intersect1d(block.row_ids, known.row_ids, return_indices=True)[1:]
        said[:, there] = known.scores[at], known.typical[at], known.own[at]
    if len(fresh):
        asked = block if len(fresh) == len(block) else block.take(fresh)
        answers = methods.ask(Asked.of(asked), question)
        if not answers.voted.all():
            raise nobody_left(answers.missing[0])
        codes = {
            name: i for i, name in enumerate(methods.banks(question.projection).references("fake").names)
        }
        named = zip(asked.names.tolist(), asked.fake.tolist(), strict=True)
        code = np.array([codes.get(name, -1) if fake else -1 for name, fake in named], np.int64)
        densities = methods.generator_densities(answers, question)[np.arange(len(code)), code]
        said[:, fresh] = answers.scores, answers.typical, np.where(code < 0, -np.inf, densities)
    columns = {f.name: getattr(block, f.name) for f in fields(block)} | {"vectors": {}, "norms": {}}
    return ScoredRows(**columns, scores=said[0], typical=said[1], own=said[2])


def rows_to_ask(snapshot: Snapshot, chosen: Chosen, layers: Sequence[str]) -> Iterator[Rows]:
    """The rows chosen, in an order of ``snapshot`` alone; views are left out.

    A block at a time, of one label, with vectors as the network gave them, up to the rounding to float16.
    """
    only = None if chosen.only is None else np.array(sorted(chosen.only), np.int64)
    shards = [s for label in LABELS for split in chosen.splits for s in snapshot.shards(label, split)]
    live = []
    for shard in shards:
        row_ids = np.asarray(shard.row_ids)
        views = shard.columns(["view"])["view"].to_pylist()
        original = np.array([view == ORIGINAL_VIEW for view in views], bool)
        inside = row_ids >= chosen.since
        if chosen.until is not None:
            inside &= row_ids < chosen.until
        if only is not None:
            inside &= np.isin(row_ids, only)
        live.append(np.flatnonzero(snapshot.live(shard) & inside & original))
    total = sum(map(len, live))
    step = 1 if chosen.at_most is None else max(1, -(-total // chosen.at_most))
    for shard, positions in zip(shards, live, strict=True):
        wanted = positions[::step]
        for start in range(0, len(wanted), _AT_ONCE):
            at = wanted[start : start + _AT_ONCE]
            table = shard.take(at, [*COLUMNS, *map(norm_column, layers)])
            norms = {layer: table[norm_column(layer)].to_numpy()[:, None] for layer in layers}
            vectors = {layer: shard.vectors(layer)[at].astype(np.float32) * norms[layer] for layer in layers}
            yield rows_of(table, vectors=vectors, norms={})
