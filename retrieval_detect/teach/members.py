"""What the members of an ensemble say of references they have not learnt from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.fitted import load_head
from retrieval_detect.ask.methods import Methods
from retrieval_detect.ask.rows import Chosen, score_rows
from retrieval_detect.errors import UsageError
from retrieval_detect.store.training import load_training_set
from retrieval_detect.types import METHODS, quiet
from retrieval_detect.vectors import Rows
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from retrieval_detect.heads.base import Head
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Float32

ENSEMBLE_ROWS = 5000
"""References that are scored, at most."""
_FOLDS = 3


def member_scores(
    snapshot: Snapshot,
    members: Sequence[str],
    *,
    device: str = "auto",
    progress: Callable[[str], None] = quiet,
) -> Rows:
    """What each member says of bank rows that it has not learnt from.

    Votes leave a row's own group out; heads are trained anew without the generators and sources they then
    score (3 folds). Returns rows whose ``vectors`` are member → float32 (n, 1), positive = fake.
    """
    heads = {name: load_head(snapshot, name) for name in members if name not in METHODS}
    nested = [name for name, head in heads.items() if head.members]
    if nested:
        raise UsageError(f"{nested[0]!r} is an ensemble itself", hint="Name its members instead.")
    if slow := [head.kind for head in heads.values() if head.needs_text]:
        raise UsageError(
            f"a {slow[0]} head cannot be trained again in passing, and so has no fair scores to learn from",
            hint="Choose members among votes, linear, svm, layers and prototype heads.",
        )
    layers = dict.fromkeys(layer for head in heads.values() for layer in head.layers)
    rows = load_training_set(snapshot, tuple(layers))
    scores: dict[str, Float32] = {}
    chosen = np.arange(len(rows))
    for name in members:
        progress(f"scoring with {name}")
        if name in METHODS:
            wanted = Chosen(("bank",), at_most=ENSEMBLE_ROWS)
            found = score_rows(
                snapshot, Question(name), chosen=wanted, judge=Methods(snapshot, device=device)
            )
            chosen, asked = np.intersect1d(rows.row_ids, found.row_ids, return_indices=True)[1:]
            by_asking = np.argsort(asked)
            chosen, asked = chosen[by_asking], asked[by_asking]
            scores[name] = np.full((len(rows), 1), np.nan, np.float32)
            scores[name][chosen, 0] = found.scores[asked]
        else:
            record, head = snapshot.fitted("head", name), heads[name]
            vectors = {layer: rows.as_encoded(layer) for layer in head.layers}
            if record is not None and not record.strata:  # trained elsewhere
                scores[name] = head.decision_function(vectors)[:, None].astype(np.float32)
            else:
                scores[name] = _out_of_fold(head, rows, vectors)
    return replace(rows, vectors=scores, norms={}).take(chosen)


def _out_of_fold(head: Head, rows: Rows, vectors: Mapping[str, Float32]) -> Float32:
    """Scores by the same head trained without a row's generator or source; a single one is cut by group."""
    fold = np.empty(len(rows), np.int64)
    for fake in (False, True):
        members = rows.fake == fake
        names, groups = rows.names[members], rows.groups[members]
        units = names if len(np.unique(names)) > 1 else groups.astype(str)
        fold[members] = np.unique(units, return_inverse=True)[1] % _FOLDS
    scores = np.full((len(rows), 1), np.nan, np.float32)
    for number in range(_FOLDS):
        here = fold == number
        if here.any():
            rest = ~here & ~np.isin(rows.groups, rows.groups[here])
            fresh = replace(head).fit(rows.take(rest))
            scores[here, 0] = fresh.decision_function({name: x[here] for name, x in vectors.items()})
    return scores
