"""Calibrations of an index by name, and what such things can be called."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.fitted import PLAIN
from retrieval_detect.scoring.calibration import Calibration
from retrieval_detect.store.manifest import FITTED_NAME
from retrieval_detect.store.shards import damaged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.store.snapshot import Snapshot

    Float64 = NDArray[np.float64]


LONGEST_NAME = 30
NAMES = f"Use lower-case letters, digits, '-' (never two) and '_', at most {LONGEST_NAME} characters."


def can_name(name: str) -> bool:
    """Whether a calibration can be named by it and another such name together."""
    return len(name) <= LONGEST_NAME and "--" not in name and bool(FITTED_NAME.fullmatch(name))


def calibration_name(method: str, projection: str) -> str:
    """What a calibration is called: its method, and its projection where that is not the plain one."""
    return method if projection == PLAIN else f"{method}--{projection}"


def projection_of(name: str) -> str:
    """The projection of a ``calibration_name``, of whole images or of regions."""
    return name.partition("--")[2] or PLAIN


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
