"""One image asked of both banks: who its neighbours are, how they vote, how like any reference it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_detect.scoring.vote import DEFAULT_K, typicality, vote

if TYPE_CHECKING:
    from retrieval_detect.scoring.neighbours import BankNeighbours
    from retrieval_detect.scoring.vote import VoteResult
    from retrieval_detect.search.banks import Banks, Near
    from retrieval_detect.types import Embedded, Float32, Label, Probe, Question

ATTRIBUTION_K = DEFAULT_K["density"]
"""Attribution is a share of the default vote's density, whatever vote was asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the banks say. ``typical`` : the larger of the mean similarities to either bank."""

    near: Mapping[Label, Near]
    voters: Mapping[Label, BankNeighbours]
    result: VoteResult
    typical: float


def ask(
    banks: Banks, image: Embedded | Probe, vector: Float32, *, question: Question, own_groups: set[int]
) -> Answer:
    """Ask about one image.

    ``vector`` : float32 (d,), any norm, of the layer the banks search. ``own_groups`` : groups that are
    known to hold the image itself; their references do not vote. Calibration rows and queries take this
    same way, so that their scores can be compared.
    """
    k = question.k or DEFAULT_K[question.method]
    near = banks.nearest(image, vector[None, :], wanted=max(k, ATTRIBUTION_K), own_groups=own_groups)
    voters = banks.voters(near)
    result = vote(voters["fake"], voters["real"], method=question.method, k=k)
    return Answer(near, voters, result, float(typicality(voters["fake"], voters["real"])[0]))
