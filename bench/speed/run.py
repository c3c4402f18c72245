"""Everything about speed, one part after the other in fresh processes, and the table of what must be reached.

    python -m bench.speed.run [--peers PYTHON] [--clip-retrieval FOLDER] [--only NAME...] [--quick]
    python -m bench.speed.run --render

Results go to bench/results, the table into docs/numbers.md. ``--quick`` tries the code on little and writes
nothing; ``--render`` only makes the table anew from the newest results. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench._frame import RESULTS, publish, say
from bench._machine import ROOT
from bench.speed._aims import table


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark. ``quick`` : what it is given to try it on little."""

    name: str
    module: str
    quick: tuple[str, ...] = ("--quick",)


PARTS = (
    Part("embed", "bench.speed.embed", ("--rounds", "1")),
    Part("search", "bench.speed.search"),
    Part("updates", "bench.speed.updates"),
    Part("rescore", "bench.speed.rescore"),
    Part("approximate", "bench.speed.approximate"),
    Part("training", "bench.training", ("--rows", "3000")),
    Part("gpu", "bench.gpu", ("--rows", "20000")),
)


def main() -> int:
    """Run what was asked for, then render; 1 if a part failed."""
    options = _options()
    if options.render:
        render(newest(RESULTS))
        return 0
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        out = Path(folder) if options.quick else RESULTS
        failed = run_all([part for part in PARTS if part.name in options.only], options, out)
        if options.quick:
            print(table(newest(out, quick=True)))
        else:
            render(newest(out))
    if failed:
        say(f"failed: {', '.join(failed)}")
    return int(bool(failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed.run",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--peers", metavar="PYTHON", help="A Python that has usearch, lancedb and autofaiss.")
    parser.add_argument("--clip-retrieval", metavar="FOLDER", help="Where that package lies.")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="Little of everything; no number counts.")
    parser.add_argument("--render", action="store_true", help="Only the table, from the newest results.")
    return parser.parse_args()


# ---------------------------------------------------------------- running


def run_all(parts: list[Part], options: argparse.Namespace, out: Path) -> list[str]:
    """The names of those that failed: one that does must not cost the others."""
    failed = []
    for number, part in enumerate(parts, 1):
        if part.name == "gpu" and not _sees_gpu():
            say(f"[{number}/{len(parts)}] gpu: torch sees none here, its lines stay open")
            continue
        say(f"[{number}/{len(parts)}] {part.name}: python -m {part.module}")
        started = time.monotonic()
        done = subprocess.run(_command(part, options, out), cwd=ROOT, check=False)
        say(f"[{number}/{len(parts)}] {part.name}: {time.monotonic() - started:.0f} s")
        failed += [part.name] * bool(done.returncode)
    return failed


def _command(part: Part, options: argparse.Namespace, out: Path) -> list[str]:
    today = datetime.now(UTC).date().isoformat()
    command = [sys.executable, "-m", part.module, "--out", str(out / f"{part.name}-{today}.json")]
    if part.name == "search" and options.peers:
        command += ["--peers", options.peers]
    if part.name == "embed" and options.clip_retrieval:
        command += ["--clip-retrieval", options.clip_retrieval]
    return [*command, *(part.quick if options.quick else ())]


def _sees_gpu() -> bool:
    # In a process of its own: what a benchmark starts is counted from the memory of who started it.
    look = "import torch; raise SystemExit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", look], check=False).returncode == 0


# ---------------------------------------------------------------- rendering


def newest(folder: Path, *, quick: bool = False) -> dict[str, dict]:
    """The newest result of each part that has one; tries (``quick``) only if asked for."""
    found = {}
    for part in PARTS:
        paths = folder.glob(f"{part.name}-[0-9]*.json")
        results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        results = [result for result in results if quick or not result.get("quick")]
        if results:
            found[part.name] = max(results, key=lambda result: result["date"])
    return found


def render(results: dict[str, dict]) -> None:
    """Print the table, and put it into its block of docs/numbers.md."""
    publish("speed", "python -m bench.speed.run --render", table(results))


if __name__ == "__main__":
    sys.exit(main())
