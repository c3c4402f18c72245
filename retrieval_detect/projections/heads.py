"""Keep the attention heads that see how an image was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.options import option
from retrieval_detect.projections.base import Fitting, joined, part, require_generators
from retrieval_detect.projections.inner import Trial

if TYPE_CHECKING:
    from retrieval_detect.search.projection import Affine
    from retrieval_detect.types import Float32, Int64
    from retrieval_detect.vectors import Rows

MAX_ROWS = 1_000


@dataclass(frozen=True)
class Heads(Fitting):
    """z = unit(x of the heads kept), after Gaintseva et al. 2024 (arXiv 2406.15035), attention heads.

    Reads layers ``headsNN``. Heads are ranked by how well each alone detects generators and sources
    held out (``inner.Trial``), and in that order each is kept if detection is better with it: two
    evaluations a head.
    """

    kind: ClassVar[str] = "heads"
    head_width: int = option(64, "Coordinates of one head.", low=1)
    keep: int = option(0, "Heads kept at most; 0: as many as help.", low=0)
    seed: int = option(0, "Seed of the sample that heads are judged on.", low=0)

    def fit(self, rows: Rows, layers: Sequence[str]) -> Affine:
        """See ``Fitting``."""
        require_generators(rows, "choosing heads")
        for layer in layers:
            width = rows.vectors[layer].shape[1]
            if not layer.startswith("heads") or width % self.head_width:
                raise UsageError(
                    f"layer {layer} of {width} dimensions holds no heads of width {self.head_width}",
                    hint="Store layers headsNN and set head-width.",
                )
        trial = Trial.of(rows, at_most=MAX_ROWS, seed=self.seed)
        kept, found = self._greedy(trial, joined(trial.rows, layers))
        columns = (np.sort(kept)[:, None] * self.head_width + np.arange(self.head_width)).ravel()
        return self.affine(
            [part(layer, rows) for layer in layers],
            matrix=selection(sum(rows.vectors[layer].shape[1] for layer in layers), columns),
            heads=sorted(kept),
            inner_auc=round(found, 4),
        )

    def _greedy(self, trial: Trial, x: Float32) -> tuple[list[int], float]:
        pieces = np.split(x, x.shape[1] // self.head_width, axis=1)
        products = [piece @ piece.T for piece in pieces]
        alone = [trial.auc_of(_cosines(product)) for product in products]
        best, *others = np.argsort(-np.array(alone), kind="stable").tolist()
        kept, found, total = [best], alone[best], products[best]
        for head in others:
            if len(kept) == self.keep:
                break
            wider = total + products[head]
            score = trial.auc_of(_cosines(wider))
            if score > found:
                kept, found, total = [*kept, head], score, wider
        return kept, found


def _cosines(products: Float32) -> Float32:
    """Inner products → cosines, float32 (m, m); a zero vector resembles nothing."""
    norms = np.sqrt(np.diagonal(products))
    inverse = np.where(norms > 0, 1 / np.maximum(norms, np.finfo(np.float32).tiny), 0).astype(np.float32)
    return products * inverse[:, None] * inverse


def selection(d: int, columns: Int64) -> Float32:
    """The matrix that keeps those coordinates, float32 (d, number of columns), of 0 and 1."""
    matrix = np.zeros((d, len(columns)), np.float32)
    matrix[columns, np.arange(len(columns))] = 1
    return matrix
