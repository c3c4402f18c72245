"""The stored vectors of one layer as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from retrieval_detect.errors import UsageError
from retrieval_detect.projections.base import Fitting, part

if TYPE_CHECKING:
    from retrieval_detect.search.projection import Affine
    from retrieval_detect.types import Label
    from retrieval_detect.vectors import Rows


@dataclass(frozen=True)
class Identity(Fitting):
    """z = x, for the choice of a layer: middle layers tell unseen generators better than the last.

    Koutlis and Papadopoulos 2024, "Leveraging representations from intermediate encoder-blocks for
    synthetic image detection", §4, measure that.
    """

    kind: ClassVar[str] = "identity"

    @property
    def labels(self) -> tuple[Label, ...]:
        """None: nothing is fitted."""
        return ()

    def fit(self, rows: Rows, layers: Sequence[str]) -> Affine:
        """See ``Fitting``."""
        if len(layers) != 1:
            raise UsageError(f"identity reads one layer, not {len(layers)}", hint="Use concat for several.")
        return self.affine([part(layers[0], rows)])
