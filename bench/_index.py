"""Indexes made from vectors at hand, and what their votes say: the store and the banks of rd itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.methods import asked_about
from retrieval_detect.scoring.vote import vote
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench._data import Sample
    from retrieval_detect.types import EncoderSpec, Float32, Method

    Scores = NDArray[np.float64]

_WANTED = 200
"""The largest k of any vote: one search serves them all."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """What an empty index of an encoder starts from."""

    spec: EncoderSpec
    canaries: Mapping[str, Float32]

    def create(self, folder: Path, samples: Sequence[Sample]) -> Store:
        """A new index that holds ``samples``."""
        store = Store.create(folder, self.spec, canaries=self.canaries)
        teach(store, samples)
        return store


def teach(store: Store, samples: Sequence[Sample]) -> None:
    """Commit ``samples`` as one addition: what ``rd bank add`` does once images are embedded."""
    unique = {sample.embedded.content_id: sample for sample in samples}
    with store.writer() as writer:
        staging = writer.staging()
        staging.add(sample.embedded for sample in unique.values())
        rows = [NewRow(identity, str(s.path), s.facts) for identity, s in unique.items()]
        writer.add(Addition(rows), staging)


def votes_of(
    folder: Path, queries: Sequence[Sample], votes: Mapping[str, tuple[Method, int]]
) -> dict[str, Scores]:
    """Each vote's score for each query, float64 (q,), positive = fake.

    Same-image exclusion, groups and weights are those of ``Detector``, and the first query is held
    against what ``Detector`` answers.
    """
    detector = Detector.load(folder)
    asked = asked_about([query.embedded for query in queries], detector.methods.layers(Question()))
    near = detector.banks.nearest(asked, wanted=_WANTED).voters
    temperature = detector.banks.projection.temperature
    scores = {
        name: vote(near["fake"], near["real"], method=method, k=k, temperature=temperature).scores
        for name, (method, k) in votes.items()
    }
    for name, (method, k) in votes.items():
        answer = detector.judge(queries[0].embedded, method=method, k=k).score
        if answer != scores[name][0]:
            raise AssertionError(f"{name} is scored {scores[name][0]} here and {answer} by rd itself")
    return scores
