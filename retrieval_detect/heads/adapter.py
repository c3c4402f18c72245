"""A small network behind the image tower, and two texts to compare its outcome with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.heads._training import TextHead, Trainable
from retrieval_detect.heads.base import checked, encoded, normalised, option

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from retrieval_detect.encoders.text import TextTower
    from retrieval_detect.types import Float32, Float64
    from retrieval_detect.vectors import Rows

TEMPLATE = "a {} photo."


@dataclass(eq=False)
class AdapterHead(TextHead):
    """CLIP-Adapter (Gao et al. 2021, §3.2) as in CLIPping the Deception (Khan and Dang-Nguyen 2024, §3.2).

    z = r · relu(W2 relu(W1 x)) + (1 − r) · x with x as the network gave it, W1 (d/2, d), no bias, r = 0.4;
    score = logit_scale · (cosine(z, "a fake photo.") − cosine(z, "a real photo.")). W1 and W2 are learnt.
    """

    kind = "adapter"

    layer: str = option("proj", "Stored layer it reads; texts must have its dimension.")
    ratio: float = option(0.4, "Share of the adapter in the sum with the vector itself.", low=0.0, high=1.0)

    def decision_function(self, vectors: Mapping[str, Float32]) -> Float64:
        """See ``Head``."""
        down, up, text = (self.learnt(name).astype(np.float64) for name in ("down", "up", "text"))
        x = checked(vectors, self.layer, text.shape[1]).astype(np.float64)
        adapted = np.maximum(np.maximum(x @ down.T, 0) @ up.T, 0)
        z = normalised((self.ratio * adapted + (1 - self.ratio) * x).astype(np.float32))
        score: Float64 = float(self.learnt("logit_scale")[0]) * z.astype(np.float64) @ (text[1] - text[0])
        return score

    def _fits(self, state: Mapping[str, NDArray[Any]]) -> bool:
        down = state["down"]
        shapes = (down.shape, down.shape[::-1], (2, *down.shape[1:]), (1,))
        found = tuple(state[name].shape for name in ("down", "up", "text", "logit_scale"))
        return down.ndim == 2 and found == shapes

    def _inputs(self, rows: Rows) -> Float32:
        return encoded(rows, self.layer)

    def _start(self, text: TextTower, classes: Sequence[str]) -> Trainable:
        return _Adapter(text, ["real", *classes], ratio=self.ratio, seed=self.seed)


class _Adapter:
    def __init__(self, text: TextTower, names: Sequence[str], *, ratio: float, seed: int) -> None:
        import torch

        draw = torch.Generator().manual_seed(seed)
        d, half = text.d, max(1, text.d // 2)
        down, up = (
            ((2 * torch.rand(rows, columns, generator=draw) - 1) / math.sqrt(columns)).to(text.device)
            for rows, columns in ((half, d), (d, half))
        )
        self.parameters: Sequence[Tensor] = [down.requires_grad_(), up.requires_grad_()]
        self._ratio, self._scale = ratio, text.logit_scale
        encoded_texts = text.encode([TEMPLATE.format(name) for name in names])
        self._text = torch.nn.functional.normalize(encoded_texts, dim=1)

    def logits(self, x: Tensor) -> Tensor:
        from torch.nn.functional import normalize

        down, up = self.parameters
        adapted = ((x @ down.T).relu() @ up.T).relu()
        z = normalize(self._ratio * adapted + (1 - self._ratio) * x, dim=1)
        return self._scale * z @ self._text.T

    def arrays(self) -> dict[str, NDArray[Any]]:
        down, up = (parameter.detach().cpu().numpy() for parameter in self.parameters)
        scale = np.array([self._scale], np.float32)
        return {"down": down, "up": up, "text": self._text.cpu().numpy(), "logit_scale": scale}
