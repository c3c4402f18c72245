"""What a score would be without some references: exact, for a vote needs no training."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.evidence import nearest_of_both
from retrieval_detect.ask.methods import Methods, asked_about
from retrieval_detect.errors import EmptyBank, UsageError
from retrieval_detect.types import LABELS, METHODS
from retrieval_detect.verdicts import Influence

if TYPE_CHECKING:
    from retrieval_detect.ask.banks import Banks
    from retrieval_detect.ask.methods import Answers
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


class _Without(Methods):
    """The methods of an index, asked about banks that lack some references."""

    def __init__(self, methods: Methods, banks: Banks) -> None:
        super().__init__(methods.snapshot)
        self._reduced = banks

    def banks(self, projection: str | None = None) -> Banks:  # noqa: ARG002 - those of the question
        """The reduced banks."""
        return self._reduced


class Influences:
    """Asks about one image again and again. ``answers`` : what the whole banks said of it."""

    def __init__(
        self,
        methods: Methods,
        image: Embedded,
        question: Question,
        answers: Answers,
        *,
        own_groups: Set[int],
    ) -> None:
        self._methods, self._question = methods, question
        self._asked = asked_about([image], methods.layers(question), own_groups=own_groups)
        self._answers = answers
        self._banks = methods.banks(question.projection)

    def all(self) -> tuple[Influence, ...]:
        """Each generator and source near the image left out, then each of the nearest references.

        By size of the change, names before references. Cook 1977, "Detection of influential observation in
        linear regression", for the idea; nothing is approximated here.
        """
        found = [list(self._names()), list(self._references())]
        ordered = [sorted(part, key=lambda i: (i.score is not None, -abs(i.change or 0))) for part in found]
        return tuple(influence for part in ordered for influence in part)

    def _names(self) -> Iterator[Influence]:
        for label in LABELS:
            references = self._banks.references(label)
            for code in self._heaviest(label):
                gone = references.name == code
                n_images = len(np.unique(references.content[gone]))
                yield self._left_out(label, gone, name=references.names[code], n_images=n_images)

    def _heaviest(self, label: Label) -> list[int]:
        """Codes of the names with the largest share of the bank's density near the image."""
        k, temperature = self._question.k or 1, self._banks.projection.temperature
        near = self._answers.voters[label].first(k)
        n = int(near.n[0])
        terms = near.similarities[0, :n] / temperature + near.log_weights[0, :n]
        parts = np.bincount(near.names[0, :n], weights=np.exp(terms - terms.max()))
        order = np.argsort(-parts, kind="stable")
        return [int(code) for code in order[:MOST_NAMES] if parts[code] > 0]

    def _references(self) -> Iterator[Influence]:
        for row_id, _ in nearest_of_both(self._answers.voters):
            for label in LABELS:
                references = self._banks.references(label)
                at = int(references.positions(np.array([row_id]))[0])
                if at < len(references) and references.row_ids[at] == row_id:
                    gone = references.content == references.content[at]
                    name = references.names[references.name[at]]
                    yield self._left_out(label, gone, name=name, n_images=1, row_id=row_id)

    def _left_out(
        self, label: Label, gone: Bool, *, name: str, n_images: int, row_id: int | None = None
    ) -> Influence:
        try:
            reduced = _Without(self._methods, self._banks.without(label, gone))
            score = float(reduced.ask(self._asked, self._question).one(0).scores[0])
        except EmptyBank:
            return Influence(label, name, row_id, n_images, None, None)
        return Influence(label, name, row_id, n_images, score, score - float(self._answers.scores[0]))
