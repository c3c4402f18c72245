"""Where the layers of open_clip's and timm's networks are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from retrieval_detect.encoders._torch import Tap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class _Projected(nn.Module):
    """A tower without its projection, and the projection: what lies between them can be tapped."""

    def __init__(self, tower: nn.Module, matrix: nn.Parameter) -> None:
        super().__init__()
        self.tower, self.matrix = tower, matrix

    def forward(self, pixels: Tensor) -> Tensor:
        return _first(self.tower(pixels)) @ self.matrix


def open_clip_tower(visual: Any, embed_dim: int) -> tuple[nn.Module, dict[str, Tap]]:
    """The network to run for open_clip's ``model.visual``, and its layers."""
    heads: dict[str, Tap] = {}
    if hasattr(visual, "transformer"):
        heads = _class_token_heads(visual)
        network, before, blocks = _vision_transformer(visual)
    elif hasattr(visual, "attnpool"):
        stages = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
        network, before = visual, None
        blocks = [Tap(stage, stage[-1].conv3.out_channels, _mean_of_pixels) for stage in stages]
    else:
        network, before, blocks = visual, _before_projection(visual), _timm_blocks(visual.trunk)
        heads = _timm_heads(visual.trunk)
    pre = {"pre": before} if before else {}
    return network, {"proj": Tap(network, embed_dim, _first), **pre, **_numbered(blocks), **heads}


def timm_taps(model: Any) -> dict[str, Tap]:
    """``proj``, the features before the classifier, and a ``blockNN`` for each entry of ``feature_info``.

    And ``headsNN`` where it is a transformer that is read at its class token. ``model`` must have had
    its classifier removed.
    """
    width = getattr(model, "head_hidden_size", None) or model.num_features
    return {"proj": Tap(model, width, _first), **_numbered(_timm_blocks(model)), **_timm_heads(model)}


def _vision_transformer(visual: Any) -> tuple[nn.Module, Tap, list[Tap]]:
    matrix, visual.proj = visual.proj, None
    pool = _tokens(1, class_token=_reads_class_token(visual))
    blocks = [Tap(block, visual.conv1.out_channels, pool) for block in visual.transformer.resblocks]
    return _Projected(visual, matrix), Tap(visual, matrix.shape[0], _first), blocks


def _before_projection(visual: Any) -> Tap | None:
    """What open_clip's wrapper of a timm model projects, unless the model's pooling projects by itself."""
    head: Mapping[str, Any] = dict(visual.head.named_children())
    classifier = visual.trunk.get_classifier()
    if not head:
        linear = isinstance(classifier, nn.Linear)
        return Tap(classifier, classifier.in_features, _first, of_input=True) if linear else None
    if "pool" in head:
        return None
    first = head["proj"] if "proj" in head else head["mlp"].fc1
    return Tap(visual.trunk, first.in_features, _first)


def _timm_blocks(model: Any) -> list[Tap]:
    """The places that timm itself lists: every block of a transformer, every stage of a CNN.

    None where its list names modules that the model does not have.
    """
    modules = dict(model.named_modules())
    places = list(getattr(model.feature_info, "info", model.feature_info))
    if any(place["module"] not in modules for place in places):
        return []
    n_prefix = getattr(model, "num_prefix_tokens", 0) or 0
    tokens = _tokens(n_prefix, class_token=getattr(model, "global_pool", "") == "token")
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return [
        Tap(modules[place["module"]], width, _by_shape(width, tokens, channels_last=channels_last))
        for place in places
        for width in [place["num_chs"]]
    ]


def _numbered(taps: list[Tap]) -> dict[str, Tap]:
    return {f"block{number:02d}": tap for number, tap in enumerate(taps, 1)}


# ---------------------------------------------------------------- heads
#
# ``headsNN`` is what block NN's attention heads give the class token, side by side, before the output
# projection: (n, heads · head width). The contribution of head h to the residual stream, which Gandelsman,
# Efros and Steinhardt 2024, "Interpreting CLIP's image representation via text-based decomposition", §3,
# study, is o_h W_h, a fixed linear map of it: nothing is lost, and H heads take one H-th of the room.


def _reads_class_token(visual: Any) -> bool:
    return visual.attn_pool is None and visual.pool_type == "tok"


def _class_token_heads(visual: Any) -> dict[str, Tap]:
    """What block NN calls is torch's attention, which runs its output projection unseen: tap its input."""
    return {
        f"heads{number:02d}": Tap(block.attn, block.attn.embed_dim, _attended(block.attn), of_input=True)
        for number, block in enumerate(visual.transformer.resblocks, 1)
        if _reads_class_token(visual)
        and isinstance(getattr(block, "attn", None), nn.MultiheadAttention)
        and block.attn.batch_first
    }


def _attended(attention: nn.MultiheadAttention) -> Callable[[Tensor], Tensor]:
    """Of the normalised tokens, (n, tokens, width), what the first token's query gathers, head by head."""

    def pool(tokens: Tensor) -> Tensor:
        width, weight, bias = attention.embed_dim, attention.in_proj_weight, attention.in_proj_bias
        query = nn.functional.linear(tokens[:, :1], weight[:width], bias[:width])
        keys, values = nn.functional.linear(tokens, weight[width:], bias[width:]).chunk(2, dim=-1)
        gathered = nn.functional.scaled_dot_product_attention(by_head(query), by_head(keys), by_head(values))
        return gathered.flatten(1)

    def by_head(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], attention.num_heads, -1).transpose(1, 2)

    return pool


def _timm_heads(model: Any) -> dict[str, Tap]:
    """An attention of timm calls its output projection as a module, whose input is what is wanted."""
    reads_class_token = getattr(model, "global_pool", "") == "token" and hasattr(model, "blocks")
    if not reads_class_token or not getattr(model, "num_prefix_tokens", 0):
        return {}
    attentions = [getattr(block, "attn", None) for block in model.blocks]
    pool = _tokens(1, class_token=True)
    return {
        f"heads{number:02d}": Tap(attention.proj, attention.proj.in_features, pool, of_input=True)
        for number, attention in enumerate(attentions, 1)
        if attention is not None
        and hasattr(attention, "num_heads")
        and isinstance(getattr(attention, "proj", None), nn.Linear)
    }


# ---------------------------------------------------------------- pooling: (n, …) → (n, width)


def _first(output: Any) -> Tensor:
    """What a network gives first: some return the pooled vector and the tokens."""
    pooled: Tensor = output[0] if isinstance(output, tuple | list) else output
    return pooled


def _tokens(n_prefix: int, *, class_token: bool) -> Callable[[Any], Tensor]:
    """Of (n, tokens, width) the class token, or the mean over patches where a network has or uses none."""

    def pool(output: Any) -> Tensor:
        tokens = _first(output)
        return tokens[:, 0] if class_token and n_prefix else tokens[:, n_prefix:].mean(dim=1)

    return pool


def _mean_of_pixels(output: Tensor) -> Tensor:
    return output.mean(dim=(2, 3))


def _by_shape(width: int, tokens: Callable[[Any], Tensor], *, channels_last: bool) -> Callable[[Any], Tensor]:
    def pool(output: Any) -> Tensor:
        passing = _first(output)
        if passing.ndim == 3:
            return tokens(passing)
        if passing.ndim != 4:
            return passing
        last = channels_last or passing.shape[1] != width
        return passing.mean(dim=(1, 2)) if last else _mean_of_pixels(passing)

    return pool
