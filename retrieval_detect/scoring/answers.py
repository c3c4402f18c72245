"""p-values → one of the four answers, why it is this one, and which photographs its promise covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_detect.scoring.conformal import ALPHA, BETA

if TYPE_CHECKING:
    from retrieval_detect.verdicts import Reach, Reason, VerdictName

TYPICAL = 0.01
"""Below this share of typical images, an image is like neither bank: unknown."""


@dataclass(frozen=True, slots=True)
class PValues:
    """Of one image, each 0…1.

    ``real`` : among photographs of known sources. ``new`` : among those of new sources; ``None`` where
    that was not measured. ``fake`` : among fakes of the best-fitting known generator. ``typical`` : among
    images of either bank. See design §9.
    """

    real: float
    new: float | None
    fake: float
    typical: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of one image. ``reach`` : the photographs among which such a score is rare, if any."""

    verdict: VerdictName
    reason: Reason
    reach: Reach | None = None


UNCALIBRATED = Answer("unknown", "uncalibrated")


def answer(
    p: PValues,
    *,
    alpha: float = ALPHA,
    alpha_new: float | None = None,
    beta: float = BETA,
    known: bool = False,
    covered: bool = True,
) -> Answer:
    """The four answers of design §9.

    ``alpha`` : the share of photographs that may be called fake-like; ``alpha_new`` : of photographs of new
    sources, the same by default. ``known`` : whether the user says that the image is of a known source; else
    it is called fake-like only where that is rare among photographs of new sources as well, so that nobody is
    accused by a promise that does not cover them. ``covered`` : whether the real bank holds photographs of
    its kind; where it does not, no score says anything of it, unless it is said to be of a kind that is
    there. P(fake-like | a photograph that the promise is about) is at most alpha; for new sources, on average
    over sources, as observed (``NewSources.p``).
    """
    if p.typical <= TYPICAL:
        return Answer("unknown", "untypical")
    if not (covered or known):
        return Answer("unknown", "nothing-comparable")
    rare, fits_fake = p.real <= alpha, p.fake > beta
    if not rare:
        return Answer("uncertain", "fits-both") if fits_fake else Answer("real-like", "fits-photographs")
    rare_if_new = p.new is not None and p.new <= (alpha if alpha_new is None else alpha_new)
    reach: Reach = "new sources" if rare_if_new else "known sources"
    if not fits_fake:
        return Answer("unknown", "fits-neither", reach)
    if known or rare_if_new:
        return Answer("fake-like", "rare-among-photographs", reach)
    return Answer("uncertain", "fake-like-if-known-source", reach)
