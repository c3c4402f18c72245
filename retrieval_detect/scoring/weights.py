"""How much each reference weighs in a vote: generators count alike, however many images they gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from retrieval_detect.types import Float64, Int64

PRIOR_IMAGES = 5
"""n0 of design §9: a generator with this many images has half the share of one with very many."""


def reference_weights(
    names: ArrayLike,
    content: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    batches: ArrayLike | None = None,
    contributors: ArrayLike | None = None,
) -> Float64:
    """Natural logarithm of each reference's weight, float64 (n,).

    Generator g (source, in the real bank) with n_g images has the share pi_g = (n_g/(n_g + 5)) / sum of
    the same over all, divided evenly among its images: w = pi_g/n_g. An image is a content id; all its
    views carry its whole weight, and a vote counts only the nearest of them.

    The images of one batch, one contributor or one near-duplicate group together weigh no more than the
    largest share: beyond it, they are scaled down alike. So neither one contributor nor one picture
    outweighs a generator by appearing under many names. What they lose goes to nobody: weights sum to
    one at most.

    Parameters
    ----------
    names : (n,) of generators or sources, as text or codes; the unnamed are one generator.
    content : (n,) of content ids, as bytes or codes.
    groups : (n,) of near-duplicate groups, as codes.
    batches, contributors : (n,) of each, as text or codes; ``""`` or a negative code is none.
    """
    name = _codes(names)
    first, of_row = _images(name, _codes(content))
    n_images = np.bincount(name[first], minlength=name.max(initial=-1) + 1)
    share = n_images / (n_images + PRIOR_IMAGES)
    share /= share.sum()
    weights = (share / np.maximum(n_images, 1))[name[first]]
    largest = share.max(initial=0.0)
    for clusters in (batches, contributors, groups):
        if clusters is not None:
            weights = _capped(weights, of_row, clusters, largest=largest)
    return np.log(weights)[of_row]


def _codes(values: ArrayLike) -> Int64:
    codes: Int64 = np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int64)
    return codes


def _images(name: Int64, content: Int64) -> tuple[Int64, Int64]:
    """A row of each distinct (name, content), int64 (m,), and which of them each row is, int64 (n,)."""
    if name.shape != content.shape:
        raise UsageError(f"{name.size} names for {content.size} content ids")
    pairs = name * (content.max(initial=0) + 1) + content
    _, first, of_row = np.unique(pairs, return_index=True, return_inverse=True)
    return first, of_row


def _capped(weights: Float64, of_row: Int64, clusters: ArrayLike, *, largest: float) -> Float64:
    """Scale images down so that no cluster's images sum to more than ``largest``."""
    values: Any = np.asarray(clusters)
    if values.shape != of_row.shape:
        raise UsageError(f"{values.size} groups, batches or contributors for {of_row.size} references")
    named = values >= 0 if np.issubdtype(values.dtype, np.integer) else values != values.dtype.type()
    members = np.unique(_codes(values[named]) * len(weights) + of_row[named])
    cluster, image = np.divmod(members, max(len(weights), 1))
    totals = np.bincount(cluster, weights=weights[image])
    factors = np.ones(len(weights))
    np.minimum.at(factors, image, np.minimum(1.0, largest / totals)[cluster])
    return weights * factors
