"""What a score would be without some references: exact, for a vote needs no training."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.evidence import nearest_of_both
from retrieval_detect.ask.instead import Instead
from retrieval_detect.ask.methods import asked_about
from retrieval_detect.errors import EmptyBank, UsageError
from retrieval_detect.types import LABELS, METHODS
from retrieval_detect.verdicts import Influence

if TYPE_CHECKING:
    from retrieval_detect.ask.methods import Answers, Methods
    from retrieval_detect.scoring.neighbours import NearestImages
    from retrieval_detect.types import Bool, Embedded, Label
    from retrieval_detect.verdicts import Question

MOST_NAMES = 5
"""Generators, and sources, that are left out one by one: those with most weight near the image."""


def require(question: Question) -> None:
    """Raise ``UsageError`` for a method whose references cannot be left out without training anew."""
    if question.influence and question.method not in METHODS:
        raise UsageError(
            f"{question.method!r} is a head: without some references it would have to be trained again",
            hint=f"Influence is of votes: {', '.join(METHODS)}.",
        )


def influences(
    methods: Methods, image: Embedded, question: Question, answers: Answers, *, own_groups: Set[int]
) -> tuple[Influence, ...]:
    """Each generator and source near an image left out, then each of its nearest references.

    ``answers`` : what the whole banks said of it. By size of the change, names before references. Cook 1977,
    "Detection of influential observation in linear regression", for the idea; nothing is approximated here.
    """
    banks, score = methods.banks(question.projection), float(answers.scores[0])
    asked = asked_about([image], methods.layers(question), own_groups=own_groups)

    def left_out(label: Label, gone: Bool, name: str, n_images: int, row_id: int | None = None) -> Influence:
        try:
            reduced = Instead(methods, banks.without(label, gone))
            without = float(reduced.ask(asked, question).one(0).scores[0])
        except EmptyBank:
            return Influence(label, name, row_id, n_images, None, None)
        return Influence(label, name, row_id, n_images, without, without - score)

    names, references = [], []
    for label in LABELS:
        known = banks.references(label)
        for code in _heaviest(answers.voters[label], question, banks.projection.temperature):
            gone = known.name == code
            names.append(left_out(label, gone, known.names[code], len(np.unique(known.content[gone]))))
    for row_id, _ in nearest_of_both(answers.voters):
        for label in LABELS:
            known = banks.references(label)
            at = int(known.positions(np.array([row_id]))[0])
            if at < len(known) and known.row_ids[at] == row_id:
                gone = known.content == known.content[at]
                references.append(left_out(label, gone, known.names[known.name[at]], 1, row_id))
    found = (names, references)
    ordered = [sorted(part, key=lambda i: (i.score is not None, -abs(i.change or 0))) for part in found]
    return tuple(influence for part in ordered for influence in part)


def _heaviest(near: NearestImages, question: Question, temperature: float) -> list[int]:
    """Codes of the names with the largest share of a bank's density near the image."""
    near = near.first(question.k or 1)
    n = int(near.n[0])
    terms = near.similarities[0, :n] / temperature + near.log_weights[0, :n]
    parts = np.bincount(near.names[0, :n], weights=np.exp(terms - terms.max()))
    order = np.argsort(-parts, kind="stable")
    return [int(code) for code in order[:MOST_NAMES] if parts[code] > 0]
