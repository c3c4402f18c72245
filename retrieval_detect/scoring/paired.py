"""Two answers about the same images, before and after: how much changed, and whether it is more than chance.

Of n images, ``gained`` are flagged after and were not before, ``lost`` were flagged before and are not after.
"""

from __future__ import annotations

import math

_BEYOND = 0.005
"""Chance that the share of images that change lies below what a test takes for its least."""


def rise_p(gained: int, lost: int, n: int, *, allowed: float = 0.0) -> float:
    """p-value, 0…1, of "the flagged share rises by ``allowed`` at most" (0…1) over images such as these n.

    Exact and one-sided: of the images that change, a share 1/2 + d/2c goes up, where c is the share that
    changes and d the rise. Without ``allowed`` that is 1/2 (McNemar 1947, "Note on the sampling error of the
    difference between correlated proportions or percentages"). Else c is taken for the least that it can be
    by Clopper and Pearson's limit, which is where the most go up by themselves, and the chance that it is
    less yet is added (Berger and Boos 1994, "P values maximized over a confidence set for the nuisance
    parameter"). So it is never too sure, however few images there are.
    """
    from scipy.stats import binomtest

    changed = gained + lost
    if gained - lost <= allowed * n:
        return 1.0
    if not allowed:
        return float(binomtest(gained, changed, 0.5, alternative="greater").pvalue)
    least = binomtest(changed, n, alternative="greater").proportion_ci(1 - _BEYOND).low
    up = min(1.0, 0.5 + allowed / (2 * least))
    return min(1.0, float(binomtest(gained, changed, up, alternative="greater").pvalue) + _BEYOND)


def rise_interval(gained: int, lost: int, before: int, n: int) -> tuple[float, float]:
    """95 % interval of the rise in the flagged share, -1…1, n >= 1; it always has a width.

    ``before`` : how many are flagged before. Newcombe 1998, "Improved confidence intervals for the
    difference between binomial proportions based on paired data", method 10: Wilson's limits of both
    shares, with the correlation of the pairs between them.
    """
    from scipy.stats import binomtest

    after = before + gained - lost
    both, neither = before - lost, n - before - gained
    old, new = before / n, after / n
    (old_low, old_high), (new_low, new_high) = (
        binomtest(count, n).proportion_ci(0.95, method="wilson") for count in (before, after)
    )
    excess = both * neither - gained * lost
    spread = math.sqrt(after * (n - after) * before * (n - before))
    correlation = (max(excess - n / 2, 0) if excess > 0 else excess) / spread if spread else 0.0
    below = _side(new - new_low, old_high - old, correlation)
    above = _side(new_high - new, old - old_low, correlation)
    return max(-1.0, new - old - below), min(1.0, new - old + above)


def _side(new: float, old: float, correlation: float) -> float:
    return math.sqrt(max(new * new - 2 * correlation * new * old + old * old, 0.0))
