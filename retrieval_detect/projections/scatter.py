"""Shrunk covariances and their inverse roots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

LEDOIT_WOLF = "ledoit-wolf"
CHOOSE = "choose"

_BLOCK = 8_192


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """S = V diag(values) Vᵀ, a covariance of n rows in d dimensions.

    ``values`` : float64 (d,), ascending; ``vectors`` : float64 (d, d), V, one eigenvector a column.
    ``ledoit_wolf`` : the shrinkage of Ledoit and Wolf 2004, "A well-conditioned estimator for
    large-dimensional covariance matrices".
    """

    values: Float64
    vectors: Float64
    ledoit_wolf: float

    @classmethod
    def of(cls, centred: Any) -> Spectrum:
        """``centred`` : floating point (n, d), rows less the mean they are centred on."""
        from sklearn.covariance import ledoit_wolf_shrinkage

        if not centred.any():
            raise UsageError("all vectors to fit on are equal: there is nothing to learn")
        values, vectors = np.linalg.eigh(second_moment(centred))
        shrinkage = ledoit_wolf_shrinkage(centred, assume_centered=True)
        return cls(np.maximum(values, 0), vectors, float(shrinkage))

    def shrinkage(self, wanted: str | float) -> float:
        """A number for what was wanted, a number or ``"ledoit-wolf"``."""
        return self.ledoit_wolf if wanted == LEDOIT_WOLF else float(wanted)

    def scales(self, shrinkage: float) -> Float64:
        """Eigenvalues of C^-1/2, C = (1 − g) S + g tr(S)/d I, float64 (d,); an error if C is singular."""
        shrunk = (1 - shrinkage) * self.values + shrinkage * self.values.mean()
        if shrunk[0] <= len(shrunk) * np.finfo(np.float64).eps * shrunk[-1]:
            raise UsageError(
                f"the covariance in {len(shrunk)} dimensions is singular",
                hint="Shrink it (--set shrinkage=0.2), or add references.",
            )
        scales: Float64 = 1 / np.sqrt(shrunk)
        return scales

    def inverse_root(self, shrinkage: float) -> Float64:
        """C^-1/2, symmetric float64 (d, d)."""
        root: Float64 = (self.vectors * self.scales(shrinkage)) @ self.vectors.T
        return root


def second_moment(x: Any) -> Float64:
    """xᵀx/n in float64, (d, d), without a float64 copy of x."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK].astype(np.float64)
        total += block.T @ block
    return total / len(x)


def parse_shrinkage(text: str, *, words: tuple[str, ...]) -> str | float:
    """One of ``words``, or a number from 0 to 1."""
    if text in words:
        return text
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise UsageError(f"shrinkage is {text!r}", hint=f"Give {', '.join(words)}, or a number from 0 to 1.")
    return value
