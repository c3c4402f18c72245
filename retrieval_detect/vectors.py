"""Vectors and the images they are of: rows as columns; unit norm and rounding to float16, once for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retrieval_detect.errors import VectorError
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Bool, Float16, Float32, Int64, UInt64


NORM_TOLERANCE = 2e-3
"""A unit vector rounded to float16 is off by less."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rows:
    """n images as columns: what is fitted on, asked about and measured. ``of`` fills in what is not known.

    ``vectors`` : layer → float32 (n, d). Of a layer in ``norms`` they have unit norm, to float16 rounding,
    and had ``norms[layer]``, float32 (n,), before; of any other they are as the network gave them.
    ``fake`` : bool (n,). ``names`` : text (n,), generators of fakes, sources of photographs. ``groups`` :
    int64 (n,); images of one group are near-duplicates or views of one file and must never be parted.
    ``row_ids`` : int64 (n,), -1 of an image that is in no index. ``content_ids`` : object (n,), bytes.
    ``phash`` : uint64 (n,). ``sizes`` : int64 (n, 2), width and height. ``views``, ``formats``,
    ``categories``, ``batches`` : text (n,), ``""`` where not known.

    Arrays that a subclass adds are columns as well; whatever else it has is said of all rows together.
    """

    vectors: Mapping[str, Float32]
    norms: Mapping[str, Float32]
    fake: Bool
    names: NDArray[np.str_]
    groups: Int64
    row_ids: Int64
    content_ids: NDArray[np.object_]
    phash: UInt64
    sizes: Int64
    views: NDArray[np.str_]
    formats: NDArray[np.str_]
    categories: NDArray[np.str_]
    batches: NDArray[np.str_]

    @classmethod
    def of(cls, *, fake: Bool, **known: Any) -> Self:
        """Rows of the columns that are known. By default none has a name, and each is a group of its own."""
        n = len(fake)
        nothing: dict[str, Any] = {
            "vectors": {},
            "norms": {},
            "groups": np.arange(n),
            "row_ids": np.full(n, -1),
        }
        nothing |= {"content_ids": np.full(n, b"", object), "phash": np.zeros(n, np.uint64)}
        nothing |= {"sizes": np.zeros((n, 2), np.int64), "views": np.full(n, ORIGINAL_VIEW)}
        nothing |= dict.fromkeys(("names", "formats", "categories", "batches"), np.full(n, ""))
        return cls(fake=fake, **nothing | known)

    def __len__(self) -> int:
        return len(self.fake)

    def as_encoded(self, layer: str) -> Float32:
        """Vectors as the network gave them, float32 (n, d), NOT unit norm."""
        x = self.vectors[layer]
        return x * self.norms[layer][:, None] if layer in self.norms else x

    def take(self, chosen: Bool | Int64) -> Self:
        """Some of the rows, by mask or by position."""
        taken: dict[str, Any] = {
            name: {layer: x[chosen] for layer, x in layers.items()}
            for name, layers in (("vectors", self.vectors), ("norms", self.norms))
        }
        return replace(self, **taken, **{name: getattr(self, name)[chosen] for name in self._columns()})

    def followed_by(self, *others: Self) -> Self:
        """These rows, then the others, which have the same layers."""
        parts = (self, *others)
        together: dict[str, Any] = {
            name: {layer: np.concatenate([getattr(p, name)[layer] for p in parts]) for layer in layers}
            for name, layers in (("vectors", self.vectors), ("norms", self.norms))
        }
        together |= {name: np.concatenate([getattr(p, name) for p in parts]) for name in self._columns()}
        return replace(self, **together)

    def _columns(self) -> list[str]:
        return [f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)]


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
