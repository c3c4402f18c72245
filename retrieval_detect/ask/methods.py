"""Everything in one generation that can score an image: votes, heads and ensembles, by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from retrieval_detect.ask import anew
from retrieval_detect.ask.banks import Asked, Banks
from retrieval_detect.ask.calibrations import calibration_name, too_few
from retrieval_detect.ask.fitted import CALIBRATION, COVERAGE, PLAIN, Kind, Rates, load_head, read
from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.heads.ensemble import EnsembleHead
from retrieval_detect.scoring.attribution import generator_densities, top_names
from retrieval_detect.scoring.calibration import Calibration
from retrieval_detect.scoring.coverage import NEAREST, Coverage
from retrieval_detect.scoring.vote import DEFAULT_K, REDEFINED, nobody_left, typicality, vote
from retrieval_detect.search.approximate import caveat
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.types import METHODS
from retrieval_detect.vectors import as_stored
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.heads.base import Head
    from retrieval_detect.scoring.neighbours import NearestImages
    from retrieval_detect.scoring.vote import VoteResult
    from retrieval_detect.search.projection import Projection
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Embedded, Float32, Int64, Label, Method

    Float64 = NDArray[np.float64]

T = TypeVar("T")

ATTRIBUTION_K = DEFAULT_K["density"]
"""Attribution is a share of the default vote's density, whatever method was asked for."""
QUALITY = "quality"
"""The one kind of head whose scores say nothing of fakes."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the index says of q images; one image is q = 1.

    ``voted`` : bool (q,), whether each bank has somebody to vote; ``missing`` : the bank without voters,
    for each image that has none. Of the m images that voted alone: ``scores`` : float64 (m,), positive =
    fake; ``typical`` : float64 (m,), the larger of the mean similarities to either bank; ``k`` : int64
    (m,), see ``VoteResult``; ``voters`` : the nearest images of each bank, m rows; ``vectors`` : layer →
    float32 (m, d), as the network gave them; ``photographs`` : by the stored vectors alone, the nearest of
    the real bank, m rows, where the index knows how near is usual (``ask.coverage``). By position among the
    q: ``stored`` : (row id, group) of every live row of the image's own bytes; ``own`` and ``groups`` : see
    ``Found``.
    """

    voted: Bool
    missing: tuple[Label, ...]
    scores: Float64
    typical: Float64
    k: Int64
    voters: Mapping[Label, NearestImages]
    vectors: Mapping[str, Float32]
    stored: Mapping[int, Sequence[tuple[int, int]]]
    own: Mapping[int, Mapping[int, float]]
    groups: Mapping[int, set[int]]
    photographs: NearestImages | None = None

    def one(self, position: int) -> Answers:
        """Those of one image. Raises ``EmptyBank`` if it has none to vote."""
        before = int(np.count_nonzero(self.voted[:position]))
        if not self.voted[position]:
            raise nobody_left(self.missing[position - before])
        at = np.array([before])

        def only(by_position: Mapping[int, T]) -> dict[int, T]:
            return {0: by_position[position]} if position in by_position else {}

        return Answers(
            np.array([True]),
            (),
            self.scores[at],
            self.typical[at],
            self.k[at],
            {label: voters.take(at) for label, voters in self.voters.items()},
            {layer: x[at] for layer, x in self.vectors.items()},
            only(self.stored),
            only(self.own),
            only(self.groups),
            None if self.photographs is None else self.photographs.take(at),
        )


class Methods:
    """The methods of one generation, opened when first asked.

    Calibration rows and queries take this same way, so that their scores can be compared. ``projections`` and
    ``heads`` : by name, in the place of those stored; nothing of theirs is written.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        device: str = "auto",
        projections: Mapping[str, Projection] = MappingProxyType({}),
        heads: Mapping[str, Head] = MappingProxyType({}),
    ) -> None:
        self.snapshot = snapshot
        self._device = device
        self._banks = {
            name: Banks(snapshot, projection=projection, device=device)
            for name, projection in projections.items()
        }
        self._heads = dict(heads)
        self._calibrations: dict[str, Calibration | None] = {}

    # ------------------------------------------------------------ what there is

    def banks(self, projection: str | None = None) -> Banks:
        """Both banks through a projection; ``None`` is the index's default."""
        name = self.snapshot.manifest.projection if projection is None else projection
        if name not in self._banks:
            self._banks[name] = Banks(self.snapshot, projection=name, device=self._device)
        return self._banks[name]

    def head(self, name: str) -> Head:
        """The head called ``name``; ``EncoderMismatch`` if it was trained for another encoder."""
        if name not in self._heads:
            self._heads[name] = load_head(self.snapshot, name)
        return self._heads[name]

    def checked(self, question: Question) -> Question:
        """The question with its k and its projection by name, or a ``UsageError``."""
        known = methods_of(self.snapshot)
        heads = known[len(METHODS) :]
        record = self.snapshot.fitted("head", question.method)
        if record is not None and record.method == QUALITY:
            raise UsageError(
                f"head {question.method!r} tells how good an image looks, not whether it is fake",
                hint=f"rd query alone shows what it predicts. For verdicts: {', '.join(known)}.",
            )
        if question.method not in known:
            near = difflib.get_close_matches(question.method, known, n=1)
            raise UsageError(
                f"index {self.snapshot.folder.name!r} has no method {question.method!r}",
                hint=f"Votes: {', '.join(METHODS)}. Heads: {', '.join(heads) or 'none (rd train)'}."
                + (f" Did you mean {near[0]}?" if near else ""),
            )
        default = DEFAULT_K[vote_of(question.method)]
        k = default if question.k is None else question.k
        if k < 1 or (question.method in heads and k != default):
            why = "a head counts no neighbours" if question.method in heads else "give 1 or more"
            raise UsageError(f"k is {question.k}: {why}")
        projection = question.projection or self.snapshot.manifest.projection
        self.banks(projection)
        photographs = question.photographs if question.source is None else "known"
        return replace(question, k=k, projection=projection, photographs=photographs)

    def scorer(self, question: Question) -> str:
        """Digest of all that makes scores comparable: another means that a calibration does not hold."""
        parts = [self.banks(question.projection).id]
        if question.method not in METHODS:
            heads = {f.name: f.digest for f in self.snapshot.manifest.fitted if f.kind == "head"}
            parts += [heads.get(p) or REDEFINED.get(p, p) for p in self._parts(question.method)]
        elif question.method in REDEFINED:
            parts.append(REDEFINED[question.method])
        return "-".join(parts)

    def calibration(self, question: Question) -> Calibration | None:
        """The calibration that holds for a ``checked`` question and has images enough for its rate."""
        found = self.fitted(question)
        return None if found is None or found.lacking(question) else found

    def fitted(self, question: Question) -> Calibration | None:
        """The calibration of such scores as a ``checked`` question asks for, however few images it has."""
        found = self._stored(question)
        return found if found and found.holds_for(question, self.scorer(question)) else None

    def uncalibrated(self, question: Question) -> Iterator[str]:
        """Why no calibration answers a ``checked`` question."""
        found = self._stored(question)
        if found is None or found.k != question.k:
            if why := too_few(self.snapshot, question.fpr):
                yield f"no rate of false alarms is known: {why}"
            return
        if found.scorer != self.scorer(question):
            same = found.rows_digest == self.snapshot.rows_digest()
            what = (
                "of scores of an earlier rd" if same else "of scores over other references than there are now"
            )
            yield f"the calibration is {what}: {anew.calibration_command(self.snapshot, found)}"
        elif why := found.lacking(question):
            yield f"no rate of false alarms is known: {why}; add references, a fifth of each is set aside"

    def caveats(self, question: Question) -> Iterator[str]:
        """What makes the answer to a ``checked`` question less than it could be, whatever the image."""
        if tuned := self.banks(question.projection).tuned:
            yield caveat(tuned)
        yield from self.uncalibrated(question)
        for name in self._parts(question.method):
            head = None if name in METHODS else self.head(name)
            if isinstance(head, EnsembleHead) and (why := self._unlike(head, question)):
                again = f"--name {name} --members {','.join(head.members)} --rule {head.rule}"
                yield f"ensemble {name} learnt from {why}: rd train ensemble {again}"

    def _unlike(self, head: EnsembleHead, question: Question) -> str:
        """What an ensemble learnt from, if not from such scores as its members give now."""
        votes = [member for member in head.members if member in METHODS]
        if outdated := head.outdated():
            return f"{' and '.join(outdated)} scores of an earlier rd"
        through = self.banks(question.projection).projection.id
        other = votes and head.projection not in (None, through)
        return f"{' and '.join(votes)} scores through another projection" if other else ""

    def _stored(self, question: Question) -> Calibration | None:
        name = calibration_name(question.method, question.projection or PLAIN)
        if name not in self._calibrations:
            self._calibrations[name] = read(self.snapshot, CALIBRATION, name)
        return self._calibrations[name]

    def layers(self, question: Question) -> tuple[str, ...]:
        """The stored layers that asking reads."""
        named = [grouping_layer(self.snapshot.manifest.layers)]
        named += self.banks(question.projection).projection.layers
        for part in self._parts(question.method):
            named += self.head(part).layers if part not in METHODS else ()
        return tuple(dict.fromkeys(named))

    def _parts(self, method: str) -> list[str]:
        """A method, and those that it is made of."""
        members = () if method in METHODS else self.head(method).members
        return [method, *(part for member in members for part in self._parts(member))]

    # ------------------------------------------------------------ asking

    def ask(self, asked: Asked, question: Question) -> Answers:
        """Ask about a block of images; what is said of each is what would be said of it alone.

        ``asked`` : with at least ``layers(question)``; references of its own bytes need not be among its
        ``own_groups``. ``question`` : ``checked``. Raises ``VectorError`` where an image cannot be
        asked about.
        """
        banks, k = self.banks(question.projection), question.k or DEFAULT_K[vote_of(question.method)]
        stored = stored_copies(self.snapshot, asked.content_ids)
        groups = {i: set(known) for i, known in asked.own_groups.items()}
        for i, rows in stored.items():
            groups.setdefault(i, set()).update(group for _, group in rows)
        found = banks.nearest(replace(asked, own_groups=groups), wanted=max(k, ATTRIBUTION_K))
        voters, vectors = found.voters, asked.vectors
        voted = (voters["fake"].n > 0) & (voters["real"].n > 0)
        missing: tuple[Label, ...] = ()
        if not voted.all():
            missing = tuple("fake" if n == 0 else "real" for n in voters["fake"].n[~voted])
            voters = {label: near.take(voted) for label, near in voters.items()}
            vectors = {layer: x[voted] for layer, x in vectors.items()}
        by_vote = self._vote(vote_of(question.method), k, voters, question)
        scores = by_vote.scores
        if question.method not in METHODS:
            scores = self._head_scores(question.method, vectors, voters, question)
        return Answers(
            voted=voted,
            missing=missing,
            scores=scores,
            typical=typicality(voters["fake"], voters["real"]),
            k=by_vote.k,
            voters=voters,
            vectors=vectors,
            stored=stored,
            own=found.own,
            groups=found.groups,
        )

    def answer(self, asked: Asked, question: Question) -> Answers:
        """``ask``, and with what the real bank holds near: all that a verdict rests on."""
        answers = self.ask(asked, question)
        if self.coverage is None:
            return answers
        if question.projection == PLAIN:
            near = answers.voters["real"].first(NEAREST)
        else:
            banks = self.banks(PLAIN)
            found = banks.nearest(replace(asked, own_groups=answers.groups), wanted=NEAREST, labels=("real",))
            near = found.voters["real"].take(answers.voted)
        return replace(answers, photographs=near)

    @cached_property
    def coverage(self) -> Coverage | None:
        """How near the real bank usually is, if that was fitted."""
        return read(self.snapshot, COVERAGE, grouping_layer(self.snapshot.manifest.layers))

    def ask_all(self, asked: Asked, question: Question) -> Iterator[tuple[Int64, Answers | VectorError]]:
        """``answer``, where some images may be such as cannot be asked about: those come by themselves.

        Gives positions, int64, and what is said of the images there; every image is in one part.
        """
        pending = [np.arange(len(asked))]
        while pending:
            at = pending.pop()
            try:
                yield at, self.answer(asked if len(at) == len(asked) else asked.take(at), question)
            except VectorError as error:
                if len(at) == 1:
                    yield at, error
                else:
                    pending += reversed(np.array_split(at, 2))

    def attribution(
        self, question: Question, vectors: Mapping[str, Float32]
    ) -> tuple[list[str], Float64] | None:
        """See ``Head.attribution``; ``None`` for a vote, and for a head that tells no generators apart.

        ``vectors`` : layer → float32 (d,) or (n, d), as the network gave them.
        """
        if question.method in METHODS or (head := self.head(question.method)).members:
            return None
        return head.attribution({layer: as_stored(vectors[layer]) for layer in head.layers})

    def _vote(
        self, vote_name: Method, k: int, voters: Mapping[Label, NearestImages], question: Question
    ) -> VoteResult:
        temperature = self.banks(question.projection).projection.temperature
        return vote(voters["fake"], voters["real"], method=vote_name, k=k, temperature=temperature)

    def _head_scores(
        self,
        name: str,
        vectors: Mapping[str, Float32],
        voters: Mapping[Label, NearestImages],
        question: Question,
    ) -> Float64:
        head = self.head(name)
        if not head.members:
            return head.decision_function({layer: as_stored(vectors[layer]) for layer in head.layers})
        given = {}
        for member in head.members:
            if member in METHODS:
                vote_name = vote_of(member)
                scores = self._vote(vote_name, DEFAULT_K[vote_name], voters, question).scores
            else:
                scores = self._head_scores(member, vectors, voters, question)
            given[member] = scores.astype(np.float32)[:, None]
        return head.decision_function(given)

    def nearest_fakes(self, answers: Answers) -> NearestImages:
        """Those that attribution is a share of."""
        return answers.voters["fake"].first(ATTRIBUTION_K)

    def top_generators(self, answers: Answers, question: Question) -> NDArray[np.object_]:
        """What images are attributed to first, text (m,): by a head that tells generators apart, or
        by the nearest fakes.
        """
        if len(answers.scores) and (told := self.attribution(question, answers.vectors)):
            names, shares = told
            by_name = np.argsort(np.array(names))
            by_head: NDArray[np.object_] = np.array(names, object)[by_name[shares[:, by_name].argmax(axis=1)]]
            return by_head
        banks = self.banks(question.projection)
        known, temperature = banks.references("fake").names, banks.projection.temperature
        first = top_names(self.nearest_fakes(answers), names=known, temperature=temperature)
        return np.array(known, object)[first]

    def generator_densities(self, answers: Answers, question: Question) -> Float64:
        """How close images lie to each generator of the fake bank, float64 (m, G)."""
        banks = self.banks(question.projection)
        return generator_densities(
            self.nearest_fakes(answers),
            n_names=len(banks.references("fake").names),
            temperature=banks.projection.temperature,
        )


def stored_copies(snapshot: Snapshot, content_ids: Sequence[bytes]) -> dict[int, list[tuple[int, int]]]:
    """Position among ``content_ids`` → (row id, group) of every live row of those bytes, in either split."""
    hits = snapshot.find(content_ids)
    rows = snapshot.take([row_id for _, row_id, _, _ in hits], ["group"]) if hits else []
    copies: dict[int, list[tuple[int, int]]] = {}
    for (i, *_), row in zip(hits, rows, strict=True):
        copies.setdefault(i, []).append((row["row_id"], row["group"]))
    return copies


def asked_about(
    images: Sequence[Embedded], layers: Sequence[str], *, own_groups: Set[int] = frozenset()
) -> Asked:
    """Embedded images as a block, with ``layers``. ``own_groups`` : known to hold every one of them."""
    return Asked(
        [image.content_id for image in images],
        np.array([image.phash for image in images], np.uint64),
        {layer: np.stack([image.vectors[layer] for image in images]) for layer in layers},
        {i: set(own_groups) for i in range(len(images))} if own_groups else {},
    )


def methods_of(snapshot: Snapshot) -> tuple[str, ...]:
    """Every method that images can be judged by: the votes, then heads."""
    heads = [f.name for f in snapshot.manifest.fitted if f.kind == "head" and f.method != QUALITY]
    return (*METHODS, *heads)


# ---------------------------------------------------------------- calibrations


def calibrations(snapshot: Snapshot) -> list[Calibration]:
    """All calibrations that an index has; see ``rates``."""
    return rates(snapshot, CALIBRATION)


def rates(snapshot: Snapshot, kind: Kind[Rates]) -> list[Rates]:
    """What an index has fitted of a kind, for methods and projections that it still has.

    Those through its default projection, and among them that of the default vote, come first.
    """
    projections = (PLAIN, *(f.name for f in snapshot.manifest.fitted if f.kind == "projection"))
    names = [calibration_name(*pair) for pair in product(methods_of(snapshot), projections)]
    found = [one for name in names if (one := read(snapshot, kind, name))]
    default = snapshot.manifest.projection
    return sorted(found, key=lambda c: (c.projection != default, c.method != Question().method, c.method))


def vote_of(method: str) -> Method:
    """The vote that gives the evidence of a method: itself, or the default."""
    return next((vote for vote in METHODS if vote == method), "density")
