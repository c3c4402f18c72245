"""Made-up images of several kinds: each kind is a direction, and its images scatter about it."""

from __future__ import annotations

import numpy as np

from tests.factories import D, digest, embedded


def kind(prefix, n, *, axis, pull=8.0):
    """n images about one axis; the cosine of two is about 2/3 where ``pull`` is 8, and 0 across axes."""
    made = []
    for i in range(n):
        rng = np.random.default_rng(int.from_bytes(digest(f"{prefix}-{i}")[:8], "big"))
        vector = rng.normal(size=D).astype(np.float32)
        vector[axis] += pull
        made.append(embedded(f"{prefix}-{i}", vector=vector))
    return made


def noise(prefix, n):
    """n images of no kind."""
    return kind(prefix, n, axis=0, pull=0.0)
