"""What every torch encoder shares: devices, precisions, and all layers from one forward pass."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from retrieval_detect import pools
from retrieval_detect.encoders.base import check_call
from retrieval_detect.encoders.preprocess import prepare
from retrieval_detect.errors import EncoderError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from retrieval_detect.types import EncoderSpec, Float32, UInt8

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
TOKENS_PART, MAPS_PART = 8, 4
"""Images that one core passes through at once: a transformer, whose products of matrices are the better
for being large, or a network of convolutions, whose first maps must not spill out of the core's cache."""


@dataclass(frozen=True, slots=True)
class Tap:
    """Where a layer leaves the network: the output of ``module``, or its input with ``of_input``.

    ``pool`` brings what passes there, of shape (n, …), to ``width`` numbers an image.
    """

    module: nn.Module
    width: int
    pool: Callable[[Any], Tensor]
    of_input: bool = False


class TorchEncoder:
    """A network and its taps. Satisfies ``encoders.base.Encoder``.

    Weights are converted to the precision once; autocast is never used, for on a CPU it is slower
    than float32. Calls of ``encode`` wait for one another; on a CPU each core takes a part of the batch
    through the whole network, for cores that share each layer wait for the slowest at every one of
    them, and the threads that decode slow one down all the time.
    """

    def __init__(self, spec: EncoderSpec, network: nn.Module, taps: Mapping[str, Tap]) -> None:
        self._spec = spec
        self._dtype: torch.dtype = getattr(torch, spec.precision)
        self.network = network.eval().requires_grad_(False).to(spec.device, self._dtype)
        # Convolutions run up to twice as fast on channels-last memory; transformers do not care.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
        self.part = TOKENS_PART if convolutions <= 1 else MAPS_PART
        self.taps = dict(taps)
        self._lock = threading.Lock()

    @property
    def spec(self) -> EncoderSpec:
        """Hard and soft facts."""
        return self._spec

    def cropped(self) -> TorchEncoder:
        """The same network seeing the centre of each image unresized; another encoder, by its fingerprint."""
        preprocessing = replace(self._spec.preprocessing, mode="crop")
        name = f"{self._spec.name}@crop"
        return self._variant(replace(self._spec, name=name, preprocessing=preprocessing))

    def resized_by(self, decoder: str) -> TorchEncoder:
        """The same encoder with images brought to size by ``"pillow"`` or ``"torch"``; another engine."""
        return self._variant(replace(self._spec, name=f"{self._spec.name}@{decoder}", decoder=decoder))

    def in_float32(self) -> TorchEncoder:
        """The same network with its weights as they now are in float32; of no more use to ``self``."""
        return self._variant(replace(self._spec, precision="float32"))

    def _variant(self, spec: EncoderSpec) -> TorchEncoder:
        other = TorchEncoder(spec, self.network, self.taps)
        other._lock = self._lock  # one network, one batch at a time
        return other

    def prepare(self, rgb: UInt8) -> UInt8:
        """uint8 (height, width, 3) → uint8 (size, size, 3)."""
        return prepare(rgb, self._spec.preprocessing, decoder=self._spec.decoder)

    def encode(self, batch: UInt8, layers: Sequence[str]) -> Mapping[str, Float32]:
        """uint8 (n, size, size, 3) → for each layer float32 (n, d), NOT unit norm."""
        check_call(self._spec, batch, layers)
        taps = {layer: self.taps[layer] for layer in layers}
        try:
            with self._lock, tapped(taps) as taken:
                passed = self._side_by_side(lambda part: self._passed(part, layers, taken), batch)
        except torch.OutOfMemoryError as error:
            raise too_little_memory(self._spec, len(batch)) from error
        return {layer: np.concatenate([rows[layer] for rows in passed]) for layer in layers}

    def _side_by_side(
        self, work: Callable[[UInt8], dict[str, Float32]], batch: UInt8
    ) -> list[dict[str, Float32]]:
        cores = pools.given()
        if self._spec.device != "cpu" or len(batch) < max(2, cores):
            return [work(batch)]
        parts = np.array_split(batch, cores * ceil(len(batch) / (cores * self.part)))
        return list(pools.pool("rd-network", cores).map(work, parts))

    @torch.inference_mode()
    def _passed(self, part: UInt8, layers: Sequence[str], taken: Taken) -> dict[str, Float32]:
        """The vectors of one forward pass."""
        taken.vectors = {}
        self.network(self.normalised(self.uploaded(part)))
        return {layer: self._checked(layer, taken.vectors.get(layer), len(part)) for layer in layers}

    def _checked(self, layer: str, vectors: Tensor | None, n: int) -> Float32:
        """A few of timm's thousand networks have blocks that are not what its list of them says."""
        if vectors is None or vectors.shape != (n, self.taps[layer].width):
            raise EncoderError(
                f"{self._spec.name} gives no vector an image at layer {layer}",
                hint="Choose other layers; proj always works.",
            )
        rows: Float32 = vectors.cpu().numpy()
        return rows

    def uploaded(self, batch: UInt8) -> Tensor:
        """On the device. From pinned memory, as the pipeline's is, the copy runs by itself."""
        squares = torch.from_numpy(np.require(batch, requirements=["C", "W"]))
        if self._spec.device == "cpu":
            return squares
        pinned = squares if squares.is_pinned() else squares.pin_memory()
        return pinned.to(self._spec.device, non_blocking=True)

    def normalised(self, squares: Tensor) -> Tensor:
        """uint8 (n, size, size, 3) → (n, 3, size, size), operation by operation as open_clip does it."""
        preprocessing, device = self._spec.preprocessing, squares.device
        mean = torch.tensor(preprocessing.mean, device=device).view(3, 1, 1)
        std = torch.tensor(preprocessing.std, device=device).view(3, 1, 1)
        pixels = squares.permute(0, 3, 1, 2).float().div_(255)
        return pixels.sub_(mean).div_(std).to(self._dtype)


class Taken(threading.local):
    """What taps took of the last passes of this very thread: layer → float32 (n, width)."""

    def __init__(self) -> None:
        self.vectors: dict[str, Tensor] = {}


@contextmanager
def tapped(taps: Mapping[str, Tap]) -> Iterator[Taken]:
    """Collect each tap's vectors while the network runs, in one thread or in several."""
    taken = Taken()

    def hook(layer: str, tap: Tap) -> Any:
        def take(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            passing = inputs[0] if tap.of_input else output
            # A copy: blocks that add in place would change a slice after it was taken.
            taken.vectors[layer] = tap.pool(passing).to(torch.float32, copy=True)

        return tap.module.register_forward_hook(take)

    handles = [hook(layer, tap) for layer, tap in taps.items()]
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def too_little_memory(spec: EncoderSpec, n: int) -> EncoderError:
    """For ``n`` images at once."""
    return EncoderError(
        f"{spec.device} has too little memory for {n} images at once",
        hint="Use a smaller --set batch-size=N.",
    )


def resolve_device(device: str) -> str:
    """``"auto"``, ``"cpu"`` or ``"cuda[:n]"`` → ``"cpu"`` or ``"cuda:n"``; an error if not there."""
    if device == "cpu":
        return device
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise UsageError(f"there is no device {device!r}", hint="Use auto, cpu, cuda or cuda:N.")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= found:
        raise EncoderError(
            f"device {device} was asked for, and torch finds {found or 'no'} CUDA device{'s' * (found != 1)}",
            hint="Use --device cpu, or install a CUDA build of torch and its driver.",
        )
    return f"cuda:{number or 0}"


def resolve_precision(precision: str, device: str, network: nn.Module) -> str:
    """``"auto"`` → the fastest precision that leaves neighbours as they are.

    float16 on a GPU and bfloat16 on a CPU that multiplies it in hardware; float32 elsewhere, and for
    networks with batch normalisation, whose running statistics do not survive 8 bits.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"there is no precision {precision!r}", hint=f"Use one of {', '.join(PRECISIONS)}.")
    if precision != "auto":
        return precision
    if any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules()):
        return "float32"
    if device != "cpu":
        return "float16"
    return "bfloat16" if cpu_multiplies_bfloat16() else "float32"


def decoder_for(precision: str) -> str:
    """Who brings images to size: torch where the network rounds more than torch's resize does, else Pillow.

    In float32 the network is also so slow that nothing would be gained.
    """
    return "pillow" if precision == "float32" else "torch"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has bfloat16 products in hardware (AVX-512 BF16 or AMX); emulated ones are slow."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def has_quick_gelu(network: nn.Module) -> bool:
    """Whether the built network computes GELU as x · sigmoid(1.702 x), as OpenAI's CLIP does."""
    return any(type(module).__name__ == "QuickGELU" for module in network.modules())
