"""A finished build run again: beside hashing the same files, and beside only listing them.

    python -m bench.speed.updates [--images N] [--rounds N] [--folder DIR] [--quick] [--out FILE]
    python -m bench.speed.updates --render FILE

Every file is tiny, the hardest case: what is done for a file weighs most where there is little to hash.
Adding to banks and opening them is measured by bench.speed.search. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from bench._frame import about, carry_out, markdown_table, origin, parser_of, say
from bench._machine import ROOT, commit
from bench._timing import rounds_of, took
from retrieval_detect.types import LABELS

IMAGES, QUICK, ROUNDS = 100_000, 1_000, 5
FEW = 2
FOLDERS = 10
SIDE, CELL = 64, 8


# ---------------------------------------------------------------- what is built from


def pictures(folder, n):
    """n different JPEG files, half of each label, in ten sources and ten generators."""
    from simplejpeg import encode_jpeg

    rng = np.random.default_rng(0)
    for i in range(n):
        cells = rng.integers(0, 256, (SIDE // CELL, SIDE // CELL, 3), dtype=np.uint8)
        data = encode_jpeg(np.ascontiguousarray(cells.repeat(CELL, 0).repeat(CELL, 1)), quality=90)
        path = folder / LABELS[i % 2] / f"{i // 2 % FOLDERS}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


class Built:
    """An index of n made-up pictures; one that lies in ``folder`` already is taken as it is."""

    def __init__(self, folder, n):
        self.labelled = [str(folder / label) for label in LABELS]
        both = [
            part for label, path in zip(LABELS, self.labelled, strict=True) for part in (f"--{label}", path)
        ]
        self.arguments = ("build-index", *both, "--index", str(folder / "index"), "--encoder", "tiny", "-q")
        if not (folder / "index" / "CURRENT").exists():
            say(f"building from {n:,} pictures")
            pictures(folder, n)
            self.again()

    def again(self):
        return took("-m", "retrieval_detect", *self.arguments)

    def walked(self, how):
        return took("-m", "bench.speed._walk", how, *self.labelled)

    def files_bytes(self):
        """The pictures' sizes together."""
        return sum(path.stat().st_size for folder in self.labelled for path in Path(folder).rglob("*.jpg"))

    def bytes_read(self):
        """What the same command asks the kernel for, in all; ``None`` where the kernel does not count."""
        command = [sys.executable, "-m", "bench.speed.updates", "--counted", json.dumps(self.arguments)]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)


def counted(arguments):
    """In a process of its own: run rd, print how many bytes it read."""
    from retrieval_detect.cli.main import main as rd

    with redirect_stdout(sys.stderr):
        if code := rd(arguments):
            sys.exit(code)
    try:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    except FileNotFoundError:
        counts = {}
    print(json.dumps(int(counts["rchar"]) if "rchar" in counts else None))


# ---------------------------------------------------------------- the whole


def measured(options):
    n = QUICK if options.quick else options.images
    results = {
        **about("updates", commit=commit()),
        "quick": options.quick,
        "images": n,
    }
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as name:
        folder = options.folder.resolve() if options.folder else Path(name)
        os.environ["RD_CACHE"] = str(folder / "cache")
        whole, few = Built(folder / str(n), n), Built(folder / str(FEW), FEW)
        lanes = {
            "again": whole.again,
            "again_few": few.again,
            "hash": lambda: whole.walked("hash"),
            "stat": lambda: whole.walked("stat"),
        }
        times, peaks = {lane: [] for lane in lanes}, {}
        for i in range(options.rounds + 1):
            say(f"round {i} of {options.rounds}")
            for lane, run in lanes.items():
                done = run()
                times[lane].append(done.elapsed_s)
                peaks[lane] = done.peak_bytes
        read, read_few = whole.bytes_read(), few.bytes_read()
        files_bytes = whole.files_bytes()
    # The first round warms up.
    return (
        results
        | {
            "files_bytes": files_bytes,
            "read_bytes": None if read is None else read - read_few,
            "peak_bytes": peaks,
        }
        | {f"{lane}_s": rounds_of(values[1:]) for lane, values in times.items()}
    )


def table(results):
    again, few, hashing, listing = (
        results[f"{lane}_s"]["median"] for lane in ("again", "again_few", "hash", "stat")
    )
    n, peaks, read = results["images"], results["peak_bytes"], results["read_bytes"]
    rows = [
        ("hashing the same files in one thread, nothing else", f"{again / hashing:.2f} × that"),
        ("listing them and asking for their sizes, nothing else", f"{again / listing:.1f} × that"),
        ("the same command for two pictures", f"{1e6 * (again - few) / n:.0f} µs a picture beyond that"),
        (
            "the files' own bytes",
            "not counted" if read is None else f"{read / results['files_bytes']:.2f} × read",
        ),
        (
            "peak memory of the same command for two pictures",
            f"{(peaks['again'] - peaks['again_few']) / n:,.0f} bytes a picture beyond that",
        ),
    ]
    head = (f"{n:,} pictures, a finished build run again, beside", "is")
    return f"{origin(results)}.\n\n{markdown_table(head, rows)}"


def main():
    parser = parser_of("speed.updates", __doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, help="Where pictures and index lie, or are made and stay.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--counted", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.counted:
        counted(options.counted)
        return
    carry_out("updates", options, lambda: measured(options), table, indent=2)


if __name__ == "__main__":
    main()
