"""Commands timed whole, and what several rounds gave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench._machine import ROOT


@dataclass(frozen=True, slots=True)
class Took:
    """What one command took: seconds by the clock, and its memory at the peak."""

    elapsed_s: float
    peak_bytes: int


def took(*arguments: str) -> Took:
    """Run ``python ARGUMENTS`` in a process of its own; the benchmark ends where that fails."""
    launcher = str(Path(__file__).with_name("_launch.py"))
    # What the caller has set for rd would be measured too; the cache is the benchmark's own.
    env = {key: value for key, value in os.environ.items() if not key.startswith("RD_") or key == "RD_CACHE"}
    command = [sys.executable, launcher, sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} failed:\n{done.stderr.strip()}")
    return Took(**json.loads(done.stdout))


def rounds_of(values: Sequence[float]) -> dict[str, Any]:
    """Median and range of several rounds."""
    return {"median": median(values), "min": min(values), "max": max(values), "rounds": len(values)}
