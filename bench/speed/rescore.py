"""Stored embeddings judged again: beside the bare search of the same vectors, and one by one.

    python -m bench.speed.rescore [--quick] [--rounds N] [--out FILE]
    python -m bench.speed.rescore --render FILE

See bench/README.md.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from bench._frame import about, carry_out, markdown_table, origin, parser_of, say
from bench._machine import commit
from bench._timing import rounds_of, took
from retrieval_detect.ask.banks import SPARE
from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.methods import ATTRIBUTION_K
from retrieval_detect.ask.rescore import Rescoring, write_verdicts
from retrieval_detect.search.projection import query_codes
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.exchange import write_embeddings
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.types import LABELS, Embedded, EncoderSpec, Facts, ImageItem, Preprocessing
from retrieval_detect.verdicts import Question

D, ROUNDS = 512, 5
REFERENCES = (10_000, 50_000)
QUERIES = 5_000
GENERATORS = 8
CHUNK = 10_000
BLOCK = 2048
ONE_BY_ONE = 100
MORE = 4


def spec(d):
    pre = Preprocessing("clip", 224, "bicubic", (0.5,) * 3, (0.5,) * 3)
    return EncoderSpec("made-up", "made-up", "00", False, pre, {"proj": d})


def images(n, d, rng):
    """Of random vectors, the hardest case: no neighbour stands out."""
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    for value, vector in zip(hashes, vectors, strict=True):
        content_id = hashlib.sha256(value.tobytes()).digest()
        item = ImageItem(f"made-up/{value:016x}", bytes)
        yield Embedded(item, content_id, int(value), 256, 256, "JPEG", {"proj": vector})


def index(folder, n, d):
    """A calibrated index of n references, half of them fake."""
    rng = np.random.default_rng(n)
    store = Store.create(folder, spec(d), canaries={"proj": rng.normal(size=(16, d)).astype(np.float32)})
    for start in range(0, n, CHUNK):
        found = list(images(min(CHUNK, n - start), d, rng))
        facts = [
            Facts("fake", f"generator {i % GENERATORS}") if i % 2 else Facts("real") for i in range(CHUNK)
        ]
        with store.writer() as writer:
            staging = writer.staging()
            staging.add(found)
            rows = [
                NewRow(one.content_id, one.item.uri, known) for one, known in zip(found, facts, strict=False)
            ]
            writer.add(Addition(rows), staging)
    commit_calibration(store, fit_calibration(store.snapshot()))
    return store


class Contest:
    """One file of queries, asked in every way."""

    def __init__(self, store, path):
        self.detector = Detector(store.snapshot())
        self.path = path
        self.rescoring = Rescoring(self.detector, Question(), path)
        (file,) = self.rescoring.files
        blocks = list(file.rows(range(len(file.row_groups)), ("proj",), at_once=BLOCK))
        projection = self.detector.banks.projection
        self.codes = [query_codes(rows.vectors["proj"], projection) for rows in blocks]
        rows = blocks[0]
        self.singles = [
            Embedded(
                ImageItem(rows.uris[i].as_py(), bytes),
                rows.content_ids[i].as_py(),
                int(rows.phash[i]),
                256,
                256,
                "JPEG",
                {"proj": rows.vectors["proj"][i]},
            )
            for i in range(ONE_BY_ONE)
        ]

    def search_s(self):
        """The bare search: no file is read, no neighbour looked at."""
        start = time.perf_counter()
        for codes in self.codes:
            for label in LABELS:
                self.detector.banks.bank(label).search_codes(codes, ATTRIBUTION_K + SPARE)
        return time.perf_counter() - start

    def rescore_s(self):
        start = time.perf_counter()
        for piece in self.rescoring.pieces():
            for _ in self.rescoring.tables(piece):
                pass
        return time.perf_counter() - start

    def one_by_one_s(self):
        """Seconds for all, by those of some."""
        start = time.perf_counter()
        for one in self.singles:
            self.detector.judge(one)
        return (time.perf_counter() - start) / len(self.singles) * self.rescoring.n_rows

    def again_s(self, out):
        """A finished folder of verdicts, asked for once more."""
        start = time.perf_counter()
        write_verdicts(Rescoring(self.detector, Question(), self.path), out, progress=lambda _: None)
        return time.perf_counter() - start


def compared(store, path, options, folder):
    contest = Contest(store, path)
    ways = {
        "search_s": contest.search_s,
        "rescore_s": contest.rescore_s,
        "one_by_one_s": contest.one_by_one_s,
        "again_s": lambda: contest.again_s(folder / "verdicts"),
    }
    times = {name: [] for name in ways}
    for i in range(options.rounds + 1):
        say(f"round {i} of {options.rounds}")
        for name, way in ways.items():
            times[name].append(way())
    shutil.rmtree(folder / "verdicts")
    n_bank = sum(store.snapshot().manifest.live_rows(label, "bank") for label in LABELS)
    # The first round warms up, and writes the verdicts.
    return {"n_bank": n_bank} | {name: rounds_of(lane[1:]) for name, lane in times.items()}


def memory(store, path, larger, folder):
    """Peak memory of the command, for the queries and for several times as many."""
    peaks = []
    for i, source in enumerate((path, larger)):
        arguments = ("rescore", str(source), "--out", str(folder / f"memory{i}"), "-q")
        peaks.append(took("-m", "retrieval_detect", *arguments, "--index", str(store.folder)).peak_bytes)
    return peaks


def measured(options):
    d, queries = (64, 3000) if options.quick else (options.d, options.queries)
    sizes = (3000, 6000) if options.quick else options.references
    results = {
        **about("rescore", commit=commit()),
        "quick": options.quick,
        "d": d,
        "queries": queries,
        "banks": [],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["RD_CACHE"] = str(folder / "cache")
        paths = folder / "q.parquet", folder / "more.parquet"
        for times, path in zip((1, MORE), paths, strict=True):
            found = images(times * queries, d, np.random.default_rng(1))
            write_embeddings(path, found, spec=spec(d), layers=("proj",))
        for n in sizes:
            say(f"an index of {n:,} references")
            store = index(folder / f"index{n}", n, d)
            found = compared(store, paths[0], options, folder)
            if n == min(sizes):
                found["peak_bytes"] = memory(store, *paths, folder)
            results["banks"].append(found)
    return results


# ---------------------------------------------------------------- the table


def table(results):
    head = (
        "references in both banks",
        "share of the bare search",
        "faster than one by one",
        "finished before",
    )
    lines = []
    for found in results["banks"]:
        whole = found["rescore_s"]["median"]
        lines.append(
            (
                f"{found['n_bank']:,}",
                f"{found['search_s']['median'] / whole:.0%}",
                f"{found['one_by_one_s']['median'] / whole:.0f} ×",
                f"{found['again_s']['median'] / whole:.1%} of the time",
            )
        )
    small, large = next(found["peak_bytes"] for found in results["banks"] if "peak_bytes" in found)
    n = results["queries"]
    peak = f"Peak memory for {MORE * n:,} embeddings beside that for {n:,}: {large / small:.2f} ×"
    return "\n".join([f"{origin(results)}.", "", markdown_table(head, lines), "", peak])


def main():
    parser = parser_of("speed.rescore", __doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--references", type=int, nargs="+", default=REFERENCES)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--d", type=int, default=D)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    carry_out("rescore", options, lambda: measured(options), table, indent=2)


if __name__ == "__main__":
    main()
