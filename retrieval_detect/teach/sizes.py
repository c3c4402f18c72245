"""What an index is large enough for, and how many references are missing for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_detect.scoring.answers import TYPICAL
from retrieval_detect.scoring.calibration import FEWEST_SOURCES
from retrieval_detect.scoring.conformal import MIN_GENERATOR, photographs_needed
from retrieval_detect.store.groups import MIN_GROUPS
from retrieval_detect.teach.again import CENTRED_FROM, FEWEST, default_reads
from retrieval_detect.teach.measure import MIN_PHOTOGRAPHS
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retrieval_detect.store.manifest import Manifest

PROJECTION = "the projection of a new index"
RATES, NEW_RATES = (0.1, 0.05, 0.01), (0.2, 0.1, 0.05)
"""Rates of false alarms that are told: among photographs of known, and of new sources."""
ASIDE = f"a fifth of each source and generator with {MIN_GROUPS} images or more is set aside"


@dataclass(frozen=True, slots=True)
class Size:
    """Something that an index can do from a number of references on.

    ``what`` it can do, as a noun; it takes ``needed`` of what ``of`` names, and ``there`` are so many.
    """

    what: str
    there: int
    needed: int
    of: str

    @property
    def reached(self) -> bool:
        """Whether there are as many as it takes."""
        return self.there >= self.needed


def sizes(manifest: Manifest) -> Iterator[Size]:
    """What an index can do by the number of its references, the least demanding first."""
    bank = _smaller_bank(manifest)
    yield Size("a vote, with the references that say so", bank[0], 1, bank[1])
    if "proj" not in default_reads(manifest.encoder, manifest.layers)[0]:
        yield Size("search inside the encoder", bank[0], CENTRED_FROM, bank[1])
    n_sources, n_generators = (len(manifest.names(label)) for label in ("real", "fake"))
    if bank[0] >= FEWEST and n_sources < 2:
        yield Size(PROJECTION, n_sources, 2, "sources of photographs")
    else:
        yield Size(PROJECTION, bank[0], FEWEST, bank[1])
    photographs, fakes = (manifest.live_rows(label, "calib") for label in ("real", "fake"))
    yield Size("telling fakes from what fits neither bank", fakes, MIN_GENERATOR, "fakes set aside")
    for rate in RATES:
        what = f"a rate of false alarms of {100 * rate:g} %"
        yield Size(what, photographs, photographs_needed(rate), "photographs set aside")
    every = photographs + fakes
    what, needed = "noticing an image that is unlike all references", photographs_needed(TYPICAL)
    yield Size(what, every, needed, "images set aside")
    what = "additions measured before they are kept"
    yield Size(what, photographs, MIN_PHOTOGRAPHS, "photographs set aside")
    own = sum(s.label == "fake" and s.calib >= MIN_GENERATOR for s in manifest.strata)
    yield Size(
        "a p-value of each generator's own",
        own,
        max(1, n_generators),
        f"generators with {MIN_GENERATOR} images set aside",
    )
    yield Size("noticing that nothing comparable is there", n_sources, 2, "sources of photographs")
    yield Size("a calibration that is not provisional", n_sources, FEWEST_SOURCES, "sources of photographs")
    for rate in NEW_RATES:
        what = f"{100 * rate:g} % for photographs of new sources"
        yield Size(what, n_sources, photographs_needed(rate), "sources of photographs")


def _smaller_bank(manifest: Manifest) -> tuple[int, str]:
    """How many references it has, and what they are."""
    names = {"real": "photographs in the bank", "fake": "fakes in the bank"}
    counts = {label: manifest.live_rows(label, "bank") for label in LABELS}
    label = min(counts, key=lambda label: counts[label])
    return counts[label], names[label]
