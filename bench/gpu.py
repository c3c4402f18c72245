"""Everything that wants a GPU, in one command: ``python -m bench.gpu``; under eight minutes.

Encoding: ViT-L-14 (random weights) beside open_clip run as it comes, and the device's own largest
product of matrices. Searching: 1,000,000 × 768 for 1 and 1,024 queries, beside FAISS's GpuIndexFlat as it
comes, and the speed at which the device copies its memory. ``--device cpu`` with ``--rows`` tries the code
where there is no GPU; its numbers mean nothing and are written
only where ``--out`` says.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench._frame import about, carry_out, parser_of, rounded
from bench._machine import commit
from bench.speed.search import PROJECTION, D, made

MODEL, ROUNDS, K = "ViT-L-14", 5, 10
QUERIES = (1, 1024)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table; without a GPU say so and stop."""
    parser = parser_of("gpu", __doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", default=MODEL)
    options = parser.parse_args(arguments)
    import torch

    options.quick = options.device == "cpu"
    if not (options.quick or options.render or torch.cuda.is_available()):
        raise SystemExit("torch sees no GPU here: nothing was measured")
    measured = lambda: rounded(measure(options.device, options.rows, options.model))  # noqa: E731
    carry_out("gpu", options, measured, table)


def measure(device: str, n: int, model: str) -> dict[str, Any]:
    """All numbers of one run."""
    head = about("gpu", command="python -m bench.gpu", git_commit=commit())
    peak = _matmul_flops(device)
    return {
        **head,
        "device": device,
        "matmul_flops": peak,
        "copy_bytes_per_s": _copy_rate(device),
        "encode": _encoding(device, model, peak),
        "search": _searching(device, n),
    }


def _seconds(device: str, work: Callable[[], Any]) -> float:
    """Median of some rounds, each with the device's queue empty at both ends."""
    import torch

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    work()
    times = []
    for _ in range(ROUNDS):
        wait()
        started = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - started)
    return median(times)


def _matmul_flops(device: str) -> float:
    import torch

    n = 8192 if device != "cpu" else 512
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    return 2 * n**3 / _seconds(device, lambda: a @ a)


def _copy_rate(device: str) -> float:
    """Bytes read a second; a copy reads and writes each."""
    import torch

    a = torch.empty((1 << 30) if device != "cpu" else 1 << 24, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() / _seconds(device, lambda: b.copy_(a))


# ---------------------------------------------------------------- encoding


def _encoding(device: str, model: str, peak: float) -> dict[str, Any]:
    import torch
    from safetensors.torch import save_file

    from retrieval_detect.encoders._libraries import ensure_torchvision
    from retrieval_detect.encoders.registry import load_encoder

    ensure_torchvision()
    import open_clip

    theirs = open_clip.create_model(model, load_weights=False).eval()
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        weights = Path(folder) / "random.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in theirs.state_dict().items()}, weights)
        ours = load_encoder(model, weights=weights, device=device, offline=True)
    size, batch = ours.spec.preprocessing.size, 256 if device != "cpu" else 2
    squares = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    theirs = theirs.to(device)
    pixels = torch.from_numpy(squares).permute(0, 3, 1, 2).float().to(device) / 255

    def eager() -> None:
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            theirs.encode_image(pixels).float().cpu()

    seconds = _seconds(device, lambda: ours.encode(squares, ["proj"]))
    flops = _flops(theirs, pixels[:1])
    return {
        "model": model,
        "engine": ours.spec.engine,
        "batch": batch,
        "images_per_s": batch / seconds,
        "open_clip_images_per_s": batch / _seconds(device, eager),
        "flops_an_image": flops,
        "share_of_matmul_peak": flops * batch / seconds / peak,
    }


def _flops(model: Any, pixels: Any) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encode_image(pixels)
    return float(counter.get_total_flops())


# ---------------------------------------------------------------- searching


def _searching(device: str, n: int) -> dict[str, Any]:
    from retrieval_detect.search.bank import Bank, BankFiles

    shard = made(n, seed=0)
    bank = Bank.open([shard], label="real", files=BankFiles(None, PROJECTION), device=device)
    rng = np.random.default_rng(1)
    found = {}
    for q in QUERIES:
        queries = rng.normal(size=(q, D)).astype(np.float32)
        seconds = _seconds(device, lambda queries=queries: bank.search(queries, K))
        found[str(q)] = {"rd_s": seconds, **_stock(device, shard, queries)}
    return {"rows": n, "d": D, "k": K, "queries": found, "bytes_read": n * D * 2}


def _stock(device: str, shard: Any, queries: Any) -> dict[str, float]:
    """FAISS's flat index as it comes: float32, on the same device."""
    import faiss

    index = faiss.IndexFlatIP(D)
    if device != "cpu":
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    for start in range(0, len(shard.row_ids), 65_536):
        index.add(shard.vectors[start : start + 65_536].astype(np.float32))
    return {"faiss_s": _seconds(device, lambda: index.search(queries, K))}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    encode, search = result["encode"], result["search"]
    lines = [
        f"{result['machine'].get('gpu') or result['device']}; {result['date'][:10]}, commit "
        f"{(result['git_commit'] or 'unknown')[:12]}, `{result['command']}`.",
        "",
        "| work | rd | beside it | share of the limit |",
        "|---|---|---|---|",
        f"| {encode['model']}, {encode['engine']}, batch {encode['batch']} | "
        f"{encode['images_per_s']:,.0f} images/s | open_clip {encode['open_clip_images_per_s']:,.0f} | "
        f"{100 * encode['share_of_matmul_peak']:.0f} % of the largest product of matrices |",
    ]
    for q, took in search["queries"].items():
        by_memory = search["bytes_read"] / result["copy_bytes_per_s"] / took["rd_s"]
        by_product = 2 * search["rows"] * search["d"] * int(q) / result["matmul_flops"] / took["rd_s"]
        lines.append(
            f"| exact, {search['rows']:,} × {search['d']}, {q} queries | {1000 * took['rd_s']:.2f} ms | "
            f"GpuIndexFlat {1000 * took['faiss_s']:.2f} ms | {100 * by_memory:.0f} % of memory, "
            f"{100 * by_product:.0f} % of products |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
