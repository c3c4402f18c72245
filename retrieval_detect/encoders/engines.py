"""The same network run by another engine: traced into a graph once, and compiled by OpenVINO or by torch."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval_detect import pools
from retrieval_detect.encoders._torch import TorchEncoder, tapped, too_little_memory
from retrieval_detect.encoders.base import check_call
from retrieval_detect.errors import EncoderError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retrieval_detect.types import EncoderSpec, Float32, UInt8

Run = Callable[["UInt8"], "list[Float32]"]
"""uint8 (n, size, size, 3) → float32 (n, d) for each layer that it was compiled for."""

_PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_REFUSALS = (RuntimeError, ValueError, TypeError, KeyError, AttributeError)
_TRACED_WITH = 2  # images; of one, a tracer would not learn that there can be more


class CompiledEncoder:
    """A network of torch, run by another engine. Satisfies ``encoders.base.Encoder``.

    What is compiled has fixed outputs, so each choice of layers is compiled by itself, unless one was
    that has them all. That takes seconds to a minute: worth it for thousands of images. The spec keeps
    the name of the encoder, for an index must not ask for an engine wherever it is opened;
    ``spec.runtime`` says who ran it.
    """

    def __init__(self, encoder: TorchEncoder, runtime: str) -> None:
        """``runtime`` : one of ``ENGINES``. The network of ``encoder`` is taken over."""
        self._spec, self._compile = replace(encoder.spec, runtime=runtime), ENGINES[runtime]
        self._encoder = _ready(encoder) if runtime == "openvino" else encoder
        self._compiled: dict[tuple[str, ...], Run] = {}
        self._lock = threading.Lock()

    @property
    def spec(self) -> EncoderSpec:
        """Hard and soft facts."""
        return self._spec

    def prepare(self, rgb: UInt8) -> UInt8:
        """uint8 (height, width, 3) → uint8 (size, size, 3)."""
        return self._encoder.prepare(rgb)

    def encode(self, batch: UInt8, layers: Sequence[str]) -> Mapping[str, Float32]:
        """uint8 (n, size, size, 3) → for each layer float32 (n, d), NOT unit norm."""
        check_call(self._spec, batch, layers)
        try:
            with self._lock:
                given, run = self._for(tuple(layers))
                found = dict(zip(given, run(batch), strict=True))
        except torch.OutOfMemoryError as error:
            raise too_little_memory(self._spec, len(batch)) from error
        except _REFUSALS as error:  # torch.compile makes its code when the first batch passes
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise EncoderError(
                f"{self._spec.runtime} cannot run {self._spec.name}: {reason}",
                hint=f"Run it by torch: {self._spec.name}, without @{self._spec.runtime}.",
            ) from error
        return {layer: found[layer] for layer in layers}

    def _for(self, layers: tuple[str, ...]) -> tuple[tuple[str, ...], Run]:
        """What gives these layers, others beside them perhaps, and all that it gives."""
        fitting = (given for given in self._compiled if set(layers) <= set(given))
        if (given := next(fitting, None)) is None:
            given = layers
            with warnings.catch_warnings():  # what tracers and converters say to their own developers
                warnings.simplefilter("ignore")
                self._compiled[given] = self._compile(self._encoder, self._spec, layers)
        return given, self._compiled[given]


class _Layers(nn.Module):
    """Squares in, all layers out: hooks leave no trace in a graph, so it is traced as a whole."""

    def __init__(self, encoder: TorchEncoder, layers: Sequence[str]) -> None:
        super().__init__()
        self._network, self._normalised = encoder.network, encoder.normalised
        self._taps = {layer: encoder.taps[layer] for layer in layers}

    def forward(self, squares: Tensor) -> tuple[Tensor, ...]:
        """uint8 (n, size, size, 3) → float32 (n, d) for each layer."""
        with tapped(self._taps) as taken:
            self._network(self._normalised(squares))
        return tuple(taken.vectors[layer] for layer in self._taps)


def traced(encoder: TorchEncoder, layers: Sequence[str]) -> Any:
    """The graph, for any number of images."""
    size, device = encoder.spec.preprocessing.size, encoder.spec.device
    squares = torch.zeros((_TRACED_WITH, size, size, 3), dtype=torch.uint8, device=device)
    with torch.no_grad():
        return torch.export.export(
            _Layers(encoder, layers), (squares,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
        )


# ---------------------------------------------------------------- OpenVINO


def _ready(encoder: TorchEncoder) -> TorchEncoder:
    """OpenVINO is given float32 and rounds by itself."""
    if encoder.spec.device != "cpu":
        raise UsageError(
            f"@openvino runs on a CPU, not on {encoder.spec.device}", hint="Use --device cpu, or @compile."
        )
    _openvino()
    return encoder.in_float32()


def _openvino() -> Any:
    try:
        return import_module("openvino")  # it brings no types
    except ImportError as error:
        raise EncoderError(
            "OpenVINO is not installed",
            hint="pip install 'retrieval-detect[openvino]', or leave @openvino out.",
        ) from error


def _by_openvino(encoder: TorchEncoder, spec: EncoderSpec, layers: Sequence[str]) -> Run:
    """One stream a core, as ``TorchEncoder`` does it, and for the same reasons."""
    openvino, size, cores = _openvino(), spec.preprocessing.size, pools.given()
    model = openvino.convert_model(traced(encoder, layers))
    model.reshape([-1, size, size, 3])
    asked = {
        "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[spec.precision],
        "INFERENCE_NUM_THREADS": cores,
        "NUM_STREAMS": cores,
    }
    compiled = openvino.Core().compile_model(model, "CPU", asked)
    # Without callbacks of ours: a thread of OpenVINO that waits for the interpreter's lock to let go of one
    # hangs with whoever takes the model down and holds that lock.
    requests = [compiled.create_infer_request() for _ in range(cores)]

    def run(batch: UInt8) -> list[Float32]:
        # As many for each core, and no part empty.
        n_parts = min(len(batch), cores * ceil(len(batch) / (cores * encoder.part)))
        parts = np.array_split(batch, n_parts)
        found: list[list[Float32]] = []
        for first in range(0, len(parts), cores):
            busy = list(zip(requests, parts[first : first + cores], strict=False))
            for request, part in busy:
                request.start_async([part])
            for request, _ in busy:
                request.wait()
                found.append([tensor.data.copy() for tensor in request.output_tensors])
        return [np.concatenate(rows) for rows in zip(*found, strict=True)]

    return run


# ---------------------------------------------------------------- torch.compile


def _by_torch(encoder: TorchEncoder, _spec: EncoderSpec, layers: Sequence[str]) -> Run:
    graph: Any = torch.compile(traced(encoder, layers).module())

    def run(batch: UInt8) -> list[Float32]:
        with torch.no_grad():
            return [rows.cpu().numpy() for rows in graph(encoder.uploaded(batch))]

    return run


ENGINES: dict[str, Callable[[TorchEncoder, EncoderSpec, Sequence[str]], Run]] = {
    "openvino": _by_openvino,
    "compile": _by_torch,
}
