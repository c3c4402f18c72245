"""When training stops: by rows set aside, other images and as far as there are several other generators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.likelihood import cllr, fit_likelihood_ratio

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from retrieval_detect.heads.base import Progress
    from retrieval_detect.types import Bool, Float64
    from retrieval_detect.vectors import Rows

SHARE = 0.2


def split_for_stopping(rows: Rows, *, seed: int, share: float = SHARE) -> tuple[Bool, Bool]:
    """(fit, stop) : bool (n,) each, disjoint by group, and by generator and source where there are several.

    Whole generators and whole sources go to ``stop``, about ``share`` of each label. A label with a single
    name is cut by group instead. A group that has rows on both sides is in neither. Each label keeps
    rows on both sides wherever it has two groups.
    """
    rng = np.random.default_rng(seed)
    stop = np.zeros(len(rows), bool)
    for label in (False, True):
        members = np.flatnonzero(rows.fake == label)
        units = rows.names[members]
        if len(np.unique(units)) < 2:
            units = rows.groups[members].astype(str)
        stop[members] = np.isin(units, _drawn(units, rng, share))
    torn = np.intersect1d(rows.groups[stop], rows.groups[~stop])
    whole = ~np.isin(rows.groups, torn)
    return ~stop & whole, stop & whole


def parted(rows: Rows, *, seed: int) -> tuple[Bool, Bool] | None:
    """``split_for_stopping``, or ``None`` where one side would lack a label."""
    parts = split_for_stopping(rows, seed=seed)
    return parts if all(len(np.unique(rows.fake[part])) == 2 for part in parts) else None


def train_to_the_best(
    parameters: Mapping[str, Tensor],
    train: Callable[[], float],
    held_out: Callable[[], float] | None,
    *,
    epochs: int,
    patience: int,
    progress: Progress,
) -> dict[str, Any]:
    """Leave ``parameters`` as they were after the epoch with the least loss on the rows set aside.

    ``train`` : one epoch, gives its loss. ``held_out`` : the loss on rows set aside, till it has not fallen
    for ``patience`` epochs; without it, the last of ``epochs`` is kept. Returns what heads keep as facts.
    """
    losses: list[float] = []
    aside: list[float] = []
    best: dict[str, Tensor] = {}
    for epoch in range(epochs):
        losses.append(finite(train(), epoch))
        aside.append(held_out() if held_out else 0.0)
        progress(f"epoch {epoch + 1}: loss {losses[-1]:.4f}, held out {aside[-1]:.4f}")
        since = epoch - _last_least(aside) if held_out else 0
        if since == 0:
            best = {name: value.detach().clone() for name, value in parameters.items()}
        elif since >= patience:
            break
    for name, value in parameters.items():
        value.data.copy_(best[name])
    chosen = _last_least(aside) + 1 if held_out else len(losses)
    return {"epochs_run": len(losses), "epoch": chosen, "losses": losses, "held_out": aside}


def _last_least(losses: list[float]) -> int:
    """Position of the least loss; of several that are equal the last, which has learnt most."""
    return len(losses) - 1 - int(np.argmin(losses[::-1]))


def recalibrated_loss(scores: Float64, fake: Bool) -> float:
    """Bits that scores of rows set aside lose once recalibrated, labels alike; NaN where a score is none.

    On a generator that is not learnt from, the plain loss rises from the first epoch, and accuracy at 0 is
    chance, however well scores rank; and rd calibrates later anyway (Berta et al. 2025, "Rethinking Early
    Stopping").
    """
    if not np.isfinite(scores).all():
        return math.nan
    scores = scores - scores.mean()
    fakes, reals = scores[fake], scores[~fake]
    ratio = fit_likelihood_ratio(fakes, reals)
    return cllr(ratio(fakes), ratio(reals))


def descend(optimizer: Optimizer, loss: Tensor) -> float:
    """One step down the gradient of a loss; what it was before."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def finite(loss: float, epoch: int) -> float:
    """The loss after an epoch, counted from 0; a ``UsageError`` where training has diverged."""
    if not math.isfinite(loss):
        raise UsageError(
            f"training diverged: the loss is not finite after epoch {epoch + 1}",
            hint="Train at a lower rate: --set lr=RATE",
        )
    return loss


def _drawn(units: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Units, in random order, that together have about ``share`` of the rows: at least one, never all."""
    found, counts = np.unique(units, return_counts=True)
    order = rng.permutation(len(found))
    below = np.cumsum(counts[order]) <= share * len(units)
    taken = order[: max(1, int(below.sum()))]
    return found[taken] if len(found) > 1 else found[:0]
