"""The main job, measured: ``python -m bench.main_job``. README.md says what each number means."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench._accuracy import Lessons, in_distribution, unseen_generators
from bench._data import DEFAULT_DATA, Sample, load
from bench._frame import Clock, about, carry_out, parser_of, rounded
from bench._growth import ROUNDS, SIZES, growth
from bench._index import Origin
from bench._machine import commit
from bench._speed import speed
from bench._tables import tables
from retrieval_detect.encoders.canaries import canary_vectors
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder

_QUICK_PER_FOLDER = 15
_QUICK_LESSONS = Lessons(numbers=(0, 2, 5), seeds=(0, 1))
_QUICK_SIZES, _QUICK_ROUNDS = (300, 1_000, 3_000), 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the tables."""
    parser = parser_of("main_job", __doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="Folder with real/SOURCE and fake/GENERATOR."
    )
    parser.add_argument("--quick", action="store_true", help="A few images, to try it out; no number counts.")
    options = parser.parse_args(arguments)
    carry_out("main_job", options, lambda: rounded(measure(options.data, quick=options.quick)), tables)


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """All numbers of one run, by names that carry their units."""
    clock = Clock()
    head = about("main_job", command="python -m bench.main_job" + " --quick" * quick, git_commit=commit())
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
        **head,
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


if __name__ == "__main__":
    main()
