"""Numbers that look random and are the same on every machine and under every numpy, for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from retrieval_detect.types import UInt64


def scattered(seed: int, *shape: int) -> UInt64:
    """uint64 array of ``shape``, uniform, by SplitMix64 (Steele, Lea and Flood 2014, figure 17).

    numpy's own generators may change their streams between releases; this is integer arithmetic.
    """
    count = int(np.prod(shape))
    z = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).reshape(shape)
