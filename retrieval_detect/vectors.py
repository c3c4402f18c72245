"""Unit norm and the rounding to float16 that queries and references share, once for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import VectorError

if TYPE_CHECKING:
    from retrieval_detect.types import Float16, Float32


def normalise(vectors: Float32) -> tuple[Float16, Float32]:
    """float32 (n, d) as a network gives it → float16 (n, d) unit norm, float32 (n,) norms before.

    Rounds through float64 and float32, bit for bit as queries are (``unit``).
    Rows must be finite and not zero; the pipeline turns others into failures.
    """
    wide = vectors.astype(np.float64)
    norms = np.sqrt((wide * wide).sum(axis=1))
    unit = (wide / norms[:, None]).astype(np.float32)
    return unit.astype(np.float16), norms.astype(np.float32)


def as_stored(vectors: Float32) -> Float32:
    """Queries' vectors, float32 (d,) or (q, d), as heads are trained on them: rounded as stored, (q, d)."""
    codes, norms = normalise(np.atleast_2d(vectors))
    rounded = codes.astype(np.float32)
    stored: Float32 = rounded / np.linalg.norm(rounded, axis=1, keepdims=True) * norms[:, None]
    return stored


def unit(x: Float32) -> Float32:
    """Rows of ``x``, float32 (n, d), at norm 1.

    Norms are taken in float64: encoders may give vectors of any length. A zero or non-finite row
    raises ``VectorError``.
    """
    wide = np.ascontiguousarray(x, dtype=np.float64)
    norms = np.sqrt((wide * wide).sum(axis=1))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        what = "is zero" if norms[bad[0]] == 0 else "is not finite"
        raise VectorError(f"vector {bad[0]} of {len(norms)} {what}", hint="embed this image again")
    unit_rows: Float32 = (wide / norms[:, None]).astype(np.float32)
    return unit_rows
