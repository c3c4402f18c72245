"""Every source, and every generator, in turn out of banks, projection and head; its images are asked about.

What that says of a photograph from elsewhere: ``scoring.new_sources``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrieval_detect.ask.banks import Asked
from retrieval_detect.ask.fitted import PLAIN, load_head, read_fitted
from retrieval_detect.ask.methods import Methods
from retrieval_detect.ask.rows import Chosen, Progress, rows_to_ask
from retrieval_detect.errors import EmptyBank, UsageError
from retrieval_detect.projections.registry import KINDS
from retrieval_detect.scoring.conformal import ALPHA, BETA, at_least
from retrieval_detect.scoring.new_sources import MOST_FOLDS, MOST_ROWS, LeftOut, NewSources
from retrieval_detect.scoring.vote import nobody_left
from retrieval_detect.store.training import load_training_set
from retrieval_detect.teach.again import projection_again
from retrieval_detect.types import ORIGINAL_VIEW, SPLITS, quiet

if TYPE_CHECKING:
    from retrieval_detect.scoring.conformal import Conformal
    from retrieval_detect.scoring.likelihood import LikelihoodMethod
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Float64, Int64, Label
    from retrieval_detect.verdicts import Question

Without: TypeAlias = Callable[["Int64"], Methods]
"""Row ids → what asks with those rows out of the banks and of all that was fitted on them."""

_NEAREST = 3
"""References named that the highest scores lie nearest to."""
_LOOKED_AT = 0.1
"""The rate at which photographs count as confused: theirs are the names and references that are kept."""


def left_out(
    snapshot: Snapshot,
    question: Question,
    known: Conformal,
    *,
    likelihood: LikelihoodMethod = "logistic",
    device: str = "auto",
    progress: Progress = quiet,
) -> NewSources:
    """Ask about every source and every generator without it.

    ``question`` : checked. ``known`` : the scores of images set aside, with nothing left out. Of each name
    ``MOST_ROWS`` images, of those set aside and of the banks alike; their own groups have no part in the
    banks either. Where it cannot be done, the outcome says why.
    """
    try:
        without = _without(snapshot, question, device)
        photographs = known.photographs
        rank = max(1, int(_LOOKED_AT * len(photographs)))
        looked_at = float(photographs[-rank])
        sources = _of_label(snapshot, question, "real", without, looked_at, progress)
        generators = _of_label(snapshot, question, "fake", without, looked_at, progress)
    except (UsageError, EmptyBank) as error:
        return NewSources(why=error.message)
    if not sources:
        return NewSources(why="the index has one source alone, and nothing to compare it with")
    generators = {
        name: replace(one, real_like=float(_real_like(one.scores, known, photographs).mean()))
        for name, one in generators.items()
    }
    return NewSources.of(sources, generators, method=likelihood)


def _without(snapshot: Snapshot, question: Question, device: str) -> Without:
    """Raises ``UsageError`` where the projection or the head takes too long to be fitted for every name."""
    name, method = question.projection or PLAIN, question.method
    projection = None if name == PLAIN else read_fitted(snapshot, name)
    if projection is not None and not KINDS[projection.kind].cheap:
        raise UsageError(f"projection {name} takes too long to be fitted without each source")
    map_rows = None if projection is None else load_training_set(snapshot, projection.layers)
    record = snapshot.fitted("head", method)
    head = None if record is None or not record.strata else load_head(snapshot, method)
    if head is not None and not head.cheap:
        raise UsageError(f"head {method} takes too long to be trained without each source")
    layers = () if head is None else head.layers or snapshot.manifest.layers
    head_rows = load_training_set(snapshot, layers, views=True) if layers else None

    def methods(gone: Int64) -> Methods:
        left = snapshot.without(gone.tolist())
        projections, heads = {}, {}
        if map_rows is not None:
            kept = map_rows.take(~np.isin(map_rows.row_ids, gone))
            projections = {name: projection_again(left, name, kept)}
        if head is not None and head_rows is not None:
            heads = {method: replace(head).fit(head_rows.take(~np.isin(head_rows.row_ids, gone)))}
        return Methods(left, device=device, projections=projections, heads=heads)

    return methods


def _of_label(
    snapshot: Snapshot,
    question: Question,
    label: Label,
    without: Without,
    looked_at: float,
    progress: Progress,
) -> dict[str, LeftOut]:
    """Each of its names left out; none where there is one alone.

    ``looked_at`` : scores from here on count.
    """
    column = "generator" if label == "fake" else "source"
    table = snapshot.scan(["row_id", column, "view"], label=label)
    row_ids, original = table["row_id"].to_numpy(), np.array(table["view"].to_pylist()) == ORIGINAL_VIEW
    names, of_row = np.unique(np.array(table[column].to_pylist(), np.str_), return_inverse=True)
    if len(names) < 2:
        return {}
    largest_first = np.argsort(-np.bincount(of_row), kind="stable")
    fold = np.empty(len(names), np.int64)
    fold[largest_first] = np.arange(len(names)) % MOST_FOLDS
    found: dict[str, LeftOut] = {}
    for number in range(min(len(names), MOST_FOLDS)):
        methods = without(row_ids[fold[of_row] == number])
        wanted = [_spread(row_ids[original & (of_row == i)]) for i in np.flatnonzero(fold == number)]
        asked = Chosen(SPLITS, only=frozenset(np.concatenate(wanted).tolist()))
        found |= _asked(methods, snapshot, question, asked, looked_at)
        progress(len(asked.only or ()))
    return {str(name): found[str(name)] for name in names if str(name) in found}


def _spread(row_ids: Int64) -> Int64:
    """At most ``MOST_ROWS``, evenly spread."""
    return row_ids[:: -(-len(row_ids) // MOST_ROWS)] if len(row_ids) else row_ids


def _asked(
    methods: Methods, snapshot: Snapshot, question: Question, chosen: Chosen, looked_at: float
) -> dict[str, LeftOut]:
    """What comes of some rows, by name."""
    parts = []
    for block in rows_to_ask(snapshot, chosen, methods.layers(question)):
        answers = methods.ask(Asked.of(block), question)
        if not answers.voted.all():
            raise nobody_left(answers.missing[0])
        nearest = answers.voters["fake"]
        parts.append(
            (
                block.names,
                answers.scores,
                methods.top_generators(answers, question),
                nearest.row_ids[:, 0],
                nearest.similarities[:, 0],
            )
        )
    names, scores, taken_for, row_ids, similarities = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    found = {}
    for name in np.unique(names).tolist():
        mine = names == name
        high = np.flatnonzero(mine & (scores >= min(looked_at, scores[mine].max())))
        kinds, counts = np.unique(taken_for[high].astype(str), return_counts=True)
        closest = high[np.argsort(-similarities[high], kind="stable")]
        nearest_ids = tuple(dict.fromkeys(row_ids[closest].tolist()))[:_NEAREST]
        found[name] = LeftOut(np.sort(scores[mine]), 0.0, str(kinds[counts.argmax()]), nearest_ids)
    return found


def _real_like(scores: Float64, known: Conformal, photographs: Float64) -> Bool:
    """Which scores would make a real-like verdict at the usual rates."""
    fits_real = at_least(photographs, scores) > ALPHA
    fits_fake = np.zeros(len(scores), bool) if known.lacking_fakes() else known.p_fake(scores) > BETA
    real_like: Bool = fits_real & ~fits_fake
    return real_like
