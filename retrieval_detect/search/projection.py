"""Encoder vectors → the float16 codes that banks search, for references and queries alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from retrieval_detect.errors import VectorError
from retrieval_detect.files import arrays_from_bytes, arrays_to_bytes
from retrieval_detect.scoring.vote import TEMPERATURE
from retrieval_detect.store.layout import PROJECTION_ID, plain_id
from retrieval_detect.vectors import unit

if TYPE_CHECKING:
    from retrieval_detect.types import Float16, Float32, Float64

FORMAT = "retrieval-detect/projection"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Search the stored vectors of one layer as they are."""

    layer: str
    d: int

    @property
    def id(self) -> str:
        """What derived files are named by."""
        return plain_id(self.layer)

    @property
    def layers(self) -> tuple[str, ...]:
        """The one layer."""
        return (self.layer,)

    @property
    def widths(self) -> tuple[int, ...]:
        """The layer's dimension."""
        return (self.d,)

    @property
    def d_out(self) -> int:
        """The layer's dimension."""
        return self.d

    @property
    def temperature(self) -> float:
        """That of design §9."""
        return TEMPERATURE

    def apply(self, x: Float32) -> Float32:
        """``x`` itself, so that stored float16 vectors and bank codes are the same bits."""
        return x


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What becomes of one layer: ``weight * unit((x - mean) @ matrix)``.

    ``mean`` : float32 (d,); ``matrix`` : float32 (d, r). Without them x stays as it is.
    """

    layer: str
    d: int
    mean: Float32 | None = None
    matrix: Float32 | None = None
    weight: float = 1.0

    @property
    def d_out(self) -> int:
        """Dimension it contributes."""
        return self.d if self.matrix is None else int(self.matrix.shape[1])


@dataclass(frozen=True, eq=False)
class Affine:
    """Every fitted projection: layers mapped one by one, put side by side, and mapped once more.

    z = unit((y - mean) @ matrix), y = the parts side by side. ``mean`` : float32 (m,), ``matrix`` :
    float32 (m, d_out); without them z = unit(y). ``kind`` and ``facts`` say where it comes from.
    """

    kind: str
    parts: tuple[Part, ...]
    mean: Float32 | None = None
    matrix: Float32 | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Digest of its file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:PROJECTION_ID]

    @property
    def layers(self) -> tuple[str, ...]:
        """The stored layers it reads."""
        return tuple(part.layer for part in self.parts)

    @property
    def widths(self) -> tuple[int, ...]:
        """Their dimensions."""
        return tuple(part.d for part in self.parts)

    @property
    def d_out(self) -> int:
        """Dimension of the searched vectors."""
        return sum(part.d_out for part in self.parts) if self.matrix is None else int(self.matrix.shape[1])

    @property
    def temperature(self) -> float:
        """The one chosen with the projection, on bank rows; else that of design §9."""
        return float(self.facts.get("temperature", TEMPERATURE))

    def apply(self, x: Float32) -> Float32:
        """Map rows one by one.

        ``x`` : float32 (n, sum of ``widths``), the layers' vectors side by side, each unit norm up to
        float16 rounding. Returns float32 (n, d_out), unit norm up to the same. Row i depends on row i
        alone, so far that rounding it to float16 gives the same bits whatever rows are beside it.

        Runs in float64, whose rounding errors, which depend on the rows beside, lie 2^-40 below the
        steps of float16. A row that maps to zero raises ``VectorError``.
        """
        pieces, (*maps, joint) = side_by_side(x, self.widths), self._wide
        y = [
            part.weight * _unit(_mapped(piece, *wide))
            for part, piece, wide in zip(self.parts, pieces, maps, strict=True)
        ]
        z: Float32 = _unit(_mapped(np.concatenate(y, axis=1), *joint)).astype(np.float32)
        return z

    @cached_property
    def _wide(self) -> list[tuple[Float64 | None, Float64 | None]]:
        """Mean and matrix of each part, then the joint ones: widening takes longer than mapping one query."""
        maps = [*((part.mean, part.matrix) for part in self.parts), (self.mean, self.matrix)]
        return [(_float64(mean), _float64(matrix)) for mean, matrix in maps]

    # ------------------------------------------------------------ files

    def to_bytes(self) -> bytes:
        """The projection as a safetensors file; equal maps give equal bytes."""
        arrays = {
            f"{name}.{what}": np.ascontiguousarray(value, dtype=np.float32)
            for name, holder in [*((f"part{i}", p) for i, p in enumerate(self.parts)), ("joint", self)]
            for what in ("mean", "matrix")
            if (value := getattr(holder, what)) is not None
        }
        arrays.setdefault("none", np.zeros(0, np.float32))
        about = {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "parts": [{"layer": p.layer, "d": p.d, "weight": p.weight} for p in self.parts],
            "facts": dict(self.facts),
        }
        return arrays_to_bytes(arrays, about)

    @classmethod
    def from_bytes(cls, data: bytes) -> Affine:
        """Inverse of ``to_bytes``; raises ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
        arrays, about = arrays_from_bytes(data)
        if (about["format"], about["version"]) != (FORMAT, VERSION):
            raise ValueError(f"this is {about['format']!r}, version {about['version']!r}")
        parts = tuple(
            Part(p["layer"], int(p["d"]), *_maps(arrays, f"part{i}"), float(p["weight"]))
            for i, p in enumerate(about["parts"])
        )
        found = cls(about["kind"], parts, *_maps(arrays, "joint"), about["facts"])
        found._check()
        return found

    def _check(self) -> None:
        y = sum(part.d_out for part in self.parts)
        for d, mean, matrix in [*((p.d, p.mean, p.matrix) for p in self.parts), (y, self.mean, self.matrix)]:
            arrays = [array for array in (mean, matrix) if array is not None]
            if any(array.shape[0] != d or not np.isfinite(array).all() for array in arrays) or not d:
                raise ValueError("the arrays of a projection do not fit together")


Projection: TypeAlias = Identity | Affine
"""A map from the stored vectors of one or several layers to the vectors a bank searches."""


def _maps(arrays: Mapping[str, Float32], name: str) -> tuple[Float32 | None, Float32 | None]:
    return arrays.get(f"{name}.mean"), arrays.get(f"{name}.matrix")


def _float64(array: Float32 | None) -> Float64 | None:
    return None if array is None else array.astype(np.float64)


def _mapped(x: Float64, mean: Float64 | None, matrix: Float64 | None) -> Float64:
    centred = x if mean is None else x - mean
    return centred if matrix is None else centred @ matrix


def _unit(x: Float64) -> Float64:
    norms = np.sqrt((x * x).sum(axis=1, keepdims=True))
    if not norms.all():
        raise VectorError(
            f"vector {int(np.flatnonzero(norms == 0)[0])} of {len(x)} is zero once it is projected",
            hint="It lies where the projection sees nothing: search the stored vectors instead.",
        )
    mapped: Float64 = x / norms
    return mapped


def side_by_side(x: Float32, widths: Sequence[int]) -> list[Float64]:
    """The layers' own columns of ``x``, float64 (n, d) each."""
    return [x[:, start:end].astype(np.float64) for start, end in _columns(widths)]


def _columns(widths: Sequence[int]) -> Iterator[tuple[int, int]]:
    return pairwise(accumulate(widths, initial=0))


def query_codes(queries: Any, projection: Projection) -> Float16:
    """Queries as a bank sees them: normalised and rounded exactly as references were when stored.

    ``queries`` : floating point (q, sum of ``widths``), the layers side by side, each of any norm but
    zero. Returns float16 (q, d_out).
    """
    array, d_in = np.asarray(queries), sum(projection.widths)
    if array.ndim != 2 or array.shape[1] != d_in or not np.issubdtype(array.dtype, np.floating):
        raise VectorError(
            f"queries are {array.dtype} {array.shape}, not floating point (n, {d_in})",
            hint="use vectors of the encoder and layer this index was built with",
        )
    units = [
        unit(array[:, start:end].astype(np.float32)).astype(np.float16)
        for start, end in _columns(projection.widths)
    ]
    return row_codes(units[0] if len(units) == 1 else np.concatenate(units, axis=1), projection)


def row_codes(vectors: Float16, projection: Projection) -> Float16:
    """Stored vectors, float16 (n, sum of ``widths``), as bank codes, float16 (n, d_out)."""
    return projection.apply(vectors.astype(np.float32)).astype(np.float16)
