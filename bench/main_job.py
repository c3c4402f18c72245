"""The main job, measured: ``python -m bench.main_job``. README.md says what each number means."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench._accuracy import Lessons, in_distribution, unseen_generators
from bench._data import DEFAULT_DATA, Sample, load
from bench._growth import ROUNDS, SIZES, growth
from bench._index import Origin
from bench._machine import commit, machine, versions
from bench._speed import speed
from bench._tables import honest_numbers, report
from retrieval_detect.encoders.canaries import canary_vectors
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder

RESULTS = Path(__file__).with_name("results")
_QUICK_PER_FOLDER = 15
_QUICK_LESSONS = Lessons(numbers=(0, 2, 5), seeds=(0, 1))
_QUICK_SIZES, _QUICK_ROUNDS = (300, 1_000, 3_000), 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the tables; or print the table of an earlier measurement."""
    options = _options(arguments)
    if options.render:
        print(honest_numbers(json.loads(options.render.read_text(encoding="utf-8"))))
        return
    result = _rounded(measure(options.data, quick=options.quick))
    out = options.out
    if out is None and not options.quick:
        out = RESULTS / f"main_job-{result['date'][:10]}.json"
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _note(f"written: {out}")
    print(report(result))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.main_job", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="Folder with real/SOURCE and fake/GENERATOR."
    )
    parser.add_argument(
        "--out", type=Path, help="Where to write (default: bench/results, nowhere with --quick)."
    )
    parser.add_argument("--quick", action="store_true", help="A few images, to try it out; no number counts.")
    parser.add_argument("--render", type=Path, metavar="FILE", help="Only print the README's table of FILE.")
    return parser.parse_args(arguments)


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """All numbers of one run, by names that carry their units."""
    clock = _Clock()
    date = datetime.now(UTC).replace(microsecond=0)
    encoder = load_encoder(OFFLINE_ENCODER)
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        os.environ["RD_CACHE"] = str(work / "cache")
        samples = load(data, encoder, per_folder=_QUICK_PER_FOLDER if quick else None, say=clock.say)
        origin = Origin(encoder.spec, canary_vectors(encoder, ("proj",)))
        clock.say("accuracy, in distribution")
        known = in_distribution(samples, origin, work)
        lessons = _QUICK_LESSONS if quick else Lessons()
        unseen = unseen_generators(samples, origin, work, lessons=lessons, say=clock.say)
        speeds = speed(samples, encoder, work, say=clock.say)
        sizes, rounds = (_QUICK_SIZES, _QUICK_ROUNDS) if quick else (SIZES, ROUNDS)
        grown = growth(work / "growth", sizes=sizes, rounds=rounds, say=clock.say)
    return {
        "benchmark": "main_job",
        "quick": quick,
        "date": date.isoformat(),
        "command": "python -m bench.main_job" + " --quick" * quick,
        "git_commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "encoder": {"name": encoder.spec.name, "engine": encoder.spec.engine, "note": encoder.spec.note},
        "images": _census(samples),
        "in_distribution": known,
        "unseen_generator": unseen,
        "speed": speeds,
        "growth": grown,
        "elapsed_s": clock.elapsed_s,
    }


def _census(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {"real": {}, "fake": {}}
    for sample in samples:
        by_name = counts[sample.facts.label]
        by_name[sample.name] = by_name.get(sample.name, 0) + 1
    return counts


def _rounded(value: Any) -> Any:
    """Six digits of every number: more would only look exact."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


class _Clock:
    """Says on stderr what is being done, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return round(time.monotonic() - self._started, 1)

    def say(self, text: str) -> None:
        _note(f"{self.elapsed_s:5.0f} s  {text}")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
