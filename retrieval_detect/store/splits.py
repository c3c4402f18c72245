"""Bank or calibration: decided once for each group, by its hash, never by chance or order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from retrieval_detect.types import Label, Split

StratumKey: TypeAlias = "tuple[Label, str]"
"""(label, generator of a fake or source of a photograph)."""

CALIB_ONE_IN = 5
MIN_GROUPS = 25
"""Strata with fewer groups give all of them to the bank: a fifth of so few measures nothing."""


def assign_splits(
    strata: Sequence[StratumKey], keys: Sequence[bytes], existing: Mapping[StratumKey, int]
) -> list[Split]:
    """The split of each new group.

    Parameters
    ----------
    strata : of each new group.
    keys : of each new group, any bytes that name it; equal keys get equal splits in every index.
    existing : groups that each stratum has had so far.
    """
    totals = Counter(existing)
    totals.update(strata)
    return [
        "calib" if totals[stratum] >= MIN_GROUPS and _hash(key) % CALIB_ONE_IN == 0 else "bank"
        for stratum, key in zip(strata, keys, strict=True)
    ]


def _hash(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(b"retrieval-detect/split\0" + key).digest()[:8], "big")
