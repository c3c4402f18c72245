"""Which generators the nearest fakes come from; the true one may be absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import EmptyBank
from retrieval_detect.scoring.neighbours import BankNeighbours, NearestImages, nearest_images
from retrieval_detect.scoring.vote import TEMPERATURE
from retrieval_detect.verdicts import Attribution

if TYPE_CHECKING:
    from numpy.typing import NDArray


def generator_densities(
    fake: BankNeighbours, *, n_names: int, k: int, temperature: float = TEMPERATURE
) -> NDArray[np.float64]:
    """How close one query lies to each generator, float64 (``n_names``,); -inf for those not near.

    D_g = logsumexp of s/T over the generator's images among the k nearest fakes. Compared with what the
    generator's own calibration images get, it says whether the generator fits at all: the nearest of
    several known ones need not.
    """
    near = nearest_images(fake, k)
    n = int(near.n[0])
    terms, codes = near.similarities[0, :n] / temperature, near.names[0, :n]
    largest = terms.max(initial=0.0)
    with np.errstate(divide="ignore"):
        found: NDArray[np.float64] = largest + np.log(
            np.bincount(codes, weights=np.exp(terms - largest), minlength=n_names)
        )
    return found


def top_names(near: NearestImages, *, names: Sequence[str], temperature: float) -> NDArray[np.int64]:
    """What ``attribute`` puts first, for each of q queries: codes into ``names``, int64 (q,).

    ``near`` : the nearest fakes, one at least a query.
    """
    terms = near.similarities / temperature + near.log_weights
    parts = np.exp(terms - terms.max(axis=1, keepdims=True))
    by_name = np.argsort(np.array(names))
    place = np.argsort(by_name)[near.names] + len(names) * np.arange(len(parts))[:, None]
    shares = np.bincount(place.ravel(), parts.ravel(), minlength=len(names) * len(parts))
    first: NDArray[np.int64] = by_name[shares.reshape(len(parts), len(names)).argmax(axis=1)]
    return first


def attribute(
    fake: BankNeighbours,
    *,
    names: Sequence[str],
    k: int,
    of: int = 10,
    temperature: float = TEMPERATURE,
) -> tuple[Attribution, ...]:
    """Generators among one query's k nearest fakes, by share, then by name.

    ``fake`` : neighbours of shape (k,), whose codes index ``names``. A share is the generator's part
    of the sum of w exp(s/T) over these k; ``of_nearest_fakes`` counts its images among the ``of`` nearest.
    """
    near = nearest_images(fake, k)
    n = int(near.n[0])
    if n == 0:
        raise EmptyBank("no reference of the fake bank is left to vote")
    terms: NDArray[np.float64] = (near.similarities / temperature + near.log_weights)[0, :n]
    parts, codes = np.exp(terms - terms.max()), near.names[0, :n]
    shares = np.bincount(codes, weights=parts, minlength=len(names)) / parts.sum()
    counts = np.bincount(codes[:of], minlength=len(names))
    found = [Attribution(names[i], int(counts[i]), float(shares[i])) for i in np.unique(codes)]
    return tuple(sorted(found, key=lambda entry: (-entry.share, entry.generator)))
