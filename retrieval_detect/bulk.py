"""Many stored embeddings asked about at once: the scores of ``Methods.ask``, a block at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.methods import ATTRIBUTION_K, as_stored, vote_of
from retrieval_detect.scoring.attribution import top_names
from retrieval_detect.scoring.vote import DEFAULT_K, scores, typicality_of
from retrieval_detect.search.bulk import BulkBanks
from retrieval_detect.types import LABELS, METHODS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.methods import Methods
    from retrieval_detect.scoring.neighbours import NearestImages
    from retrieval_detect.search.bulk import Asked
    from retrieval_detect.types import Bool, Float32, Int64, Label
    from retrieval_detect.verdicts import Question

    Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BulkAnswers:
    """What the index says of q images.

    ``voted`` : bool (q,), whether each bank has somebody to vote; all else is of those alone, (m,):
    ``scores`` : float64, positive = fake. ``typical`` : float64, see ``methods.Answer``. ``nearest`` : bank
    → float64, the highest similarity. ``generators`` : int64, the nearest fakes' generator of the largest
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
        names = self._banks.references("fake").names
        temperature = self._banks.projection.temperature
        return BulkAnswers(
            voted,
            self._scores(self._question.method, self._k, vectors, near),
            typicality_of(near["fake"], near["real"]),
            {label: near[label].similarities[:, 0] for label in LABELS},
            top_names(near["fake"].first(ATTRIBUTION_K), names=names, temperature=temperature),
            names,
            missing,
        )

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
        snapshot = self._methods.snapshot
        hits = snapshot.find(asked.content_ids)
        rows = snapshot.take([row_id for _, row_id, _, _ in hits], ["group"]) if hits else []
        groups: dict[int, set[int]] = {}
        for (position, *_), row in zip(hits, rows, strict=True):
            groups.setdefault(position, set()).add(row["group"])
        return groups
