"""Every generator and every source as one distribution on the sphere: a bank in as many rows as names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.heads.base import Head, checked, encoded, normalised, option, quiet, require_both
from retrieval_detect.heads.linear import row_shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.heads.base import Progress
    from retrieval_detect.types import Bool, Float32, Float64, Int64
    from retrieval_detect.vectors import Rows

RESULTANT = (1e-3, 0.9995)
"""Mean resultant lengths that are believed: beyond them a concentration is zero or without end."""


@dataclass(eq=False)
class PrototypeHead(Head):
    """score = logsumexp_g(log pi_g + log p_g(x)) over generators, less the same over sources; x at unit norm.

    pi_g is the share of design §9. ``vmf`` : p_g is von Mises-Fisher, its mean direction that of the
    generator, its concentration shared (Mardia and Jupp 2000, "Directional Statistics", §9.3 and §10.3; the
    estimate for many dimensions is that of Banerjee et al. 2005, eq. 4.4). ``gaussian`` : p_g is normal with
    the covariance within generators, shared and shrunk towards a multiple of the identity (Ledoit and
    Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices").

    The mean of a generator with n_g images is (n_g mean_g + ``prior`` m) / (n_g + ``prior``), m the mean of
    all generators of its label: one image moves it a little, fifty settle it. With what is shared
    cancelled, log p_g(x) = a_g · x + b_g in both families, and that is all it keeps.
    """

    kind = "prototype"
    cheap = True

    layer: str = option("proj", "Stored layer it reads.")
    family: str = option("gaussian", "The distribution.", choices=("gaussian", "vmf"))
    prior: float = option(5.0, "Images that the mean of all generators counts for.", low=0, high=1e6)
    shrinkage: float = option(0.0, "Of the covariance (gaussian); 0: as Ledoit and Wolf.", low=0, high=1)
    concentration: float = option(0.0, "Of every direction (vmf); 0: as estimated.", low=0, high=1e6)

    def fit(self, rows: Rows, *, text: Any = None, progress: Progress = quiet) -> Self:  # noqa: ARG002
        """See ``Head``. A generator with one image is a generator."""
        require_both(rows)
        x = normalised(encoded(rows, self.layer)).astype(np.float64)
        names, first, of = _classes(rows)
        fake = rows.fake[first]
        # Views and near-duplicates, rows of one group, are no further images.
        n_images = np.bincount(np.unique(np.stack([of, rows.groups]), axis=1)[0])
        means = _shrunk(_means(x, of), fake, n_images, prior=self.prior)
        kin = of if np.bincount(of).max() > 1 else rows.fake.astype(np.int64)
        match self.family:
            case "gaussian":
                centre = x.mean(axis=0)
                covariance = _within(x, kin, shrinkage=self.shrinkage)
                directions = np.linalg.solve(covariance, (means - centre).T).T
                offsets = -((means + centre) * directions).sum(axis=1) / 2
            case "vmf":
                directions = self._concentration(x, kin) * _unit(means)
                offsets = np.zeros(len(means))
            case other:
                raise UsageError(f"there is no family {other!r}", hint="Choose gaussian or vmf.")
        # Laid out as they are read back: products of the same numbers in another order may round otherwise.
        self._learnt = {
            "directions": np.ascontiguousarray(directions, np.float32),
            "offsets": offsets + np.log(np.bincount(of, weights=row_shares(rows))),
            "fake": fake.astype(np.uint8),
        }
        self._course = {"names": names}
        return self

    def decision_function(self, vectors: Mapping[str, Float32]) -> Float64:
        """See ``Head``: the log-odds of fake, both labels alike likely beforehand."""
        terms, fake = self._terms(vectors)
        score: Float64 = _logsumexp(terms[:, fake]) - _logsumexp(terms[:, ~fake])
        return score

    def attribution(self, vectors: Mapping[str, Float32]) -> tuple[list[str], Float64]:
        """Generators, and the chance of each if one of them made the image: float64 (n, G), rows sum to 1."""
        terms, fake = self._terms(vectors)
        terms = terms[:, fake]
        names = [name for name, of_fakes in zip(self._course["names"], fake, strict=True) if of_fakes]
        return names, np.exp(terms - _logsumexp(terms)[:, None])

    def _fits(self, state: Mapping[str, NDArray[Any]]) -> bool:
        directions, offsets, fake = (state[name] for name in ("directions", "offsets", "fake"))
        even = directions.ndim == 2 and offsets.shape == fake.shape == (len(directions),)
        return even and len(np.unique(fake.astype(bool))) == 2

    def restore_facts(self, facts: Mapping[str, Any]) -> None:
        """See ``Head``."""
        if len(facts["names"]) != len(self.learnt("offsets")):
            raise ValueError(f"{len(facts['names'])} names for {len(self.learnt('offsets'))} prototypes")
        super().restore_facts(facts)

    def _terms(self, vectors: Mapping[str, Float32]) -> tuple[Float64, Bool]:
        """Log pi_g + log p_g(x), less what all g share, float64 (n, G); and which g are generators, (G,)."""
        directions = self.learnt("directions")
        x = normalised(checked(vectors, self.layer, directions.shape[1]))
        terms = x.astype(np.float64) @ directions.T.astype(np.float64) + self.learnt("offsets")
        return terms, self.learnt("fake").astype(bool)

    def _concentration(self, x: Float64, kin: Int64) -> float:
        if self.concentration:
            return self.concentration
        n = np.bincount(kin)
        several = n > 1
        sums = np.square(_means(x, kin) * n[:, None]).sum(axis=1)[several]
        n = n[several]
        # The mean similarity of two different images: the length of a mean is biased where there are few.
        square = np.average((sums - n) / (n * (n - 1)), weights=n)
        r = float(np.clip(np.sqrt(max(square, 0.0)), *RESULTANT))
        concentration: float = r * (x.shape[1] - r * r) / (1 - r * r)
        return concentration


def _classes(rows: Rows) -> tuple[list[str], Int64, Int64]:
    """Names of generators and sources; a row of each, int64 (G,); which of them each row is, int64 (n,)."""
    found, codes = np.unique(rows.names, return_inverse=True)
    keys = codes + rows.fake * len(found)
    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    return rows.names[first].tolist(), first, of


def _means(x: Float64, of: Int64) -> Float64:
    """Mean of each class, float64 (G, d)."""
    member = np.zeros((of.max() + 1, len(x)))
    member[of, np.arange(len(x))] = 1
    means: Float64 = member @ x / member.sum(axis=1, keepdims=True)
    return means


def _shrunk(means: Float64, fake: Bool, n: Int64, *, prior: float) -> Float64:
    """Means drawn to the mean of their label, float64 (G, d)."""
    of_label = np.stack([means[fake == label].mean(axis=0) for label in (False, True)])
    own = (n / (n + prior))[:, None]
    shrunk: Float64 = own * means + (1 - own) * of_label[fake.astype(int)]
    return shrunk


def _unit(means: Float64) -> Float64:
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    if norms.min() < 1e-9:
        raise UsageError(
            "the images of a generator or source point nowhere together", hint="Choose gaussian."
        )
    directions: Float64 = means / norms
    return directions


def _within(x: Float64, kin: Int64, *, shrinkage: float) -> Float64:
    """Covariance within classes, float64 (d, d), shrunk to full rank."""
    from sklearn.covariance import ledoit_wolf, shrunk_covariance

    n = np.bincount(kin)[kin]
    residuals = (x - _means(x, kin)[kin])[n > 1]
    # A mean taken from n images lies too near to them: by this much.
    residuals *= np.sqrt(n[n > 1] / (n[n > 1] - 1))[:, None]
    if np.abs(residuals).max() < 1e-7:
        raise UsageError(
            "the images of every generator and source are equal: their spread cannot be learnt",
            hint="Add references, or choose --set family=vmf with a concentration.",
        )
    if shrinkage:
        empirical = residuals.T @ residuals / len(residuals)
        covariance: Float64 = shrunk_covariance(empirical, shrinkage=shrinkage)
    else:
        covariance = ledoit_wolf(residuals, assume_centered=True)[0]
    return covariance


def _logsumexp(terms: Float64) -> Float64:
    largest = terms.max(axis=1)
    total: Float64 = largest + np.log(np.exp(terms - largest[:, None]).sum(axis=1))
    return total
