"""What the server stands, on loopback: ``python -m bench.serve PHOTOGRAPHS FAKES``.

An index of the offline encoder is built from both folders, and a server asked by many clients at once: with
images sharing passes through the network and without, and at four times what it can take. Every answer is
held against the detector's own. About three minutes on two idle cores; run it alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench._frame import about, carry_out, origin, parser_of, rounded
from bench._machine import ROOT, commit
from retrieval_detect.ask.detector import Detector
from retrieval_detect.images.sources import scan

IMAGES, SECONDS, CLIENTS, PORT = 200, 20.0, 32, 8399
ADDRESS = f"http://127.0.0.1:{PORT}"
SCORE_TOLERANCE = 0.02
"""Passes of another size add up in another order; a bfloat16 network gives that much."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("serve", __doc__)
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("fakes", type=Path, nargs="?")
    parser.add_argument("--index", type=Path, help="An index that is there already.")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args(arguments)
    if not (options.render or (options.photographs and options.fakes)):
        parser.error("give a folder of photographs and one of fakes")
    carry_out("serve", options, lambda: rounded(_measured(options)), table)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        index = options.index or _built(Path(folder) / "index", options.photographs, options.fakes)
        return measure(index, options)


def measure(index: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run."""
    pictures, expected = _questions(index, [options.photographs, options.fakes], options.images)
    head = about("serve", command="python -m bench.serve PHOTOGRAPHS FAKES", git_commit=commit())
    runs = {}
    for name, flags, clients in (
        ("one at a time", ("--set", "batch-size=1"), CLIENTS),
        ("together", (), CLIENTS),
        ("four times too much", ("--max-queue", str(CLIENTS)), 4 * CLIENTS),
    ):
        with server(index, *flags) as pid:
            found = asyncio.run(_load(pictures, expected, clients=clients, seconds=options.seconds))
            runs[name] = found.summary() | {"clients": clients, "peak_bytes": _peak_bytes(pid)}
    return {
        **head,
        "images": len(pictures),
        "seconds": options.seconds,
        "runs": runs,
    }


def _built(folder: Path, photographs: Path, fakes: Path) -> Path:
    flags = ("--encoder", "efficientnet-lite0", "--offline", "--index", str(folder))
    _rd("build-index", "--real", str(photographs), "--fake", str(fakes), *flags)
    return folder


def _rd(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "retrieval_detect", *arguments], cwd=ROOT, check=True)


def _questions(index: Path, folders: Sequence[Path], n: int) -> tuple[list[bytes], list[float]]:
    """Images, drawn from both folders, and what the detector itself says of each."""
    items = list(scan([str(folder) for folder in folders]))
    chosen = np.random.default_rng(0).permutation(len(items))[:n]
    detector = Detector.load(index, offline=True)
    pictures = [items[i].read() for i in chosen]
    return pictures, [verdict.score for verdict in detector.query_many(pictures)]


# ---------------------------------------------------------------- the server


@contextmanager
def server(index: Path, *flags: str, cwd: Path = ROOT) -> Iterator[int]:
    """A server in a process of its own, started in ``cwd``; gives its process id."""
    command = [sys.executable, "-m", "retrieval_detect", "serve", "--index", str(index), "--offline"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("RD_") or key == "RD_CACHE"}
    running = subprocess.Popen(
        [*command, "--port", str(PORT), *flags], cwd=cwd, env=env, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(running)
        yield running.pid
    finally:
        running.terminate()
        running.wait(60)


def _wait_for(running: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            httpx.get(f"{ADDRESS}/healthz", timeout=1)
            return
        except httpx.TransportError:
            if running.poll() is not None:
                raise SystemExit("the server did not start") from None
            time.sleep(0.1)
    raise SystemExit("the server does not answer")


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    return 1024 * int(facts["VmHWM"].split()[0])


# ---------------------------------------------------------------- the clients


@dataclass
class Found:
    """What the clients saw."""

    elapsed_s: float = 0.0
    wrong: int = 0
    times_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """Rates, times of answers, and what was turned away or wrong."""
        answered, asked = self.statuses[200], self.statuses.total()
        return {
            "images_per_s": answered / self.elapsed_s,
            "p50_s": float(np.percentile(self.times_s, 50)),
            "p99_s": float(np.percentile(self.times_s, 99)),
            "answered": answered,
            "rejected_share": self.statuses[429] / asked,
            "errors": asked - answered - self.statuses[429],
            "wrong": self.wrong,
        }


async def _load(
    pictures: Sequence[bytes], expected: Sequence[float], *, clients: int, seconds: float
) -> Found:
    """So many clients, each asking again as soon as it has its answer."""
    found = Found()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=ADDRESS, timeout=120, limits=limits) as http:
        for i in range(4):  # the first pass of a network takes longer
            await http.post("/v1/query", files={"images": (f"{i}.jpg", pictures[i])})
        started = time.perf_counter()

        async def ask(at: int) -> None:
            while time.perf_counter() - started < seconds:
                await _one(http, found, pictures[at], expected[at])
                at = (at + clients) % len(pictures)

        await asyncio.gather(*(ask(i % len(pictures)) for i in range(clients)))
        found.elapsed_s = time.perf_counter() - started
    return found


async def _one(http: httpx.AsyncClient, found: Found, picture: bytes, score: float) -> None:
    began = time.perf_counter()
    answer = await http.post("/v1/query", files={"images": ("image", picture)})
    found.statuses[answer.status_code] += 1
    if answer.status_code == 200:
        found.times_s.append(time.perf_counter() - began)
        found.wrong += abs(answer.json()["results"][0]["score"] - score) > SCORE_TOLERANCE
    elif answer.status_code == 429:
        await asyncio.sleep(0.05)  # far sooner than it was asked to


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['images']} images, by the offline encoder; {origin(result)}.",
        "",
        "| | clients | images/s | p50 | p99 | turned away | errors | wrong | peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {run['clients']} | {run['images_per_s']:.1f} "
        f"| {run['p50_s']:.3f} s | {run['p99_s']:.3f} s "
        f"| {100 * run['rejected_share']:.0f} % | {run['errors']} | {run['wrong']} "
        f"| {run['peak_bytes'] / 2**20:,.0f} MiB |"
        for name, run in result["runs"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
