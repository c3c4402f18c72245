"""What is said of an image with photographs laid beside it that are known to be authentic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.scoring.answers import TYPICAL, Answer
from retrieval_detect.scoring.conformal import BETA, at_least

if TYPE_CHECKING:
    from retrieval_detect.scoring.answers import PValues
    from retrieval_detect.types import Float64, Int64


def scene_p(score: float, pictures: Float64, scenes: Int64) -> float:
    """(1 + number of scenes that score as high) / (m + 1), 0…1.

    ``score`` : of the image, ``pictures`` : float64 (n,), theirs, all positive = fake and each asked with
    its own scene out of the bank and all others, the image among them, in it. ``scenes`` : int64 (n,),
    0…m - 1. So the image is treated as every scene is, and where each scene is one picture and the image is
    exchangeable with them, P(p <= a) <= a in finite samples: full conformal prediction (Vovk, Gammerman
    and Shafer 2005, "Algorithmic learning in a random world", §2.2).

    Of several pictures of a scene the highest score stands for it: p is then as large as for any of them or
    larger, so that no choice among them can make an accusation.
    """
    highest = np.full(int(scenes.max()) + 1, -np.inf)
    np.maximum.at(highest, scenes, pictures)
    return float(at_least(np.sort(highest), score))


def answer_beside(
    without: Answer, p: PValues, p_scenes: float | None, *, alpha: float, clears_fakes: bool
) -> Answer:
    """What is said with the pictures in the bank.

    ``without`` : what is said without them. ``p`` : by calibration rows asked anew with them in the bank.
    ``p_scenes`` : see ``scene_p``; ``None`` where the scenes are too few for ``alpha``. ``clears_fakes`` :
    whether known fakes lose their verdict by the same pictures.

    With few scenes an accusation may be withdrawn, nothing else. With enough, one is made only where the
    score is rare both among the scenes and among photographs of known sources: pictures that are unlike the
    image, blank ones, say, must not make it stand out. Nothing ever becomes real-like by pictures that would
    clear known fakes as well.
    """
    if without.reason == "uncalibrated":
        return without
    if p_scenes is None:
        accused = without.verdict == "fake-like" or without.reason == "fake-like-if-known-source"
        return Answer("uncertain", "fits-beside") if accused and p.real > alpha else without
    return _by_scenes(p, p_scenes, alpha, clears_fakes)


def _by_scenes(p: PValues, p_scenes: float, alpha: float, clears_fakes: bool) -> Answer:
    if p.typical <= TYPICAL:
        return Answer("unknown", "untypical")
    rare, fits_fake = p_scenes <= alpha, p.fake > BETA
    if rare and p.real <= alpha:
        return Answer("fake-like", "rare-beside") if fits_fake else Answer("unknown", "fits-neither")
    if rare or fits_fake:
        return Answer("uncertain", "fits-both" if rare else "fits-beside")
    return (
        Answer("uncertain", "clears-known-fakes") if clears_fakes else Answer("real-like", "fits-photographs")
    )
