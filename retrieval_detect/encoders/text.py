"""The text half of a CLIP model, frozen, and open to vectors in the place of words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from retrieval_detect.encoders import _weights
from retrieval_detect.errors import EncoderError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_POOLS = ("first", "last", "argmax", "eos")


def load_text_tower(
    name: str, *, weights: Path | None = None, device: str = "cpu", offline: bool = False
) -> TextTower:
    """The text tower that was trained beside the image encoder called ``name``.

    ``name``, ``weights``, ``device`` and ``offline`` as in ``encoders.registry.load_encoder``; ``@crop``
    and the like change images only. Raises ``EncoderError`` where there is no text tower, or none
    that takes vectors.
    """
    from retrieval_detect.encoders import openclip
    from retrieval_detect.encoders._torch import resolve_device
    from retrieval_detect.encoders.registry import DEFAULT_ENCODER, known_encoders, plain_name

    base = plain_name(name)
    without = {"timm", *known_encoders()} - {DEFAULT_ENCODER}
    if base in without or base.partition(":")[0] in without:
        raise EncoderError(
            f"{base} has no text tower",
            hint="Heads that learn prompts need a CLIP model, e.g. ViT-L-14:openai.",
        )
    model, tokenizer, file = openclip.load_text_model(base, weights=weights, offline=offline)
    return TextTower(
        base, model, tokenizer, weights_sha256=_weights.digest(file), device=resolve_device(device)
    )


class TextTower:
    """A frozen text transformer in float32: on a CPU, gradients in bfloat16 are several times slower.

    ``d`` : dimension of its features, that of layer ``proj``; ``width`` : of its token embeddings;
    ``context_length`` : tokens a text; ``logit_scale`` : what the model multiplies cosines by;
    ``weights_sha256`` : as in the image encoder's spec, so that halves of two models are told apart.
    """

    def __init__(
        self, name: str, model: Any, tokenizer: Any, *, weights_sha256: str = "", device: str = "cpu"
    ) -> None:
        self.name, self.weights_sha256, self.device = name, weights_sha256, torch.device(device)
        part = getattr(model, "text", model).eval().requires_grad_(False).to(self.device, torch.float32)
        prefix = "" if part is not model else "text_"
        self._pool: str = getattr(part, f"{prefix}pool_type")
        self._eos: int = getattr(part, f"{prefix}eos_id")
        if self._pool not in _POOLS or getattr(part, "use_pad_mask", False):
            raise EncoderError(f"the text tower of {name} pools in a way that rd does not know")
        self._part, self._tokenizer = part, tokenizer
        self._class: Tensor | None = getattr(part, "cls_emb", None)
        self.context_length = int(part.context_length)
        self.width = int(part.token_embedding.weight.shape[1])
        self.logit_scale = float(model.logit_scale.detach().exp().item())
        self.d = self.encode(["a photo."]).shape[1]

    @property
    def truncates(self) -> bool:
        """Whether what follows the end of a text is without effect on it: attention looks back only."""
        return self._part.attn_mask is not None and self._class is None

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """int64 (n, ``context_length``)."""
        ids: Tensor = self._tokenizer(list(texts)).to(self.device)
        if int(ids.max()) >= self._part.token_embedding.num_embeddings:
            raise EncoderError(
                f"the tokenizer of {self.name} knows more words than its text tower",
                hint="The folder's configuration names the wrong tokenizer, or none.",
            )
        return ids

    def ends(self, tokens: Tensor) -> Tensor:
        """Where each text is read out, int64 (n,): at its end-of-text token, or where the model pools."""
        if self._pool == "argmax":
            return tokens.argmax(dim=1)
        if self._pool == "eos":
            return (tokens == self._eos).int().argmax(dim=1)
        return torch.full_like(tokens[:, 0], 0 if self._pool == "first" else tokens.shape[1] - 1)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token embeddings without positions, float32 (n, ``context_length``, ``width``)."""
        embedded: Tensor = self._part.token_embedding(tokens)
        return embedded

    def features(self, embedded: Tensor, eot: Tensor) -> Tensor:
        """Text features, float32 (n, ``d``), NOT unit norm, differentiable in ``embedded``.

        ``embedded`` : float32 (n, ``context_length``, ``width``), without positions; ``eot`` : int64 (n,),
        see ``ends``. Where the tower ``truncates``, positions behind the last end of text are not computed:
        the causal mask hides them from the result.
        """
        if self._class is not None:
            return self._by_class_token(embedded, eot)
        n, mask = embedded.shape[1], self._part.attn_mask
        if mask is not None:
            n = int(eot.max()) + 1
            mask = mask[:n, :n]
        x = self._part.transformer(embedded[:, :n] + self._part.positional_embedding[:n], attn_mask=mask)
        return self._projected(self._part.ln_final(x[torch.arange(len(x), device=x.device), eot]))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Features of texts, float32 (n, ``d``), NOT unit norm, without gradients."""
        with torch.no_grad():
            tokens = self.tokens(texts)
            return self.features(self.embed(tokens), self.ends(tokens))

    def _by_class_token(self, embedded: Tensor, eot: Tensor) -> Tensor:
        """CoCa: a learned token behind all others, from which the padding is hidden."""
        part, n = self._part, embedded.shape[1] + 1
        x = torch.cat([embedded, self._class.expand(len(embedded), 1, -1)], dim=1)  # type: ignore[union-attr]
        text = torch.arange(n - 1, device=x.device) <= eot[:, None]
        words = torch.where(text, part.pad_id + 1, part.pad_id)  # only whether it is padding is asked
        mask = part._build_additive_mask(words, n, x.dtype)
        if part.attn_mask is not None:
            mask = mask + part.attn_mask[:n, :n]
        x = part.transformer(x + part.positional_embedding[:n], attn_mask=mask)
        return self._projected(part.ln_final(x[:, -1]))

    def _projected(self, pooled: Tensor) -> Tensor:
        projection = self._part.text_projection
        if projection is None:
            return pooled
        features: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
        return features
