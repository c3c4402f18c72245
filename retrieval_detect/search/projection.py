"""Encoder vectors → the float16 codes that banks search, for references and queries alike."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retrieval_detect.errors import VectorError

if TYPE_CHECKING:
    from retrieval_detect.types import Float16, Float32


class Projection(Protocol):
    """A fitted map from the stored vectors of a layer to the vectors a bank searches."""

    @property
    def id(self) -> str:
        """Short digest of everything that changes the outcome; part of file names."""

    @property
    def d_in(self) -> int:
        """Dimension of the stored vectors."""

    @property
    def d_out(self) -> int:
        """Dimension of the searched vectors."""

    def apply(self, x: Float32) -> Float32:
        """Map rows one by one.

        ``x`` : float32 (n, d_in), unit norm up to float16 rounding. Returns float32 (n, d_out), unit
        norm up to the same; row i depends on row i alone, bit for bit.
        """


@dataclass(frozen=True, slots=True)
class Identity:
    """Search the stored vectors of one layer as they are."""

    layer: str
    d: int

    @property
    def id(self) -> str:
        """Depends on the kind and the layer."""
        text = json.dumps({"kind": "identity", "layer": self.layer}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def d_in(self) -> int:
        """The layer's dimension."""
        return self.d

    @property
    def d_out(self) -> int:
        """The layer's dimension."""
        return self.d

    def apply(self, x: Float32) -> Float32:
        """``x`` itself, so that stored float16 vectors and bank codes are the same bits."""
        return x


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


def query_codes(queries: Any, projection: Projection) -> Float16:
    """Queries as a bank sees them: normalised and rounded exactly as references were when stored.

    ``queries`` : floating point (q, d_in), any norm but zero. Returns float16 (q, d_out).
    """
    array = np.asarray(queries)
    if array.ndim != 2 or array.shape[1] != projection.d_in or not np.issubdtype(array.dtype, np.floating):
        raise VectorError(
            f"queries are {array.dtype} {array.shape}, not floating point (n, {projection.d_in})",
            hint="use vectors of the encoder and layer this index was built with",
        )
    return row_codes(unit(array.astype(np.float32, copy=False)).astype(np.float16), projection)


def row_codes(vectors: Float16, projection: Projection) -> Float16:
    """Stored vectors, float16 (n, d_in), as bank codes, float16 (n, d_out)."""
    return projection.apply(vectors.astype(np.float32)).astype(np.float16)
