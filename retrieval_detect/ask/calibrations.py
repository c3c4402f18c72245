"""What calibrations of an index, and such things, can be called, and what is missing for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval_detect.ask.fitted import PLAIN
from retrieval_detect.scoring.conformal import ALPHA, photographs_needed
from retrieval_detect.store.manifest import FITTED_NAME
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import FittedRecord
    from retrieval_detect.store.snapshot import Snapshot

LONGEST_NAME = 30
NAMES = f"Use lower-case letters, digits, '-' (never two) and '_', at most {LONGEST_NAME} characters."


def can_name(name: str) -> bool:
    """Whether a calibration can be named by it and another such name together."""
    return len(name) <= LONGEST_NAME and "--" not in name and bool(FITTED_NAME.fullmatch(name))


def calibration_name(method: str, projection: str) -> str:
    """What a calibration is called: its method, and its projection where that is not the plain one."""
    return method if projection == PLAIN else f"{method}--{projection}"


def method_of(name: str) -> str:
    """The method of a ``calibration_name``, of whole images or of regions."""
    return name.partition("--")[0]


def projection_of(name: str) -> str:
    """The projection of a ``calibration_name``, of whole images or of regions."""
    return name.partition("--")[2] or PLAIN


def in_force(snapshot: Snapshot, record: FittedRecord) -> bool:
    """Whether something is not of rates through a projection other than that of the banks."""
    rates = record.kind in ("calibration", "regions")
    return not rates or projection_of(record.name) == snapshot.manifest.projection


def too_few(snapshot: Snapshot, alpha: float = ALPHA) -> str:
    """How many images are set aside and how many a rate of ``alpha`` takes, in words; empty: enough are."""
    real, fake = (snapshot.manifest.live_rows(label, "calib") for label in LABELS)
    needed = photographs_needed(alpha)
    if min(real, fake) >= needed:
        return ""
    return (
        f"{real:,} photographs and {fake:,} fakes are set aside, a rate of {100 * alpha:.3g} % takes "
        f"{needed:,} of each (see rd doctor)"
    )
