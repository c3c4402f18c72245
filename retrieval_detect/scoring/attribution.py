"""Which generators the nearest fakes come from; the true one may be absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.scoring.vote import TEMPERATURE
from retrieval_detect.verdicts import Attribution

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.scoring.neighbours import NearestImages
    from retrieval_detect.types import Float64


def generator_densities(near: NearestImages, *, n_names: int, temperature: float = TEMPERATURE) -> Float64:
    """How close queries lie to each generator, float64 (q, ``n_names``); -inf for those not near.

    ``near`` : the nearest fakes. D_g = logsumexp of s/T over the generator's images among them. Compared
    with what the generator's own calibration images get, it says whether the generator fits at all: the
    nearest of several known ones need not.
    """
    terms = near.similarities / temperature
    largest = np.maximum(terms.max(axis=1, initial=-np.inf), 0.0)[:, None]
    sums = _by_name(np.exp(terms - largest), near.names, n_names)
    with np.errstate(divide="ignore"):
        found: Float64 = largest + np.log(sums)
    return found


def _by_name(parts: Float64, names: NDArray[np.int64], n_names: int) -> Float64:
    """Sums of (q, k) over columns of one name: float64 (q, n_names)."""
    place = names + n_names * np.arange(len(parts))[:, None]
    sums = np.bincount(place.ravel(), parts.ravel(), minlength=n_names * len(parts))
    return sums.astype(np.float64, copy=False).reshape(len(parts), n_names)


def top_names(near: NearestImages, *, names: Sequence[str], temperature: float) -> NDArray[np.int64]:
    """What ``attribute`` puts first, for each of q queries: codes into ``names``, int64 (q,).

    ``near`` : the nearest fakes, one at least a query.
    """
    terms = near.similarities / temperature + near.log_weights
    parts = np.exp(terms - terms.max(axis=1, keepdims=True))
    by_name = np.argsort(np.array(names))
    shares = _by_name(parts, np.argsort(by_name)[near.names], len(names))
    first: NDArray[np.int64] = by_name[shares.argmax(axis=1)]
    return first


def attribute(
    near: NearestImages,
    *,
    names: Sequence[str],
    of: int = 10,
    temperature: float = TEMPERATURE,
) -> tuple[Attribution, ...]:
    """Generators among one query's nearest fakes, by share, then by name.

    ``near`` : of one query, one fake at least; its codes index ``names``. A share is the generator's part
    of the sum of w exp(s/T) over all of them; ``of_nearest_fakes`` counts its images among the ``of``
    nearest.
    """
    n = int(near.n[0])
    terms: Float64 = (near.similarities / temperature + near.log_weights)[0, :n]
    parts, codes = np.exp(terms - terms.max()), near.names[0, :n]
    shares = np.bincount(codes, weights=parts, minlength=len(names)) / parts.sum()
    counts = np.bincount(codes[:of], minlength=len(names))
    found = [Attribution(names[i], int(counts[i]), float(shares[i])) for i in np.unique(codes)]
    return tuple(sorted(found, key=lambda entry: (-entry.share, entry.generator)))
