"""Prompt tuning: the words around "real" and "fake" are learnt, CLIP stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import EncoderError, UsageError
from retrieval_detect.heads._training import TextHead, Trainable
from retrieval_detect.heads.base import PROJ, checked, encoded, normalised, option

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from retrieval_detect.encoders.text import TextTower
    from retrieval_detect.types import Float32, Float64
    from retrieval_detect.vectors import Rows

REAL = "real"
SPREAD = 0.02
FILLER = "x"


@dataclass(eq=False)
class ContextHead(TextHead):
    """Classes are texts "NAME v1 … vn." whose n vectors v, shared by all classes, are learnt.

    Logits: logit_scale · cosine(image, text). Once trained, a text is a unit vector and no tower is needed.
    """

    context: int = option(16, "Learned vectors in the place of words, shared by all classes.", low=1, high=64)

    def decision_function(self, vectors: Mapping[str, Float32]) -> Float64:
        """Log-odds of fake: logsumexp of the fakes' logits − the logit of real. See ``Head``."""
        logits = self.logits(vectors)
        score: Float64 = np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, 0]
        return score

    def logits(self, vectors: Mapping[str, Float32]) -> Float64:
        """Real first, then every class of fakes: float64 (n, classes)."""
        text = self.learnt("text").astype(np.float64)
        x = normalised(checked(vectors, PROJ, text.shape[1])).astype(np.float64)
        scaled: Float64 = float(self.learnt("logit_scale")[0]) * x @ text.T
        return scaled

    def _fits(self, state: Mapping[str, NDArray[Any]]) -> bool:
        text, context, scale = (state[name] for name in ("text", "context", "logit_scale"))
        return text.ndim == context.ndim == 2 and len(text) > 1 and scale.shape == (1,)

    def restore_facts(self, facts: Mapping[str, Any]) -> None:
        """See ``Head``."""
        if len(facts["classes"]) + 1 != len(self.learnt("text")):
            raise ValueError("this head has another number of texts than of classes")
        super().restore_facts(facts)

    def _inputs(self, rows: Rows) -> Float32:
        return normalised(encoded(rows, PROJ))

    def _start(self, text: TextTower, classes: Sequence[str]) -> Trainable:
        import torch

        drawn = torch.randn(self.context, text.width, generator=torch.Generator().manual_seed(self.seed))
        return _Prompted(text, [REAL, *map(readable, classes)], SPREAD * drawn)


@dataclass(eq=False)
class PromptHead(ContextHead):
    """CoOp over "real" and "fake", as in CLIPping the Deception (Khan and Dang-Nguyen 2024, §3.2).

    16 shared context vectors drawn from N(0, 0.02²), the class name in front, the text tower and logit_scale
    frozen. Images are not augmented here: their stored embeddings are what is trained on. A step costs one
    pass of the text tower however many images it sees; so batches are large, where the paper's are of 16, for
    2 epochs (``batch=16, epochs=2, patience=0``). Its few-shot configuration, as released, never leaves the
    warm-up's rate of 1e-5 (``epochs=20, warmup=20``); here ``shots`` trains at the usual rate.
    """

    kind = "prompt"


def readable(name: str) -> str:
    """A generator's name as words."""
    return name.replace("_", " ").strip() or "fake"


class Prompts:
    """Texts "NAME x … x ." with vectors to be put in the place of the n fillers."""

    def __init__(self, text: TextTower, names: Sequence[str], n: int) -> None:
        prompts = [f"{name}{f' {FILLER}' * n} ." for name in names]
        tokens = text.tokens(prompts)
        self._text, self._n = text, n
        self._starts = [_end(text, name, of=name) for name in names]
        for i, (name, start) in enumerate(zip(names, self._starts, strict=True)):
            _end(text, prompts[i], of=name)
            same = next((other for j, other in enumerate(names[:i]) if tokens[i].equal(tokens[j])), None)
            if same is not None:
                raise UsageError(
                    f"the names {same!r} and {name!r} read the same to a text tower",
                    hint="Give one of the generators another name.",
                )
            if not (tokens[i, start : start + n] == tokens[i, start]).all():
                raise EncoderError(f"the tokenizer of {text.name} has no token of its own for {FILLER!r}")
        self._embedded, self._ends = text.embed(tokens), text.ends(tokens)

    def features(self, context: Tensor) -> Tensor:
        """One text a name, float32 (names, d), unit norm; ``context`` : float32 (n, width)."""
        import torch

        filled = [
            torch.cat([words[:start], context, words[start + self._n :]])
            for words, start in zip(self._embedded, self._starts, strict=True)
        ]
        return torch.nn.functional.normalize(self._text.features(torch.stack(filled), self._ends), dim=1)


def _end(text: TextTower, words: str, *, of: str) -> int:
    """Position of the first token behind ``words``: the first that one more word changes."""
    without, longer = text.tokens([words, f"{words} {FILLER}"])
    changed = (without != longer).nonzero()
    if not len(changed):
        raise UsageError(
            f"the name {of[:40]!r} and its context do not fit into {text.context_length} tokens of text",
            hint="Shorten the generator's name, or train fewer vectors: --set context=N",
        )
    return int(changed[0, 0])


class _Prompted:
    def __init__(self, text: TextTower, names: Sequence[str], context: Tensor) -> None:
        self._prompts, self._scale = Prompts(text, names, len(context)), text.logit_scale
        self._context = context.to(text.device).requires_grad_()
        self.parameters: Sequence[Tensor] = [self._context]

    def logits(self, x: Tensor) -> Tensor:
        return self._scale * x @ self._prompts.features(self._context).T

    def arrays(self) -> dict[str, NDArray[Any]]:
        context = self._context.detach()
        text = self._prompts.features(context)
        return {
            "text": text.cpu().numpy(),
            "context": context.cpu().numpy(),
            "logit_scale": np.array([self._scale], np.float32),
        }
