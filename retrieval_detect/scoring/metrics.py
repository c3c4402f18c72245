"""How well scores tell fakes from photographs. Scores: positive = fake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def auc(scores_fake: ArrayLike, scores_real: ArrayLike) -> float:
    """Chance that a fake scores above a photograph, ties counted half (Mann–Whitney), 0…1.

    ``scores_fake`` : (n,) and ``scores_real`` : (m,), finite, any order. Exact: counted in integers.
    """
    fake, real = _checked(scores_fake, scores_real)
    below = np.searchsorted(real, fake, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(real, fake, side="right").sum(dtype=np.int64)
    return float(below + not_above) / (2 * len(fake) * len(real))


def recall_at_fpr(scores_fake: ArrayLike, scores_real: ArrayLike, *, fpr: float) -> float:
    """Share of fakes found by the lowest threshold that flags at most ``fpr`` of the photographs.

    ``scores_fake`` : (n,) and ``scores_real`` : (m,), finite, any order. What scores above the
    threshold is flagged; what equals it is not.
    """
    if not 0 <= fpr <= 1:
        raise UsageError(f"a false-positive rate of {fpr} is not between 0 and 1")
    fake, real = _checked(scores_fake, scores_real)
    # 0.29 * 100 is 28.999999999999996.
    allowed = int(fpr * len(real) + 1e-9)
    if allowed >= len(real):
        return 1.0
    return float((fake > real[-1 - allowed]).mean())


def _checked(scores_fake: ArrayLike, scores_real: ArrayLike) -> tuple[Any, Any]:
    arrays = [np.sort(np.asarray(scores, np.float64).ravel()) for scores in (scores_fake, scores_real)]
    for label, scores in zip(("fake", "real"), arrays, strict=True):
        if not scores.size:
            raise UsageError(f"there are no {label} scores to measure")
        if not np.isfinite(scores).all():
            raise UsageError(f"a {label} score is not a number")
    return arrays[0], arrays[1]
