"""References that disagree with their neighbours, and deliveries of which unusually many do.

Each reference is asked about as if it were an image never seen. That it disagrees says that its
nearest references are of the other label; whether its own label is wrong, only a person can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from retrieval_detect.ask.banks import Asked
from retrieval_detect.ask.methods import Methods
from retrieval_detect.ask.rows import Chosen, Progress, rows_to_ask
from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.vote import merged_counts
from retrieval_detect.types import LABELS, METHODS, Label
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.ask.methods import Answers
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool
    from retrieval_detect.vectors import Rows

    Float64 = NDArray[np.float64]

Kind: TypeAlias = Literal["batch", "contributor"]
KINDS: tuple[Kind, Kind] = ("batch", "contributor")

NEAREST = 10
OVERWHELMING = 0.8
"""Part of the nearest, were both banks of one size, that must be of the other label: 8 of 10."""
SIGNIFICANT = 0.05
"""Chance, over all deliveries together, of naming one that is like the others."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A reference whose neighbours are overwhelmingly of the other label.

    ``score`` : positive = fake. ``others`` of the ``of`` nearest have the other label; the nearest of
    these is ``other_row_id``, at ``other_similarity``. ``as_far`` : how many references of its own
    label score at least as far to the wrong side; ``expected`` : see ``Spread``.
    """

    row_id: int
    label: Label
    name: str
    score: float
    others: int
    of: int
    as_far: int
    expected: int
    other_row_id: int
    other_name: str
    other_similarity: float
    other_uri: str
    uri: str
    batch: str
    contributor: str


@dataclass(frozen=True, slots=True)
class Spread:
    """One label. ``asked`` references, of which ``disagree`` do.

    ``as_far`` : how many score as far to the wrong side as the least of these. ``expected`` : how many
    would by the spread of the label's own scores, were it even: as many as lie equally far from their
    median on the right side, where no wrong label leads. (So decoys are counted by Barber and Candès
    2015, "Controlling the false discovery rate via knockoffs", §1.2.)
    """

    label: Label
    asked: int
    disagree: int
    as_far: int
    expected: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch or contributor of whose references more disagree than of the rest of their label.

    ``disagree`` of ``n``, elsewhere ``disagree_elsewhere`` of ``n_elsewhere``. ``p`` : one-sided binomial
    test, corrected by Holm over all batches and contributors.
    """

    kind: Kind
    name: str
    label: Label
    n: int
    disagree: int
    n_elsewhere: int
    disagree_elsewhere: int
    p: float


@dataclass(frozen=True, slots=True)
class Check:
    """What was found. ``disagreements`` : the strongest first. ``alone`` : rows that had no voters."""

    spreads: tuple[Spread, ...]
    disagreements: tuple[Disagreement, ...]
    deliveries: tuple[Delivery, ...]
    alone: int


def check(
    snapshot: Snapshot,
    question: Question | None = None,
    *,
    at_most: int | None = None,
    device: str = "auto",
    progress: Progress = lambda _: None,
) -> Check:
    """Ask the banks about their own references, or about ``at_most`` of them, evenly spread.

    A reference's group does not vote on it. It disagrees if the vote and the share of the other label
    among its ten nearest, counted as if both banks had one size, both say so. A head would know what
    it learnt from, so only votes can be asked: ``UsageError``.
    """
    methods = Methods(snapshot, device=device)
    question = methods.checked(question or Question())
    if question.method not in METHODS:
        raise UsageError(
            f"head {question.method!r} has learnt from the references it would be asked about",
            hint=f"Check with a vote: --method {METHODS[0]}",
        )
    asked: list[_Asked] = []
    alone = 0
    chosen = Chosen(splits=("bank",), at_most=at_most)
    for block in rows_to_ask(snapshot, chosen, methods.layers(question)):
        answers = methods.ask(Asked.of(block), question)
        alone += int((~answers.voted).sum())  # its group is all that a bank holds
        asked += _asked(block, answers)
        progress(len(block))
    return _checked(snapshot, asked, alone)


@dataclass(frozen=True, slots=True)
class _Asked:
    """``wrong`` : the score, positive = towards the other label."""

    row_id: int
    label: Label
    name: str
    wrong: float
    others: int
    of: int
    disagrees: bool
    other_row_id: int
    other_similarity: float


def _asked(block: Rows, answers: Answers) -> Iterator[_Asked]:
    """Those that had voters."""
    label: Label = "fake" if block.fake[0] else "real"
    (other,) = (each for each in LABELS if each != label)
    first = {each: near.first(NEAREST) for each, near in answers.voters.items()}
    counts = dict(zip(("fake", "real"), merged_counts(first["fake"], first["real"], NEAREST), strict=True))
    shares = {each: counts[each] / first[each].n_bank for each in LABELS}
    wrong = answers.scores if other == "fake" else -answers.scores
    overwhelmed = shares[other] >= (OVERWHELMING - _ROUNDING) * (shares["fake"] + shares["real"])
    columns = (
        block.row_ids[answers.voted],
        block.names[answers.voted],
        wrong,
        counts[other],
        counts["fake"] + counts["real"],
        (wrong > 0) & overwhelmed,
        first[other].row_ids[:, 0],
        first[other].similarities[:, 0],
    )
    for row_id, name, *found in zip(*(column.tolist() for column in columns), strict=True):
        yield _Asked(row_id, label, name, *found)


def _checked(snapshot: Snapshot, asked: Sequence[_Asked], alone: int) -> Check:
    found, spreads = [], []
    for label in LABELS:
        rows = [row for row in asked if row.label == label]
        wrong = np.sort([row.wrong for row in rows])
        ranked = sorted((row for row in rows if row.disagrees), key=lambda row: (-row.wrong, row.row_id))
        found += [(row, *_as_far(wrong, row.wrong)) for row in ranked]
        least = _as_far(wrong, ranked[-1].wrong) if ranked else (0, 0)
        spreads.append(Spread(label, len(rows), len(ranked), *least))
    found.sort(key=lambda entry: (-entry[0].wrong, entry[0].row_id))
    return Check(
        tuple(spreads), tuple(_described(snapshot, found)), tuple(_deliveries(snapshot, asked)), alone
    )


def _as_far(wrong: Float64, score: float) -> tuple[int, int]:
    """How many of ``wrong``, ascending, reach a score, and how many its mirror image about the median."""
    mirrored = 2 * float(np.median(wrong)) - score
    reach = len(wrong) - np.searchsorted(wrong, score, side="left")
    return int(reach), int(np.searchsorted(wrong, mirrored, side="right"))


def _described(snapshot: Snapshot, found: Sequence[tuple[_Asked, int, int]]) -> Iterator[Disagreement]:
    columns = ["uri", "generator", "source", "batch", "contributor"]
    own = snapshot.take([row.row_id for row, _, _ in found], columns)
    others = snapshot.take([row.other_row_id for row, _, _ in found], columns)
    for (row, as_far, expected), facts, other in zip(found, own, others, strict=True):
        yield Disagreement(
            row_id=row.row_id,
            label=row.label,
            name=row.name,
            score=row.wrong if row.label == "real" else -row.wrong,
            others=row.others,
            of=row.of,
            as_far=as_far,
            expected=expected,
            other_row_id=row.other_row_id,
            other_name=other["source" if row.label == "fake" else "generator"],
            other_similarity=row.other_similarity,
            other_uri=other["uri"],
            uri=facts["uri"],
            batch=facts["batch"],
            contributor=facts["contributor"],
        )


# ---------------------------------------------------------------- deliveries


def _deliveries(snapshot: Snapshot, asked: Sequence[_Asked]) -> list[Delivery]:
    """Those that stand out, the surest first."""
    rows = snapshot.take([row.row_id for row in asked], KINDS)
    facts = {kind: np.array([row[kind] for row in rows], np.str_) for kind in KINDS}
    labels = np.array([row.label for row in asked], np.str_)
    disagrees = np.array([row.disagrees for row in asked], bool)
    tested = [
        delivery
        for kind in KINDS
        for label in LABELS
        for delivery in _tested(kind, label, facts[kind][labels == label], disagrees[labels == label])
    ]
    corrected = _holm(np.array([delivery.p for delivery in tested]))
    named = [replace(delivery, p=p) for delivery, p in zip(tested, corrected.tolist(), strict=True)]
    return sorted((d for d in named if d.p <= SIGNIFICANT), key=lambda d: (d.p, d.kind, d.name))


def _tested(kind: Kind, label: Label, names: NDArray[np.str_], disagrees: Bool) -> Iterator[Delivery]:
    """Every named delivery of one label, against the rest of it, with an uncorrected p.

    The rate elsewhere is estimated with one disagreement and one agreement more (Laplace's rule): where
    none disagrees, it is small and not zero.
    """
    from scipy.stats import binomtest

    for name in np.unique(names[names != ""]).tolist():
        here = names == name
        n, k = int(here.sum()), int(disagrees[here].sum())
        n_rest, k_rest = len(names) - n, int(disagrees[~here].sum())
        if n_rest:
            rate = (k_rest + 1) / (n_rest + 2)
            p = float(binomtest(k, n, rate, alternative="greater").pvalue)
            yield Delivery(kind, name, label, n, k, n_rest, k_rest, p)


def _holm(p: Float64) -> Float64:
    """Corrected p-values, float64 (m,) (Holm 1979, "A simple sequentially rejective multiple test")."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    return corrected
