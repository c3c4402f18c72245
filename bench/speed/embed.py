"""From file to stored vector, beside open_clip and the machine's limit: ``python -m bench.speed.embed``.

Real photographs brought to two sizes, a ViT-B-32 with random weights: time does not ask what they were
trained on. What is compared runs in turns. About seven minutes on two idle cores; run it alone.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from bench._frame import Clock, about, carry_out, parser_of, rounded
from bench._machine import ROOT, commit
from bench._timing import rounds_of, took
from bench.speed._embed_tables import table
from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.images.decode import decode
from retrieval_detect.images.items import file_item, from_bytes
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.plans import plan
from retrieval_detect.types import Facts, Preprocessing

MODEL, FLOPS_AN_IMAGE = "ViT-B-32", 8.82e9
"""Two operations a multiplication: 49 patches and a class token through 12 blocks of width 768."""
SIDES, QUALITY = (512, 1024), 90
N_DECODED, N_EMBEDDED, N_PARITY = 24, 192, 48
ROUNDS = 5
LOADER_BATCH, LOADER_WORKERS = 32, 2
HELD = (2_000, 20_000)
_GEMM_SIDE, _GEMM_TIMES = 2048, 12
_RD = ("-m", "retrieval_detect")

Clock_s = Callable[[], float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("speed.embed", __doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--clip-retrieval", type=Path, metavar="FOLDER", help="Where that package lies.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.hold:
        _hold(options.data, options.hold)
        return
    measured = lambda: rounded(measure(options.data, options.clip_retrieval, options.rounds))  # noqa: E731
    carry_out("embed", options, measured, table)


def measure(data: Path, peer: Path | None, rounds: int) -> dict[str, Any]:
    """All numbers of one run."""
    clock = Clock()
    head = about("speed/embed", command="python -m bench.speed.embed", git_commit=commit())
    photographs = sorted(data.glob("*/*/*.jpg"))
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        weights = _random_weights(work / "random.safetensors")
        folders = {side: _resized(photographs, side, work / str(side)) for side in SIDES}
        clock.say("decode and resize")
        decoding = {str(side): _decoding(folders[side], peer, rounds) for side in SIDES}
        clock.say("parity with open_clip's transform")
        parity = _parity(photographs, weights)
        clock.say("folder to stored vectors")
        embedding = _embedding(folders[SIDES[0]], weights, work, rounds)
        clock.say("starting")
        starting = _starting(photographs, work, rounds)
        clock.say("memory")
        holding = {
            str(n): took("-m", "bench.speed.embed", "--data", str(data), "--hold", str(n)) for n in HELD
        }
    return {
        "benchmark": "speed/embed",
        "model": MODEL,
        **head,
        "rounds": rounds,
        "decode_and_resize": decoding,
        "parity": parity,
        "embed": embedding,
        "start": starting,
        "peak_bytes_by_images": {n: done.peak_bytes for n, done in holding.items()},
        "elapsed_s": clock.elapsed_s,
    }


# ---------------------------------------------------------------- what is measured on


def _random_weights(path: Path, model_name: str = MODEL) -> Path:
    import torch
    from safetensors.torch import save_file

    open_clip = _open_clip()
    torch.manual_seed(0)
    model = open_clip.create_model(model_name, load_weights=False)
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, path)
    return path


def _open_clip() -> Any:
    from retrieval_detect.encoders._libraries import ensure_torchvision

    ensure_torchvision()
    import open_clip

    return open_clip


def _resized(photographs: Sequence[Path], side: int, folder: Path) -> list[Path]:
    folder.mkdir()
    chosen = photographs[:: max(1, len(photographs) // N_EMBEDDED)][:N_EMBEDDED]
    for number, path in enumerate(chosen):
        image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:04}.jpg", quality=QUALITY)
    return sorted(folder.iterdir())


# ---------------------------------------------------------------- decode and resize


def _decoding(paths: Sequence[Path], peer: Path | None, rounds: int) -> dict[str, Any]:
    """Images per second of one core's time, from files in the page cache to what the network is given."""
    import torch

    from retrieval_detect.encoders.preprocess import prepare

    transform = _transform()
    ours = Preprocessing("clip", 224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    ways: dict[str, Callable[[Path], Any]] = {
        "rd": lambda path: prepare(decode(path.read_bytes()).rgb, ours, decoder="torch"),
        "rd_reference": lambda path: prepare(decode(path.read_bytes()).rgb, ours, decoder="pillow"),
        "open_clip": lambda path: transform(Image.open(path)),
        "decode_only": lambda path: decode(path.read_bytes()),
    }
    if peer:
        read = _clip_retrieval_reader(peer, paths[0].parent, transform)
        position = {path: number for number, path in enumerate(paths)}
        ways["clip_retrieval"] = lambda path: read[position[path]]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rates = _in_turns({name: _rate(way, paths[:N_DECODED]) for name, way in ways.items()}, rounds)
    torch.set_num_threads(before)
    return _with_ratios(rates, "rd", ("open_clip", "clip_retrieval"))


def _rate(way: Callable[[Path], Any], paths: Sequence[Path]) -> Callable[[], float]:
    def run() -> float:
        started = time.thread_time()
        for path in paths:
            way(path)
        return len(paths) / (time.thread_time() - started)

    return run


def _transform() -> Any:
    _open_clip()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(size=224), is_train=False)


def _clip_retrieval_reader(peer: Path, folder: Path, transform: Any) -> Any:
    """Its dataset alone: the package itself would import a web server."""
    for name, place in (
        ("clip_retrieval", peer / "clip_retrieval"),
        ("clip_retrieval.clip_inference", peer / "clip_retrieval" / "clip_inference"),
    ):
        package = ModuleType(name)
        package.__path__ = [str(place)]
        sys.modules[name] = package
    from clip_retrieval.clip_inference.reader import get_image_dataset  # type: ignore[import-not-found]

    return get_image_dataset()(transform, None, folder, enable_text=False)


def _parity(photographs: Sequence[Path], weights: Path) -> dict[str, float]:
    """Vectors of several formats and shapes by torch's resize, beside open_clip's transform, in float32."""
    import torch

    from retrieval_detect.encoders.canaries import centred_distance

    encoder: Any = load_encoder(f"{MODEL}@torch", weights=weights, device="cpu", precision="float32")
    files = list(_mixed(photographs))
    ours = encoder.encode(np.stack([encoder.prepare(decode(data).rgb) for data in files]), ["proj"])["proj"]
    transform = _transform()
    pixels = torch.stack([transform(Image.open(io.BytesIO(data))) for data in files])
    with torch.inference_mode():
        theirs = torch.cat([encoder.network(part) for part in torch.split(pixels, 16)]).numpy()
    a, b = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (ours.astype(float), theirs.astype(float))
    )
    return {
        "images": len(files),
        "largest_cosine_distance": float((1 - np.einsum("nd,nd->n", a, b)).max()),
        "largest_centred_cosine_distance": centred_distance(a, b),
    }


def _mixed(photographs: Sequence[Path]) -> Iterator[bytes]:
    sizes = [(256, 256), (512, 512), (1024, 768), (427, 640), (300, 200), (1600, 1200), (225, 224)]
    kinds = [("JPEG", "RGB"), ("PNG", "RGB"), ("WEBP", "RGB"), ("JPEG", "L")]
    for number, path in enumerate(photographs[:: max(1, len(photographs) // N_PARITY)][:N_PARITY]):
        kind, mode = kinds[number % len(kinds)]
        image = Image.open(path).convert("RGB").resize(sizes[number % len(sizes)], Image.Resampling.BICUBIC)
        image.convert(mode).save(file := io.BytesIO(), kind)
        yield file.getvalue()


# ---------------------------------------------------------------- folder to stored vectors


def _embedding(paths: Sequence[Path], weights: Path, work: Path, rounds: int) -> dict[str, Any]:
    encoder: Any = load_encoder(MODEL, weights=weights, device="cpu")
    loop = _OpenClipLoop(weights)
    squares = np.stack([encoder.prepare(decode(path.read_bytes()).rgb) for path in paths])
    layers = [layer for layer in encoder.spec.layers if not layer.startswith("heads")][:4]
    few = paths[: len(paths) // 2]

    def per_s(run: Callable[[], object], n: int) -> Callable[[], float]:
        return lambda: n / _seconds(run)

    rates = _in_turns(
        {
            "rd": per_s(lambda: _stored(encoder, paths, work / "index"), len(paths)),
            "rd_encoder_alone": per_s(lambda: encoder.encode(squares, ["proj"]), len(squares)),
            "rd_four_layers": per_s(lambda: _stored(encoder, paths, work / "index", layers), len(paths)),
            "open_clip_float32": per_s(lambda: loop.stored(few, work / "vectors.npy"), len(few)),
            "gemm_flops": lambda: _gemm_flops(encoder.spec.precision),
        },
        rounds,
    )
    found = _with_ratios(rates, "rd", ("open_clip_float32", "rd_encoder_alone", "rd_four_layers"))
    bound = [flops / FLOPS_AN_IMAGE for flops in rates["gemm_flops"]]
    return found | {
        "images": len(paths),
        "engine": encoder.spec.engine,
        "bound_images_per_s": median(bound),
        "share_of_bound": median(rd / limit for rd, limit in zip(rates["rd"], bound, strict=True)),
        "encoder_alone_share_of_bound": median(
            rate / limit for rate, limit in zip(rates["rd_encoder_alone"], bound, strict=True)
        ),
    }


def _stored(encoder: Any, paths: Sequence[Path], folder: Path, layers: Sequence[str] = ("proj",)) -> None:
    """Plan, hash, embed, commit; the canaries of a new index are not counted against many images."""
    known = folder.with_name(f"empty-{len(layers)}")
    if not known.exists():
        Index.create(known, encoder=encoder, layers=layers)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(known, folder)
    index = Index.open(folder)
    inputs = ((file_item(path, path.name), Facts("real", source="bench")) for path in paths)
    index.apply(plan(inputs, index.snapshot()), encoder=encoder)


class _OpenClipLoop:
    """What its README leads to: its model in float32, its transform, torch's DataLoader."""

    def __init__(self, weights: Path, model_name: str = MODEL) -> None:
        made = _open_clip().create_model_and_transforms(model_name, pretrained=str(weights))
        model, _, self._transform = made
        self._model = model.eval()

    def stored(self, paths: Sequence[Path], out: Path) -> None:
        import torch
        from torch.utils.data import DataLoader

        transform = self._transform

        class Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
            def __len__(self) -> int:
                return len(paths)

            def __getitem__(self, i: int) -> Any:
                return transform(Image.open(paths[i]))

        with torch.inference_mode():
            loader = DataLoader(Files(), batch_size=LOADER_BATCH, num_workers=LOADER_WORKERS)
            parts = [self._model.encode_image(batch, normalize=True) for batch in loader]
        np.save(out, torch.cat(parts).half().numpy())


def _gemm_flops(precision: str, clock: Clock_s = time.perf_counter) -> float:
    """Operations a second of one large product by all cores: what no network can pass."""
    import torch

    a, b = (torch.randn(_GEMM_SIDE, _GEMM_SIDE).to(getattr(torch, precision)) for _ in range(2))
    torch.mm(a, b)
    took_s = min(_seconds(lambda: torch.mm(a, b), clock) for _ in range(_GEMM_TIMES))
    return 2 * _GEMM_SIDE**3 / took_s


# ---------------------------------------------------------------- starting, and holding


def _starting(photographs: Sequence[Path], work: Path, rounds: int) -> dict[str, Any]:
    index = work / "started"
    encoder = load_encoder("efficientnet-lite0", device="cpu")
    made = Index.create(index, encoder=encoder)
    for label in ("real", "fake"):
        of_label = [path for path in photographs if path.parts[-3] == label][:20]
        items = [file_item(path, path.name) for path in of_label]
        made.apply(
            made.plan_add(items, label=label, generator="g" if label == "fake" else ""), encoder=encoder
        )
    asked = str(photographs[-1])
    commands: dict[str, tuple[str, ...]] = {
        "rd_help_s": (*_RD, "--help"),
        "cold_query_s": (*_RD, "query", asked, "--index", str(index)),
        "cold_bare_script_s": ("-m", "bench._bare", asked),
    }

    def cold(command: tuple[str, ...]) -> Callable[[], float]:
        return lambda: took(*command).elapsed_s

    times = _in_turns({name: cold(command) for name, command in commands.items()}, rounds)
    pairs = zip(times["cold_query_s"], times["cold_bare_script_s"], strict=True)
    return {name: rounds_of(values) for name, values in times.items()} | {
        "query_over_bare": median(rd / bare for rd, bare in pairs)
    }


def _hold(data: Path, n: int) -> None:
    """``n`` different images through the pipeline, by the toy encoder: run alone to see what it holds."""
    files = [path.read_bytes() for path in sorted(data.glob("*/*/*.jpg"))[:200]]
    items = (from_bytes(files[i % len(files)] + i.to_bytes(8, "big"), f"{i}.jpg") for i in range(n))
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        encoder = load_encoder("tiny")
        with (Path(folder) / "vectors").open("wb") as out:
            for found in embed(items, encoder, layers=["proj"]):
                out.write(found.vectors["proj"].tobytes())  # type: ignore[union-attr]


# ---------------------------------------------------------------- turns


def _in_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each way once a round, after a round that does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    with redirect_stdout(sys.stderr):
        for turn in range(rounds + 1):
            for name, run in ways.items():
                value = run()
                if turn:
                    found[name].append(value)
    return found


def _seconds(run: Callable[[], object], clock: Clock_s = time.perf_counter) -> float:
    started_s = clock()
    run()
    return clock() - started_s


def _with_ratios(rates: Mapping[str, list[float]], ours: str, others: Sequence[str]) -> dict[str, Any]:
    """Rates a second, and the median over rounds of ours over each other's."""
    ratios = {
        f"{ours}_over_{name}": median(a / b for a, b in zip(rates[ours], rates[name], strict=True))
        for name in others
        if name in rates
    }
    return {f"{name}_per_s": rounds_of(values) for name, values in rates.items()} | ratios


if __name__ == "__main__":
    main()
