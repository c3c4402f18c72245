"""An encoder's network opened for training, and the weights file it becomes again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from retrieval_detect.encoders import _weights, offline, openclip, timm_models
from retrieval_detect.encoders._torch import TorchEncoder, tapped
from retrieval_detect.encoders._towers import _Projected
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder, plain_name
from retrieval_detect.errors import EncoderError, UsageError

if TYPE_CHECKING:
    from retrieval_detect.types import UInt8

_APPLE = "image_encoder."


@dataclass(eq=False)
class Trainable:
    """A network whose parameters can move. ``rest`` : what else its weights file holds, kept as it is."""

    encoder: TorchEncoder
    rest: Mapping[str, Tensor]
    _low_rank: list[tuple[nn.Module, str]] = field(default_factory=list)

    @property
    def network(self) -> nn.Module:
        """The encoder's own network: what is trained is what ``encoder.encode`` uses."""
        return self.encoder.network

    @property
    def d(self) -> int:
        """Dimension of layer ``proj``."""
        return self.encoder.spec.layers["proj"]

    def features(self, batch: UInt8) -> Tensor:
        """uint8 (n, size, size, 3) → layer ``proj``, float32 (n, d), NOT unit norm, with gradients."""
        with tapped({"proj": self.encoder.taps["proj"]}) as taken:
            self.network(self.encoder.normalised(self.encoder.uploaded(batch)))
        return taken.vectors["proj"]

    def parameters(self) -> list[nn.Parameter]:
        """Those that move."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def training(self) -> None:
        """Modules that learn are in training mode; frozen ones, and their running statistics, stand still."""
        for module in self.network.modules():
            module.training = any(p.requires_grad for p in module.parameters(recurse=False))

    # ------------------------------------------------------------ what moves

    def open_all(self) -> None:
        """Every parameter moves."""
        self.network.requires_grad_(True)

    def open_last(self, n: int) -> None:
        """The last ``n`` blocks move, and what follows them before the projection."""
        taps = self.encoder.taps
        blocks = [tap.module for layer, tap in taps.items() if layer.startswith("block")]
        if not 1 <= n < len(blocks):
            raise UsageError(
                f"the last {n} of {len(blocks)} blocks of {self.encoder.spec.name} cannot be trained alone",
                hint=f"Choose 1 to {len(blocks) - 1} blocks, or train the whole tower."
                if len(blocks) > 1
                else "Train the whole tower.",
            )
        # Networks list their parameters in the order in which images pass them.
        parameters = list(self.network.parameters())
        frozen = {id(parameter) for parameter in blocks[-1 - n].parameters()}
        last = max(i for i, parameter in enumerate(parameters) if id(parameter) in frozen)
        for parameter in parameters[last + 1 :]:
            parameter.requires_grad_(True)

    def open_low_rank(self, rank: int, scale: float) -> None:
        """A low-rank addition to each matrix of attention and of the small networks behind it moves."""
        found = [(module, name) for module in self.network.modules() for name in _matrices(module)]
        if not found:
            raise UsageError(
                f"{self.encoder.spec.name} has no attention and no linear layers to add a low rank to",
                hint="Train the whole tower or its last blocks.",
            )
        for module, name in found:
            addition = LowRank(cast("Tensor", getattr(module, name)), rank, scale)
            parametrize.register_parametrization(module, name, addition)
        self._low_rank = found

    def merge(self) -> None:
        """Low-rank additions become part of their matrices; outputs stay the same."""
        for module, name in self._low_rank:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        self._low_rank = []

    # ------------------------------------------------------------ file

    def to_bytes(self) -> bytes:
        """A safetensors file that ``load_encoder`` takes as ``weights`` under the same name."""
        from safetensors.torch import save

        if self._low_rank:
            raise UsageError("low-rank additions must be merged before the network is saved")
        own = {_name_in_file(self.encoder, name): x for name, x in self.network.state_dict().items()}
        state = {**self.rest, **own}
        return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})


class LowRank(nn.Module):
    """W → W + scale · U D, D : (rank, in) drawn at random, U : (out, rank) zero at first.

    Hu et al. 2021, "LoRA", §4.1; ``scale`` is their α / r.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        rank = min(rank, n_out, n_in)
        self.scale = scale
        self.down = nn.Parameter(torch.randn(rank, n_in, device="cpu").to(weight) / n_in**0.5)
        self.up = nn.Parameter(torch.zeros(n_out, rank).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The matrix in use."""
        return weight + self.scale * (self.up @ self.down)


def _matrices(module: nn.Module) -> list[str]:
    if isinstance(module, nn.MultiheadAttention):
        return ["in_proj_weight"] if module._qkv_same_embed_dim else []
    return ["weight"] if isinstance(module, nn.Linear) else []


# ---------------------------------------------------------------- building


def open_encoder(
    name: str, *, weights: Path | None, pretrained: bool, device: str, from_cache_only: bool
) -> Trainable:
    """The encoder called ``name`` (see ``load_encoder``) in float32, all frozen.

    Without ``pretrained`` it starts at random, from torch's generator.
    """
    base = plain_name(name)
    with _start(base, weights, pretrained=pretrained) as path:
        encoder = load_encoder(
            name, weights=path, device=device, precision="float32", offline=from_cache_only
        )
        if not isinstance(encoder, TorchEncoder):
            raise UsageError(f"{name} has no network to train", hint="Choose a model of open_clip or timm.")
        held = _held(base, path, offline_only=from_cache_only)
    own = {_name_in_file(encoder, key) for key in encoder.network.state_dict()}
    return Trainable(encoder, {key: held[key] for key in held.keys() - own})


@contextmanager
def _start(base: str, weights: Path | None, *, pretrained: bool) -> Iterator[Path | None]:
    if pretrained:
        yield weights
        return
    if weights is not None:
        raise UsageError("weights were given for a network that is to start at random", hint="Drop one.")
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        state = {key: tensor.contiguous().clone() for key, tensor in _random(base).state_dict().items()}
        save_file(state, path := Path(folder) / "random.safetensors")
        yield path


def _random(base: str) -> Any:
    from retrieval_detect.encoders._libraries import open_clip, timm

    if base == OFFLINE_ENCODER or base.startswith(timm_models.PREFIX):
        model_name = offline._MODEL if base == OFFLINE_ENCODER else base.removeprefix(timm_models.PREFIX)
        if timm.is_model(model_name):
            return timm.create_model(model_name)
    model_name = openclip.model_of(base)
    if model_name not in open_clip.list_models():
        raise EncoderError(
            f"{base} cannot start at random: open_clip and timm know no model of this name",
            hint="Write timm:MODEL, or a MODEL of open_clip.",
        )
    with openclip._quiet():
        return open_clip.create_model(model_name, load_weights=False)


def _held(base: str, path: Path | None, *, offline_only: bool) -> dict[str, Tensor]:
    """All of a weights file, by the names that the file will have."""
    if base == OFFLINE_ENCODER or base.startswith(timm_models.PREFIX):
        return _with_classifier(base, path, offline_only=offline_only)
    with openclip._quiet():
        file = openclip._locate(base, path, offline_only).weights
    with _weights.loading(file, base):
        state: Mapping[str, Any] = _weights.read_state_dict(file)
    # Apple's own files name both towers in another way, which only holds for the file as a whole.
    if any(key.startswith(_APPLE) for key in state):
        return {}
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _with_classifier(base: str, path: Path | None, *, offline_only: bool) -> dict[str, Tensor]:
    """By timm's own names: its loaders rename the parameters of files that were made elsewhere."""
    from retrieval_detect.encoders._libraries import timm

    if base == OFFLINE_ENCODER:
        file = path or offline.packaged_weights()
        with _weights.loading(file, base):
            return offline.by_name(_weights.read_state_dict(file), timm.create_model(offline._MODEL))
    model_name = base.removeprefix(timm_models.PREFIX)
    file = path or timm_models._from_hub(base, timm.get_pretrained_cfg(model_name), offline_only)
    with _weights.loading(file, base):
        overlay = {"state_dict": _weights.read_state_dict(file)}
        model = timm.create_model(model_name, pretrained=True, pretrained_cfg_overlay=overlay)
    return dict(model.state_dict())


def _name_in_file(encoder: TorchEncoder, name: str) -> str:
    """What a weights file calls the parameter or buffer ``name`` of an encoder's network."""
    if encoder.spec.architecture.startswith("timm/"):
        return name
    if isinstance(encoder.network, _Projected):
        return "visual.proj" if name == "matrix" else f"visual.{name.removeprefix('tower.')}"
    return f"visual.{name}"
