"""What a kind of projection is: hyper-parameters, and a fit that gives an ``Affine``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.options import check_options
from retrieval_detect.search.projection import Affine, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Float32, Int64, Label
    from retrieval_detect.vectors import Rows

    Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Fitting(ABC):
    """One kind of projection. Its dataclass fields are its hyper-parameters."""

    kind: ClassVar[str]
    """Its name in ``rd fit projection --kind``."""
    cheap: ClassVar[bool] = False
    """Whether it is fitted in closed form, so that it can be fitted anew with every addition."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels of the references it is fitted on: when one of those changes, it is stale."""
        return ("real", "fake")

    @abstractmethod
    def fit(self, rows: Rows, layers: Sequence[str]) -> Affine:
        """Fit on ``rows``, which ``check_rows`` has passed."""

    def affine(self, parts: Sequence[Part], *, mean: Any = None, matrix: Any = None, **facts: Any) -> Affine:
        """The outcome, with the options and what is to be known of the fit (plain JSON types)."""
        about = {"options": asdict(self), "labels": list(self.labels), **facts}
        return Affine(self.kind, tuple(parts), _float32(mean), _float32(matrix), about)


def _float32(array: Any) -> Float32 | None:
    return None if array is None else np.ascontiguousarray(array, dtype=np.float32)


def part(layer: str, rows: Rows, *, weight: float = 1.0) -> Part:
    """A layer as it is stored."""
    return Part(layer, rows.vectors[layer].shape[1], weight=weight)


def joined(rows: Rows, layers: Sequence[str]) -> Float32:
    """The layers side by side as an ``Affine`` of plain parts has them, float32 (n, m), each unit norm."""
    return np.concatenate([rows.vectors[layer] for layer in layers], axis=1)


def unit_rows(x: Any) -> Any:
    """Rows at norm 1; a zero row, which resembles nothing, stays zero."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)


def classes(rows: Rows) -> Int64:
    """Codes int64 (n,): all photographs 0, each generator one of its own from 1 up."""
    codes = np.zeros(len(rows), np.int64)
    codes[rows.fake] = 1 + np.unique(rows.names[rows.fake], return_inverse=True)[1]
    return codes


def parse_weights(text: str, layers: Sequence[str]) -> tuple[float, ...]:
    """``"1,0.5"`` → one weight a layer; nothing is a weight of 1 each."""
    try:
        weights = tuple(float(word) for word in text.split(",")) if text.strip() else (1.0,) * len(layers)
    except ValueError:
        raise UsageError(f"weights are {text!r}, not numbers", hint="Write them as 1,0.5.") from None
    if len(weights) != len(layers):
        raise UsageError(f"{len(weights)} weights for {len(layers)} layers", hint="Give one a layer.")
    if not all(0 < weight < np.inf for weight in weights):
        raise UsageError(
            f"weights are {text}, not all positive", hint="Leave out layers that shall not count."
        )
    return weights


# ---------------------------------------------------------------- what rows must be


def check_rows(rows: Rows, layers: Sequence[str], labels: Sequence[Label]) -> None:
    """Raise unless all ``layers`` are there and there is something to learn from ``labels``."""
    if not layers or len(set(layers)) != len(layers):
        raise UsageError("a projection reads one layer or several different ones", hint="See --layers.")
    missing = [layer for layer in layers if layer not in rows.vectors]
    if missing:
        raise UsageError(
            f"there are no vectors of layer {missing[0]!r}", hint=f"There are: {', '.join(rows.vectors)}"
        )
    for label in labels:
        n = int((rows.fake == (label == "fake")).sum())
        if n < 2:
            raise UsageError(
                f"{n or 'no'} {label} reference{'s' * (n != 1)} to fit on, at least 2 are needed",
                hint=f"Add references: rd bank add DIR --label {label}",
            )
    fitted_on = np.isin(rows.fake, [label == "fake" for label in labels])
    for layer in layers if labels else ():
        x = rows.vectors[layer]
        if not np.isfinite(x).all():
            raise VectorError(f"a stored vector of layer {layer} is not finite", hint="See: rd index verify")
        if not np.ptp(x[fitted_on], axis=0).any():
            raise UsageError(f"all vectors of layer {layer} are equal: there is nothing to learn")


def require_generators(rows: Rows, what: str) -> None:
    """Raise ``UsageError`` unless there are two generators or more, each with two images or more."""
    names, counts = np.unique(rows.names[rows.fake], return_counts=True)
    if len(names) < 2:
        raise UsageError(
            f"{what} compares generators, and there is {len(names)} generator",
            hint="Add fakes of another one: rd bank add DIR --label fake --generator NAME",
        )
    if counts.min() < 2:
        name = str(names[counts.argmin()])
        raise UsageError(
            f"generator {name!r} has one image, {what} needs two or more of each",
            hint=f"Add another: rd bank add DIR --label fake --generator {name or 'NAME'}",
        )
