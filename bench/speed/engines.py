"""Who runs the network fastest on a CPU: torch, OpenVINO, torch.compile, ONNX Runtime.

``python -m bench.speed.engines``: each engine beside torch as rd runs it, in turns, by the batches that rd
uses; then a folder through rd's whole pipeline with torch and OpenVINO. About five minutes on two idle
cores; run it alone. On a machine that others use, ``--core-seconds`` counts processor time.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
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
    Clock_s,
    _gemm_flops,
    _in_turns,
    _OpenClipLoop,
    _random_weights,
    _resized,
    _seconds,
)
from retrieval_detect.encoders.canaries import canary_images, centred_distance
from retrieval_detect.encoders.clip_b16 import ARCHITECTURE
from retrieval_detect.encoders.pipeline import CPU_BATCH, embed
from retrieval_detect.encoders.registry import CLIP_ENCODER, OFFLINE_ENCODER, load_encoder
from retrieval_detect.images.items import file_item

_LARGE = "ViT-L-14"
_SLOWER = (_LARGE, CLIP_ENCODER)  # of them only what gained something on the others
MODELS = {MODEL: 64, OFFLINE_ENCODER: 128, _LARGE: 16, CLIP_ENCODER: 16}
"""Networks, and the images a round passes through each."""
FLOPS = {MODEL: FLOPS_AN_IMAGE, CLIP_ENCODER: 35.1e9}
"""Two operations a multiplication, an image; of the second 196 patches and a class token."""
ROUNDS, SIDE = 5, 512
_RUNTIMES = ("onnxruntime", "openvino")
LAYER = "proj"
_SLOW = "compile"  # a tenth of torch's speed in bfloat16: a round of few images tells as much

Encode = Callable[[Any], Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("speed.engines", __doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--core-seconds", action="store_true", help="Count processor time of all threads, not elapsed time."
    )
    parser.add_argument(
        "--quick", action="store_true", help="A few images: tries the code, measures nothing."
    )
    options = parser.parse_args(arguments)
    carry_out("engines", options, lambda: rounded(measure(options)), table)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run."""
    clock, models, quick = Clock(), options.models, options.quick
    counted = " --core-seconds" * options.core_seconds
    command = f"python -m bench.speed.engines --models {' '.join(models)}{counted}"
    head = about("speed/engines", command=command, git_commit=commit())
    rounds, found = (1 if quick else ROUNDS), {}
    timer = _core_s if options.core_seconds else time.perf_counter
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        paths = _resized(sorted(options.data.glob("*/*/*.jpg")), SIDE, work / "images")
        for model in models:
            clock.say(model)
            n = 16 if quick else MODELS[model]
            found[model] = _model(model, _Turns(paths[:n], rounds, timer), work)
    return {
        **head,
        "versions": head["versions"] | {name: version(name) for name in _RUNTIMES if find_spec(name)},
        "rounds": rounds,
        "core_seconds": options.core_seconds,
        "models": found,
        "elapsed_s": clock.elapsed_s,
    }


@dataclass(frozen=True)
class _Turns:
    """What is passed through every network: files, how often, and what seconds are."""

    paths: Sequence[Path]
    rounds: int
    timer: Clock_s


def _core_s() -> float:
    """Processor time of all threads, and of processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _model(name: str, turns: _Turns, work: Path) -> dict[str, Any]:
    architecture = ARCHITECTURE if name == CLIP_ENCODER else name
    open_clips = name != OFFLINE_ENCODER
    random = _random_weights(work / f"{architecture}.safetensors", architecture) if open_clips else None
    weights = random if architecture == name else None

    def loaded(mark: str = "", precision: str = "auto") -> Any:
        return load_encoder(f"{name}{mark}", weights=weights, device="cpu", precision=precision)

    torch_, openvino, exact = loaded(), loaded("@openvino"), loaded(precision="float32")
    ways: dict[str, Encode] = {
        "torch": _encode(torch_),
        "openvino": _encode(openvino),
    }
    if name not in _SLOWER:
        ways |= {"compile": _encode(loaded("@compile")), "onnxruntime": _onnxruntime(exact)}
    canaries = np.stack([exact.prepare(image) for image in canary_images()])
    reference = _encode(exact)(canaries)
    first_s = {way: _seconds(partial(run, canaries), turns.timer) for way, run in ways.items()}
    drift = {way: centred_distance(reference, run(canaries)) for way, run in ways.items()}
    squares = np.resize(canaries, (len(turns.paths), *canaries.shape[1:]))
    run = {way: _rate(run, squares[: 16 if way == _SLOW else None], turns) for way, run in ways.items()}
    run |= {"gemm_flops": lambda: _gemm_flops(torch_.spec.precision, turns.timer)}
    run |= {f"folder_{e.spec.runtime}": _folder_rate(e, turns) for e in (torch_, openvino)}
    if random:
        run |= {"folder_open_clip": _open_clip_rate(_OpenClipLoop(random, architecture), turns, work)}
    rates = _in_turns(run, turns.rounds)
    return {
        "images": len(turns.paths),
        "engine": torch_.spec.engine,
        "per_s": {way: rounds_of(rates[way]) for way in ways},
        "over_torch": {way: _ratio(rates, way, "torch") for way in ways},
        "first_batch_s": first_s,
        "centred_distance_to_float32": drift,
        **_folders(rates),
        "gemm_flops_per_s": rounds_of(rates["gemm_flops"]),
    } | (_shares(rates, FLOPS[name]) if name in FLOPS else {})


def _folders(rates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Files to vectors, and how much faster than who."""
    read = {way.removeprefix("folder_"): rates[way] for way in rates if way.startswith("folder_")}
    faster = {"folder_openvino_over_torch": _ratio(read, "openvino", "torch")}
    if "open_clip" in read:
        over = {way: _ratio(read, way, "open_clip") for way in ("torch", "openvino")}
        faster |= {"folder_over_open_clip": over}
    return {"folder_per_s": {way: rounds_of(values) for way, values in read.items()}, **faster}


def _ratio(rates: Mapping[str, Sequence[float]], way: str, other: str) -> float:
    return median(a / b for a, b in zip(rates[way], rates[other], strict=True))


def _shares(rates: Mapping[str, Sequence[float]], flops_an_image: float) -> dict[str, Any]:
    """Of what the largest product of matrices allows."""
    ways = ("torch", "openvino", "folder_torch", "folder_openvino")
    return {
        "share_of_bound": {way: flops_an_image * _ratio(rates, way, "gemm_flops") for way in ways},
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


def _rate(encode: Encode, squares: Any, turns: _Turns) -> Callable[[], float]:
    import torch

    size = CPU_BATCH * torch.get_num_threads()
    batches = [squares[start : start + size] for start in range(0, len(squares), size)]
    return lambda: len(squares) / _seconds(lambda: [encode(batch) for batch in batches], turns.timer)


def _folder_rate(encoder: Any, turns: _Turns) -> Callable[[], float]:
    def run() -> None:
        for _ in embed((file_item(path, path.name) for path in turns.paths), encoder, layers=[LAYER]):
            pass

    return lambda: len(turns.paths) / _seconds(run, turns.timer)


def _open_clip_rate(loop: _OpenClipLoop, turns: _Turns, work: Path) -> Callable[[], float]:
    stored = partial(loop.stored, turns.paths, work / "vectors.npy")
    return lambda: len(turns.paths) / _seconds(stored, turns.timer)


# ---------------------------------------------------------------- Markdown


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    counted, what = ("", "images/s")
    if result.get("core_seconds"):
        what, counted = "images a core-second", ", in processor time (others used the machine)"
    lines = [
        f"{origin(result)}; medians of {result['rounds']} rounds in turns{counted}.",
        "",
        f"| network, torch's engine | run by | {what} | over torch | first batch | from float32, centred |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in result["models"].items():
        for way, rate in found["per_s"].items():
            faster = found["over_torch"][way]
            lines.append(
                f"| {name}, {found['engine']} | {way} | {rate['median']:.1f} | {faster:.2f} | "
                f"{found['first_batch_s'][way]:.1f} s | {found['centred_distance_to_float32'][way]:.0e} |"
            )
        lines.append(_folder_line(name, found))
    return "\n".join(lines)


def _folder_line(name: str, found: Mapping[str, Any]) -> str:
    folder, share = found["folder_per_s"], found.get("share_of_bound", {})
    limits = "; of the largest product" * bool(share) + "".join(
        f", {way.replace('folder_', 'files, ')} {of:.2f}" for way, of in share.items()
    )
    loop = ""
    if "open_clip" in folder:
        faster = ", ".join(f"{way} {ratio:.2f}" for way, ratio in found["folder_over_open_clip"].items())
        loop = f", open_clip's own float32 loop {folder['open_clip']['median']:.1f} (over it: {faster})"
    return (
        f"| {name}, files → vectors | openvino | {folder['openvino']['median']:.1f} | "
        f"{found['folder_openvino_over_torch']:.2f} | | torch {folder['torch']['median']:.1f}{loop}{limits} |"
    )


if __name__ == "__main__":
    main()
