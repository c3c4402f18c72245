"""Many images asked about at once: the scores of ``Methods.ask``, a block at a time, or its answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import VectorError
from retrieval_detect.methods import ATTRIBUTION_K, as_stored, vote_of
from retrieval_detect.scoring.attribution import top_names
from retrieval_detect.scoring.vote import DEFAULT_K, scores, typicality_of
from retrieval_detect.search.bulk import BulkBanks
from retrieval_detect.types import LABELS, METHODS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.methods import Answer, Methods
    from retrieval_detect.scoring.neighbours import NearestImages
    from retrieval_detect.search.banks import Near
    from retrieval_detect.search.bulk import Asked
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Embedded, Float32, Int64, Label
    from retrieval_detect.verdicts import Question

    Float64 = NDArray[np.float64]
    _Found = tuple[list[tuple[int, int]], Mapping[Label, Near]]
    """Rows of an image's own bytes, (row id, group), and its neighbours."""


@dataclass(frozen=True, slots=True, eq=False)
class BulkAnswers:
    """What the index says of q images.

    ``voted`` : bool (q,), whether each bank has somebody to vote; all else is of those alone, (m,):
    ``scores`` : float64, positive = fake. ``typical`` : float64, see ``methods.Answer``. ``nearest`` : bank
    → float64, the highest similarity. ``generators`` : int64, the generator of the largest
    share, codes into ``names``. ``missing`` : the bank without voters, for each that did not vote.
    """

    voted: Bool
    scores: Float64
    typical: Float64
    nearest: Mapping[Label, Float64]
    generators: Int64
    names: tuple[str, ...]
    missing: tuple[Label, ...]


class BulkMethods:
    """Asks one ``checked`` question about blocks of images, with the outcome of ``Methods.ask``."""

    def __init__(self, methods: Methods, question: Question) -> None:
        self._methods = methods
        self._question = question
        self._banks = methods.banks(question.projection)
        self._bulk = BulkBanks(self._banks)
        self._vote = vote_of(question.method)
        self._k = question.k or DEFAULT_K[self._vote]

    def ask(self, asked: Asked) -> BulkAnswers:
        """Ask about a block. Its vectors have at least the layers of ``Methods.layers``."""
        wanted = max(self._k, ATTRIBUTION_K)
        near = self._bulk.nearest(asked, wanted=wanted, own_groups=self._own_groups(asked))
        voted = (near["fake"].n > 0) & (near["real"].n > 0)
        missing: tuple[Label, ...] = tuple("fake" if n == 0 else "real" for n in near["fake"].n[~voted])
        vectors = asked.vectors
        if missing:
            near = {label: bank.take(voted) for label, bank in near.items()}
            vectors = {layer: x[voted] for layer, x in vectors.items()}
        names, generators = self._attributed(vectors, near["fake"])
        return BulkAnswers(
            voted,
            self._scores(self._question.method, self._k, vectors, near),
            typicality_of(near["fake"], near["real"]),
            {label: near[label].similarities[:, 0] for label in LABELS},
            generators,
            names,
            missing,
        )

    def _attributed(
        self, vectors: Mapping[str, Float32], fakes: NearestImages
    ) -> tuple[tuple[str, ...], Int64]:
        """What ``Detector`` names first: by a head that tells generators apart, or by the nearest fakes."""
        if len(fakes.n) and (told := self._methods.attribution(self._question, vectors)):
            by_name = np.argsort(np.array(told[0]))
            return tuple(told[0]), by_name[told[1][:, by_name].argmax(axis=1)]
        names, temperature = self._banks.references("fake").names, self._banks.projection.temperature
        return names, top_names(fakes.first(ATTRIBUTION_K), names=names, temperature=temperature)

    def _scores(
        self, method: str, k: int, vectors: Mapping[str, Float32], near: Mapping[Label, NearestImages]
    ) -> Float64:
        if method in METHODS:
            n_fake, n_real = (self._banks.references(label).n_images for label in ("fake", "real"))
            return scores(
                near["fake"],
                near["real"],
                method=vote_of(method),
                k=k,
                temperature=self._banks.projection.temperature,
                n_banks=(n_fake, n_real),
            )
        head = self._methods.head(method)
        if not head.members:
            return head.decision_function({layer: as_stored(vectors[layer]) for layer in head.layers})
        given = {
            member: self._scores(member, DEFAULT_K[vote_of(member)], vectors, near).astype(np.float32)[
                :, None
            ]
            for member in head.members
        }
        return head.decision_function(given)

    def _own_groups(self, asked: Asked) -> dict[int, set[int]]:
        """Groups of the live rows of each image's own bytes, in either split."""
        groups: dict[int, set[int]] = {}
        for position, _, group in stored_copies(self._methods.snapshot, asked.content_ids):
            groups.setdefault(position, set()).add(group)
        return groups


class Together:
    """A ``checked`` question, and images that share one search, made when the first of them is asked about.

    Each gets what it would alone; so does an image that is not among them. For one thread at a time.
    """

    def __init__(self, methods: Methods, question: Question, images: Sequence[Embedded] = ()) -> None:
        self.question = question
        self._methods, self._images = methods, images

    def ask(self, image: Embedded) -> tuple[list[tuple[int, int]], Answer]:
        """(row id, group) of every live row of the image's own bytes, and what ``Methods.ask`` gives."""
        copies, near = self._shared.get(id(image)) or self._search([image])[0]
        return copies, self._methods.answer(near, image.vectors, self.question)

    @cached_property
    def _shared(self) -> dict[int, _Found]:
        if len(self._images) < 2:
            return {}
        try:
            return dict(zip(map(id, self._images), self._search(self._images), strict=True))
        except VectorError:  # one of them is nothing once projected; it costs no other its answer
            return {}

    def _search(self, images: Sequence[Embedded]) -> list[_Found]:
        copies: list[list[tuple[int, int]]] = [[] for _ in images]
        for i, row_id, group in stored_copies(self._methods.snapshot, [image.content_id for image in images]):
            copies[i].append((row_id, group))
        asked = [
            (image, image.vectors, {group for _, group in own})
            for image, own in zip(images, copies, strict=True)
        ]
        return list(zip(copies, self._methods.nearest_of_each(asked, self.question), strict=True))


def stored_copies(snapshot: Snapshot, content_ids: Sequence[bytes]) -> Iterator[tuple[int, int, int]]:
    """(index into ``content_ids``, row id, group) of every live row of those bytes, in either split."""
    hits = snapshot.find(content_ids)
    rows = snapshot.take([row_id for _, row_id, _, _ in hits], ["group"]) if hits else []
    for (i, *_), row in zip(hits, rows, strict=True):
        yield i, row["row_id"], row["group"]
