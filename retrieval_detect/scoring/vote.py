"""Neighbours → score. Every rule compares the two banks; positive = fake, exactly 0 is no fake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import EmptyBank, UsageError

if TYPE_CHECKING:
    from retrieval_detect.scoring.neighbours import NearestImages
    from retrieval_detect.types import Float64, Int64, Label, Method

TEMPERATURE = 0.2
"""T of design §9."""

DEFAULT_K: Mapping[Method, int] = {"density": 200, "nearest": 1, "mean": 9, "majority": 9}
"""9 has the best accuracy of the k that Ojha, Li and Lee 2023 report."""

REDEFINED: Mapping[str, str] = {"density": "equal-share"}
"""Votes that once meant something else, and what their scores are of now: older ones cannot be compared."""

_TIE = 1e-6
"""Below any difference that one neighbour more or less makes to a majority."""


@dataclass(frozen=True, slots=True, eq=False)
class VoteResult:
    """The outcome for q queries.

    ``scores`` : float64 (q,), positive = fake. ``k`` : int64 (q,), images looked at, in the bank that gave
    more (by ``mean`` in the one that gave less, by ``majority`` in both together).
    """

    scores: Float64
    k: Int64


def vote(
    fake: NearestImages,
    real: NearestImages,
    *,
    method: Method = "density",
    k: int | None = None,
    temperature: float = TEMPERATURE,
) -> VoteResult:
    """The votes on q queries.

    Give each bank's k nearest images or more, or all it has: a vote counts what it is given. With s a
    similarity and w a weight:

    - ``density`` : D = logsumexp(s/T + log w) of the nearest, fake less real, over the same share of
      both banks' weight: see ``densities``.
    - ``nearest`` : largest s, fake less real; its sign is the nearest-neighbour rule of Ojha, Li and Lee
      2023, "Towards universal fake image detectors that generalize across generative models".
    - ``mean`` : mean s of the k nearest, fake less real; the same k in both, since a mean over fewer is
      higher.
    - ``majority`` : share of each bank among the k nearest of both, fake part less one half; ties go by
      ``mean``.

    A bank with fewer than k images votes with what it has (see ``few``). One with none for some query is
    an ``EmptyBank`` error.
    """
    k = DEFAULT_K[method] if k is None else k
    if k < 1:
        raise UsageError(f"k is {k}", hint="ask for at least one neighbour")
    if method == "nearest" and k != 1:
        raise UsageError(f"the nearest vote counts one neighbour, not {k}", hint="use the mean vote for more")
    if not temperature > 0:
        raise UsageError(f"a temperature of {temperature} is not positive")
    fake, real = fake.first(k), real.first(k)
    if not (fake.n.all() and real.n.all()):
        raise nobody_left("real" if fake.n.all() else "fake")
    if method == "density":
        d_fake, d_real = densities(fake, real, temperature)
        return VoteResult(d_fake - d_real, np.maximum(fake.n, real.n))
    both = np.minimum(fake.n, real.n)
    mean_fake, mean_real = _mean(fake, both), _mean(real, both)
    if method == "majority":
        n_fake, n_real = merged_counts(fake, real, k)
        d_fake, d_real = n_fake / fake.n_bank, n_real / real.n_bank
        # (a - b) / 2(a + b) = a/(a + b) - 1/2, and changes its sign exactly when the banks change places.
        share = (d_fake - d_real) / (2 * (d_fake + d_real))
        return VoteResult(share + _TIE * np.tanh(mean_fake - mean_real), n_fake + n_real)
    return VoteResult(mean_fake - mean_real, both)


def few(near: Mapping[Label, NearestImages], query: int, *, method: Method, k: int) -> tuple[str, ...]:
    """What to say where banks had fewer than k images to vote on a query; ``density`` allows for that."""
    found = {label: int(near[label].n[query]) for label in ("fake", "real")}
    return tuple(
        f"k is {k}, but only {n} images of the {label} bank can vote"
        for label, n in found.items()
        if n < k and method != "density"
    )


def typicality(fake: NearestImages, real: NearestImages) -> Float64:
    """A of design §9: the larger of the mean similarities to the 9 nearest of each bank. float64 (q,)."""
    means = [_mean(near, near.n) for near in (bank.first(DEFAULT_K["mean"]) for bank in (fake, real))]
    larger: Float64 = np.maximum(*means)
    return larger


def densities(
    fake: NearestImages, real: NearestImages, temperature: float = TEMPERATURE
) -> tuple[Float64, Float64]:
    """D_fake and D_real, float64 (q,): logsumexp of s/T + log w over the nearest images of each bank.

    A bank's weights sum to one. Both banks count the same share of that: what is found of the one that
    gave less, for k nearest are much of a small bank and little of a large one. The last image to
    be counted is counted in part. With k of each instead, D of a large bank is too low
    by up to log(n/k), and every photograph would score above 0 while there are few fakes (docs/methods.md).

    Hall, Watson and Cabrera 1987, "Kernel density estimation with spherical data"; the share is rd's own.
    """
    upto_fake, upto_real = _weight_upto(fake), _weight_upto(real)
    share = np.minimum(upto_fake[:, -1:], upto_real[:, -1:])
    return _density(fake, upto_fake, share, temperature), _density(real, upto_real, share, temperature)


def _weight_upto(near: NearestImages) -> Float64:
    """What each image and all that are nearer weigh together, float64 (q, k), ascending."""
    weights = np.where(near.similarities > -np.inf, np.exp(near.log_weights), 0.0)
    return np.cumsum(weights, axis=1, out=weights)


def _density(near: NearestImages, upto: Float64, share: Float64, temperature: float) -> Float64:
    """D over the nearest that weigh ``share`` together, float64 (q, 1); overwrites ``upto``."""
    counted = np.diff(np.minimum(upto, share, out=upto), axis=1, prepend=0.0)
    nearest = near.similarities[:, 0] / temperature
    terms = near.similarities / temperature
    terms -= nearest[:, None]
    np.exp(terms, out=terms)
    terms *= counted
    # A running sum: how sum() adds up depends on the room past the end.
    total: Float64 = nearest + np.log(np.cumsum(terms, axis=1, out=terms)[:, -1])
    return total


def _mean(near: NearestImages, k: Int64) -> Float64:
    counted = np.arange(near.similarities.shape[1]) < k[:, None]
    mean: Float64 = np.where(counted, near.similarities, 0.0).sum(axis=1) / k
    return mean


def merged_counts(fake: NearestImages, real: NearestImages, k: int) -> tuple[Int64, Int64]:
    """How many of the k nearest of both banks together, by (-similarity, row id), are fake and real."""
    similarities = np.concatenate([fake.similarities, real.similarities], axis=1)
    row_ids = np.concatenate([fake.row_ids, real.row_ids], axis=1)
    first = np.lexsort((row_ids, -similarities), axis=-1)[:, :k]
    counted = np.take_along_axis(similarities, first, 1) > -np.inf
    is_fake = first < fake.similarities.shape[1]
    return (counted & is_fake).sum(axis=1), (counted & ~is_fake).sum(axis=1)


def nobody_left(label: Label) -> EmptyBank:
    """The error where every reference of a bank is a copy of the query's image."""
    return EmptyBank(
        f"no reference of the {label} bank is left to vote",
        hint=f"add references of other images: rd bank add PATH --label {label}",
    )
