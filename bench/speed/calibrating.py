"""What leaving every source out adds to a calibration, and what coverage adds to a verdict: made-up vectors.

``python -m bench.speed.calibrating`` (three minutes on two idle cores). An index of ``REFERENCES`` made-up
references has a fifth set aside. Its calibration is fitted whole, and beside it only the rows are asked, as a
calibration without new sources would; a stored vector is judged with coverage and without it, in turns.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._frame import about, carry_out, markdown_table, origin, parser_of, rounded, say
from bench._machine import commit
from bench._timing import rounds_of
from bench.speed.rescore import CHUNK, GENERATORS, images, spec
from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.methods import Methods
from retrieval_detect.ask.rows import score_rows
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.coverage import fit_coverage
from retrieval_detect.teach.fitted import remove
from retrieval_detect.types import Facts
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    import argparse

D, REFERENCES, SOURCES, ROUNDS = 512, 40_000, 20, 5
ASKED = 200
"""Vectors that are judged in each round."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("speed.calibrating", __doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 references, to try the code.")
    options = parser.parse_args(arguments)
    carry_out("calibrating", options, lambda: rounded(measure(options)), table)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run."""
    n = 2_000 if options.quick else REFERENCES
    head = about("calibrating", command="python -m bench.speed.calibrating", git_commit=commit())
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as name:
        folder = Path(name)
        os.environ["RD_CACHE"] = str(folder / "cache")
        say(f"an index of {n:,} made-up references")
        store = _index(folder / "index", n)
        fits = _fits(store)
        commit_calibration(store, fit_calibration(store.snapshot(), device="cpu"))
        asked = list(images(ASKED, D, np.random.default_rng(1)))
        verdicts = _verdicts(store, folder / "without", asked)
        aside = store.snapshot().manifest.live_rows("real", "calib")
        aside += store.snapshot().manifest.live_rows("fake", "calib")
    return {**head, "references": n, "aside": aside, "sources": SOURCES, "fits": fits, "verdicts": verdicts}


def _index(folder: Path, n: int) -> Store:
    rng = np.random.default_rng(n)
    store = Store.create(folder, spec(D), canaries={"proj": rng.normal(size=(16, D)).astype(np.float32)})
    for start in range(0, n, CHUNK):
        found = list(images(min(CHUNK, n - start), D, rng))
        facts = [
            Facts("fake", f"generator {i % GENERATORS}")
            if i % 2
            else Facts("real", source=f"source {i % SOURCES}")
            for i in range(len(found))
        ]
        with store.writer() as writer:
            staging = writer.staging()
            staging.add(found)
            writer.add(
                Addition(
                    [
                        NewRow(one.content_id, one.item.uri, known)
                        for one, known in zip(found, facts, strict=True)
                    ]
                ),
                staging,
            )
    return store


def _fits(store: Store) -> dict[str, Any]:
    """Seconds of asking the rows set aside, of the whole calibration, and of coverage; in turns."""
    snapshot = store.snapshot()

    def rows_alone() -> None:
        methods = Methods(snapshot, device="cpu")
        score_rows(snapshot, methods.checked(Question()), judge=methods)

    ways = {
        "rows": rows_alone,
        "calibration": lambda: fit_calibration(snapshot, device="cpu"),
        "coverage": lambda: fit_coverage(snapshot),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        say(f"fits, round {number + 1} of {ROUNDS}")
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    return {name: rounds_of(lane) for name, lane in times.items()}


def _verdicts(store: Store, without: Path, asked: Sequence[Any]) -> dict[str, Any]:
    """Seconds a verdict on a stored vector, with coverage and by a copy of the index that has none."""
    shutil.copytree(store.folder, without)
    remove(Store(without), "coverage", "proj")
    detectors = {
        name: Detector.load(folder, device="cpu")
        for name, folder in (("with coverage", store.folder), ("without", without))
    }
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for number in range(ROUNDS + 1):
        for name, detector in detectors.items():
            started = time.perf_counter()
            for image in asked:
                detector.judge(image)
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - started) / len(asked))
    return {name: rounds_of(lane) for name, lane in times.items()}


# ---------------------------------------------------------------- table


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    fits, verdicts = result["fits"], result["verdicts"]
    one = fits["rows"]["median"]
    rows = [
        ["rows set aside, asked once", _seconds(fits["rows"]), "1"],
        [
            "calibration, every source left out in turn",
            _seconds(fits["calibration"]),
            _times(fits["calibration"], one),
        ],
        ["coverage", _seconds(fits["coverage"]), _times(fits["coverage"], one)],
    ]
    plain = verdicts["without"]["median"]
    judged = [
        [
            name,
            f"{1e3 * found['median']:.2f} ms ({1e3 * found['min']:.2f} to {1e3 * found['max']:.2f})",
            _times(found, plain),
        ]
        for name, found in verdicts.items()
    ]
    head = (
        f"{result['references']:,} made-up references of {D} dimensions, {result['aside']:,} set aside, "
        f"{result['sources'] // 2} sources; {origin(result)}."
    )
    return "\n\n".join(
        [
            head,
            markdown_table(["fitting", "seconds", "times the first"], rows),
            markdown_table(["a verdict on a stored vector", "time", "times without"], judged),
        ]
    )


def _seconds(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def _times(found: Mapping[str, float], one: float) -> str:
    return f"{found['median'] / one:.2f}"


if __name__ == "__main__":
    main()
