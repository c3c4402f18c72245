"""Which caption fits: "real", or the name of a generator. Detection and attribution in one head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.heads.prompt import ContextHead

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Float32, Float64
    from retrieval_detect.vectors import Rows


@dataclass(eq=False)
class CaptionHead(ContextHead):
    """Captions for real and for every generator, with a learned shared context.

    Moskowitz, Gaona and Peterson 2024, "Detecting AI-Generated Images via CLIP", §3, fine-tune CLIP to match
    an image with the caption of its class. This is the variant with both towers frozen, in which the
    captions' context is learnt instead (as in ``PromptHead``). Fakes without a name are one generator.
    """

    kind = "caption"

    @property
    def generators(self) -> list[str]:
        """Names of the generators it knows, in the order of ``attribution``."""
        self.learnt("text")
        return list(self._course["classes"])

    def attribution(self, vectors: Mapping[str, Float32]) -> tuple[list[str], Float64]:
        """Names of the generators, and the share of each should the image be a fake of one of them.

        float64 (n, generators), rows sum to 1. The true generator may be absent.
        """
        logits = self.logits(vectors)[:, 1:]
        shares: Float64 = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        return self.generators, shares

    def _names(self, rows: Rows) -> NDArray[np.str_]:
        return rows.names
