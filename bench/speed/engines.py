"""Who runs the network fastest on a CPU: torch, OpenVINO, torch.compile, ONNX Runtime.

``python -m bench.speed.engines``: each engine beside torch as rd runs it, in turns, by the batches that rd
uses; then a folder through rd's whole pipeline with torch and OpenVINO. About five minutes on two idle
cores; run it alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench._frame import Clock, about, carry_out, origin, parser_of, rounded
from bench._machine import ROOT, commit
from bench._timing import rounds_of
from bench.speed.embed import (
    FLOPS_AN_IMAGE,
    MODEL,
    _gemm_flops,
    _in_turns,
    _random_weights,
    _resized,
    _seconds,
)
from retrieval_detect.encoders.canaries import canary_images, centred_distance
from retrieval_detect.encoders.pipeline import CPU_BATCH, embed
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder
from retrieval_detect.images.items import file_item

_LARGE = "ViT-L-14"  # of it only what gained something on the others
MODELS = {MODEL: 64, OFFLINE_ENCODER: 128, _LARGE: 16}
"""Networks, and the images a round passes through each."""
ROUNDS, SIDE = 5, 512
LAYER = "proj"
_SLOW = "compile"  # a tenth of torch's speed in bfloat16: a round of few images tells as much

Encode = Callable[[Any], Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("speed.engines", __doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--quick", action="store_true", help="A few images: tries the code, measures nothing."
    )
    options = parser.parse_args(arguments)
    measured = lambda: rounded(measure(options.data, options.models, quick=options.quick))  # noqa: E731
    carry_out("engines", options, measured, table)


def measure(data: Path, models: Sequence[str], *, quick: bool = False) -> dict[str, Any]:
    """All numbers of one run."""
    clock, command = Clock(), f"python -m bench.speed.engines --models {' '.join(models)}"
    head = about("speed/engines", command=command, git_commit=commit())
    rounds, found = (1 if quick else ROUNDS), {}
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        paths = _resized(sorted(data.glob("*/*/*.jpg")), SIDE, work / "images")
        for model in models:
            clock.say(model)
            weights = None
            if model != OFFLINE_ENCODER:
                weights = _random_weights(work / f"{model}.safetensors", model)
            n = 16 if quick else MODELS[model]
            found[model] = _model(model, weights, paths[:n], rounds)
    return {
        **head,
        "versions": head["versions"] | {name: version(name) for name in ("onnxruntime", "openvino")},
        "rounds": rounds,
        "models": found,
        "elapsed_s": clock.elapsed_s,
    }


def _model(name: str, weights: Path | None, paths: Sequence[Path], rounds: int) -> dict[str, Any]:
    def loaded(mark: str = "", precision: str = "auto") -> Any:
        return load_encoder(f"{name}{mark}", weights=weights, device="cpu", precision=precision)

    torch_, openvino, exact = loaded(), loaded("@openvino"), loaded(precision="float32")
    ways: dict[str, Encode] = {
        "torch": _encode(torch_),
        "openvino": _encode(openvino),
    }
    if name != _LARGE:
        ways |= {"compile": _encode(loaded("@compile")), "onnxruntime": _onnxruntime(exact)}
    canaries = np.stack([exact.prepare(image) for image in canary_images()])
    reference = _encode(exact)(canaries)
    first_s = {way: _seconds(partial(run, canaries)) for way, run in ways.items()}
    drift = {way: centred_distance(reference, run(canaries)) for way, run in ways.items()}
    squares = np.resize(canaries, (len(paths), *canaries.shape[1:]))
    rates = _in_turns(
        {way: _rate(run, squares[: 16 if way == _SLOW else None]) for way, run in ways.items()}
        | {"gemm_flops": lambda: _gemm_flops(torch_.spec.precision)}
        | {f"folder_{e.spec.runtime}": _folder_rate(e, paths) for e in (torch_, openvino)},
        rounds,
    )
    return {
        "images": len(paths),
        "engine": torch_.spec.engine,
        "per_s": {way: rounds_of(rates[way]) for way in ways},
        "over_torch": {way: _ratio(rates, way, "torch") for way in ways},
        "first_batch_s": first_s,
        "centred_distance_to_float32": drift,
        "folder_per_s": {e: rounds_of(rates[f"folder_{e}"]) for e in ("torch", "openvino")},
        "folder_openvino_over_torch": _ratio(rates, "folder_openvino", "folder_torch"),
        "gemm_flops_per_s": rounds_of(rates["gemm_flops"]),
    } | (_shares(rates) if name == MODEL else {})


def _ratio(rates: Mapping[str, Sequence[float]], way: str, other: str) -> float:
    return median(a / b for a, b in zip(rates[way], rates[other], strict=True))


def _shares(rates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Of what the largest product of matrices allows."""
    ways = ("torch", "openvino", "folder_torch", "folder_openvino")
    return {
        "share_of_bound": {way: FLOPS_AN_IMAGE * _ratio(rates, way, "gemm_flops") for way in ways},
    }


def _encode(encoder: Any) -> Encode:
    return lambda batch: encoder.encode(batch, [LAYER])[LAYER]


def _onnxruntime(encoder: Any) -> Encode:
    """The float32 graph: on a CPU its kernels know no bfloat16."""
    import torch

    from retrieval_detect.encoders.engines import traced

    onnxruntime: Any = import_module("onnxruntime")
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(traced(encoder, [LAYER]), f=str(path), dynamo=True, verbose=False)
        asked = onnxruntime.SessionOptions()
        asked.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), asked, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _rate(encode: Encode, squares: Any) -> Callable[[], float]:
    import torch

    size = CPU_BATCH * torch.get_num_threads()
    batches = [squares[start : start + size] for start in range(0, len(squares), size)]
    return lambda: len(squares) / _seconds(lambda: [encode(batch) for batch in batches])


def _folder_rate(encoder: Any, paths: Sequence[Path]) -> Callable[[], float]:
    def run() -> None:
        for _ in embed((file_item(path, path.name) for path in paths), encoder, layers=[LAYER]):
            pass

    return lambda: len(paths) / _seconds(run)


# ---------------------------------------------------------------- Markdown


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{origin(result)}; medians of {result['rounds']} rounds in turns.",
        "",
        "| network, torch's engine | run by | images/s | over torch | first batch | from float32, centred |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in result["models"].items():
        for way, rate in found["per_s"].items():
            faster = found["over_torch"][way]
            lines.append(
                f"| {name}, {found['engine']} | {way} | {rate['median']:.1f} | {faster:.2f} | "
                f"{found['first_batch_s'][way]:.1f} s | {found['centred_distance_to_float32'][way]:.0e} |"
            )
        folder, share = found["folder_per_s"], found.get("share_of_bound", {})
        limits = "; of the largest product" * bool(share) + "".join(
            f", {way.replace('folder_', 'files, ')} {of:.2f}" for way, of in share.items()
        )
        lines.append(
            f"| {name}, files → vectors | openvino | {folder['openvino']['median']:.1f} | "
            f"{found['folder_openvino_over_torch']:.2f} | | torch {folder['torch']['median']:.1f}{limits} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
