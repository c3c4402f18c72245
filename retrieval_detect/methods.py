"""Everything in one generation that can score an image: votes, heads and ensembles, by name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import EncoderMismatch, UsageError
from retrieval_detect.heads.ensemble import EnsembleHead
from retrieval_detect.heads.registry import read_head
from retrieval_detect.scoring.attribution import generator_densities
from retrieval_detect.scoring.calibration import Calibration
from retrieval_detect.scoring.vote import DEFAULT_K, REDEFINED, typicality, vote
from retrieval_detect.search.approximate import caveat
from retrieval_detect.search.banks import Banks
from retrieval_detect.search.fitted import PLAIN
from retrieval_detect.store.append import grouping_layer
from retrieval_detect.store.shards import damaged
from retrieval_detect.store.staging import normalise
from retrieval_detect.types import METHODS
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.heads.base import Head
    from retrieval_detect.scoring.neighbours import BankNeighbours
    from retrieval_detect.scoring.vote import VoteResult
    from retrieval_detect.search.banks import Near, Sought
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Embedded, Float32, Label, Method, Probe

    Float64 = NDArray[np.float64]

ATTRIBUTION_K = DEFAULT_K["density"]
"""Attribution is a share of the default vote's density, whatever method was asked for."""
QUALITY = "quality"
"""The one kind of head whose scores say nothing of fakes."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the index says of one image. ``typical`` : the larger of the mean similarities to either bank."""

    near: Mapping[Label, Near]
    voters: Mapping[Label, BankNeighbours]
    result: VoteResult
    typical: float


class Methods:
    """The methods of one generation, opened when first asked.

    Calibration rows and queries take this same way, so that their scores can be compared.
    """

    def __init__(self, snapshot: Snapshot, *, device: str = "auto") -> None:
        self.snapshot = snapshot
        self._device = device
        self._banks: dict[str, Banks] = {}
        self._heads: dict[str, Head] = {}
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
        return replace(question, k=k, projection=projection)

    def scorer(self, question: Question) -> str:
        """Digest of all that makes scores comparable: another means that a calibration does not hold."""
        parts = [self.banks(question.projection).id]
        if question.method not in METHODS:
            parts += map(self._digest, self._parts(question.method))
        elif question.method in REDEFINED:
            parts.append(REDEFINED[question.method])
        return "-".join(parts)

    def _digest(self, method: str) -> str:
        record = self.snapshot.fitted("head", method)
        return REDEFINED.get(method, method) if record is None else record.digest

    def calibration(self, question: Question) -> Calibration | None:
        """The calibration that holds for a ``checked`` question and has images enough for its rate."""
        found = self.fitted(question)
        return None if found is None or found.lacking(question) else found

    def fitted(self, question: Question) -> Calibration | None:
        """The calibration of such scores as a ``checked`` question asks for, however few images it has."""
        found = self._stored(question)
        return found if found and found.holds_for(question, self.scorer(question)) else None

    def uncalibrated(self, question: Question) -> Iterator[str]:
        """Why a calibration that the index has for a ``checked`` question does not answer it."""
        found = self._stored(question)
        if found is None or found.k != question.k:
            return
        if found.scorer != self.scorer(question):
            yield f"the calibration is of scores of an earlier rd: rd fit calibration{_named(question)}"
        elif why := found.lacking(question):
            yield f"uncalibrated: {why}; add references, a fifth of each name's is set aside"

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
            self._calibrations[name] = read_calibration(self.snapshot, name)
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

    def ask(
        self,
        image: Embedded | Probe,
        vectors: Mapping[str, Float32],
        question: Question,
        *,
        own_groups: set[int],
    ) -> Answer:
        """Ask about one image.

        ``vectors`` : layer → float32 (d,), as the network gave them; at least ``layers(question)``.
        ``question`` : ``checked``. ``own_groups`` : groups that are known to hold the image itself; their
        references do not vote.
        """
        (near,) = self.nearest_of_each([(image, vectors, own_groups)], question)
        return self.answer(near, vectors, question)

    def nearest_of_each(self, asked: Sequence[Sought], question: Question) -> list[dict[Label, Near]]:
        """What ``answer`` needs of each of some images, from one search."""
        wanted = max(self._k(question), ATTRIBUTION_K)
        return self.banks(question.projection).nearest_of_each(asked, wanted=wanted)

    def answer(
        self, near: Mapping[Label, Near], vectors: Mapping[str, Float32], question: Question
    ) -> Answer:
        """What ``ask`` gives, from the neighbours of an image that are found already."""
        banks, k = self.banks(question.projection), self._k(question)
        voters = banks.voters(near)
        temperature = banks.projection.temperature
        result = vote(
            voters["fake"], voters["real"], method=vote_of(question.method), k=k, temperature=temperature
        )
        if question.method not in METHODS:
            score = self._head_score(question.method, vectors, voters, temperature)
            result = replace(result, score=score, warnings=())
        return Answer(near, voters, result, float(typicality(voters["fake"], voters["real"])[0]))

    def _k(self, question: Question) -> int:
        return question.k or DEFAULT_K[vote_of(question.method)]

    def generator_densities(self, answer: Answer, question: Question) -> Float64:
        """How close an image lies to each generator of the fake bank, float64 (G,)."""
        banks = self.banks(question.projection)
        return generator_densities(
            answer.voters["fake"],
            n_names=len(banks.references("fake").names),
            k=ATTRIBUTION_K,
            temperature=banks.projection.temperature,
        )

    def attribution(
        self, question: Question, vectors: Mapping[str, Float32]
    ) -> tuple[list[str], Float64] | None:
        """See ``Head.attribution``; ``None`` for a vote, and for a head that tells no generators apart.

        ``vectors`` : layer → float32 (d,) or (n, d), as the network gave them.
        """
        if question.method in METHODS or (head := self.head(question.method)).members:
            return None
        return head.attribution({layer: as_stored(vectors[layer]) for layer in head.layers})

    def _head_score(
        self,
        name: str,
        vectors: Mapping[str, Float32],
        voters: Mapping[Label, BankNeighbours],
        temperature: float,
    ) -> float:
        head = self.head(name)
        if not head.members:
            given = {layer: as_stored(vectors[layer]) for layer in head.layers}
            return float(head.decision_function(given)[0])
        scores = {
            member: vote(
                voters["fake"], voters["real"], method=vote_of(member), temperature=temperature
            ).score
            if member in METHODS
            else self._head_score(member, vectors, voters, temperature)
            for member in head.members
        }
        given = {member: np.array([[score]], np.float32) for member, score in scores.items()}
        return float(head.decision_function(given)[0])


def as_stored(vectors: Float32) -> Float32:
    """Queries' vectors, float32 (d,) or (q, d), as heads are trained on them: rounded as stored, (q, d)."""
    codes, norms = normalise(np.atleast_2d(vectors))
    rounded = codes.astype(np.float32)
    stored: Float32 = rounded / np.linalg.norm(rounded, axis=1, keepdims=True) * norms[:, None]
    return stored


def _named(question: Question) -> str:
    """The options of ``rd fit calibration`` for a method."""
    return "" if question.method == Question().method else f" --method {question.method}"


def methods_of(snapshot: Snapshot) -> tuple[str, ...]:
    """Every method that images can be judged by: the votes, then heads."""
    heads = [f.name for f in snapshot.manifest.fitted if f.kind == "head" and f.method != QUALITY]
    return (*METHODS, *heads)


def load_head(snapshot: Snapshot, name: str) -> Head:
    """Read a head; ``UsageError`` if there is none, ``IndexCorrupt`` if its files are none."""
    record = snapshot.fitted("head", name)
    if record is None:
        raise UsageError(f"there is no head {name!r}", hint="See: rd head list")
    paths = {suffix: snapshot.fitted_path(record, suffix) for suffix in record.files}
    try:
        files = {suffix: snapshot.read(path) for suffix, path in paths.items()}
        head = read_head(files)
        fingerprint = json.loads(files["json"])["about"].get("fingerprint")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(next(iter(paths.values()))) from error
    if fingerprint and fingerprint != snapshot.manifest.encoder.fingerprint:
        raise EncoderMismatch(f"head {name!r} was trained for another encoder", hint="Train it: rd train")
    return head


# ---------------------------------------------------------------- calibrations


def calibration_name(method: str, projection: str) -> str:
    """What a calibration is called: its method, and its projection where that is not the plain one."""
    return method if projection == PLAIN else f"{method}--{projection}"


def read_calibration(snapshot: Snapshot, name: str) -> Calibration | None:
    """The calibration called ``name``, if there is one; ``IndexCorrupt`` if its file is none."""
    record = snapshot.fitted("calibration", name)
    if record is None:
        return None
    path = snapshot.fitted_path(record, "json")
    try:
        return Calibration.from_json(json.loads(snapshot.read(path)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path) from error


def calibrations(snapshot: Snapshot) -> list[Calibration]:
    """All calibrations of methods and projections that an index still has.

    Those through its default projection, and among them that of the default vote, come first.
    """
    fitted = snapshot.manifest.fitted
    projections = (PLAIN, *(f.name for f in fitted if f.kind == "projection"))
    names = [calibration_name(*pair) for pair in product(methods_of(snapshot), projections)]
    found = [read for name in names if (read := read_calibration(snapshot, name))]
    default = snapshot.manifest.projection
    return sorted(found, key=lambda c: (c.projection != default, c.method != Question().method, c.method))


def vote_of(method: str) -> Method:
    """The vote that gives the evidence of a method: itself, or the default."""
    return next((vote for vote in METHODS if vote == method), "density")
