"""How fast rd is and how much it takes, each figure beside the least that any program would need.

What is compared is measured in turns, round after round, so that a machine that slows down slows
both. Files are in the page cache; the embedding pass before has read them.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._bare import CPU_BATCH, GPU_BATCH, Bare
from bench._data import Embeddings, Sample, lay_out, teach
from bench._timing import rounds_of, took
from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders import pipeline
from retrieval_detect.images.items import file_item
from retrieval_detect.store.store import Store
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.plans import plan
from retrieval_detect.vectors import normalise

if TYPE_CHECKING:
    from retrieval_detect.encoders.base import Encoder

MOST_ADDED = 50
_SLOW_ROUNDS, _FAST_ROUNDS = 3, 5
_WARM_QUERIES = 100
_RD = ("-m", "retrieval_detect")


def speed(given: Embeddings, work: Path, *, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures, from one index of four fifths of the images."""
    references = [sample for sample in given.samples if not sample.held]
    queries = [sample for sample in given.samples if sample.held]
    bare = Bare(given.encoder.spec.name)
    _same_network(bare, queries[:8])
    say("build against the bare loop, in this process")
    rates = _rates(references, given.encoder, bare, work)
    say("build as a command")
    commands = _Commands(references, given.encoder.spec.name, work)
    built = commands.build()
    say("building again with nothing new, adding, asking")
    return {
        "in_process": rates,
        "build_command": built,
        "index": commands.size(),
        "nothing_new": _in_turns({"build_index_again_s": commands.building}),
        "adding": commands.adding(_lesson(queries)),
        "query": commands.asking(queries[0]) | _warm(commands.folder, queries, given.encoder, bare),
        "start": _starting(),
    }


def _same_network(bare: Bare, samples: Sequence[Sample]) -> None:
    """The bare loop must do the same work, or its speed means nothing."""
    if (CPU_BATCH, GPU_BATCH) != (pipeline.CPU_BATCH, pipeline.GPU_BATCH):
        raise AssertionError("the bare loop encodes in other batches than rd")
    mine = normalise(np.stack([sample.embedded.vectors["proj"] for sample in samples]))[0]
    theirs = normalise(np.stack(bare.embed([sample.path for sample in samples])))[0]
    similar = np.einsum("nd,nd->n", mine.astype(np.float32), theirs.astype(np.float32))
    if similar.min() < 0.999:
        raise AssertionError(f"the bare loop gives other vectors: cosine {similar.min():.4f}")


def _lesson(queries: Sequence[Sample]) -> list[Sample]:
    """Images of one generator that the index does not hold, 50 where there are as many."""
    by_generator = defaultdict(list)
    for query in queries:
        if query.fake:
            by_generator[query.name].append(query)
    return max(by_generator.values(), key=len)[:MOST_ADDED]


# ---------------------------------------------------------------- in this process


def _rates(references: Sequence[Sample], encoder: Encoder, bare: Bare, work: Path) -> dict[str, Any]:
    paths = [sample.path for sample in references]
    built, looped = [], []
    for turn in range(_SLOW_ROUNDS):
        started = time.perf_counter()
        bare.embed(paths)
        looped.append(len(paths) / (time.perf_counter() - started))
        folder = work / f"build-{turn}"
        started = time.perf_counter()
        _build(folder, references, encoder)
        built.append(len(paths) / (time.perf_counter() - started))
        shutil.rmtree(folder)
    return {
        "images": len(paths),
        "build_images_per_s": rounds_of(built),
        "bare_loop_images_per_s": rounds_of(looped),
    }


def _build(folder: Path, references: Sequence[Sample], encoder: Encoder) -> None:
    """What ``rd build-index`` does once its encoder is loaded, banks included."""
    index = Index.create(folder, encoder=encoder)
    inputs = ((file_item(sample.path, sample.path.name), sample.facts) for sample in references)
    index.apply(plan(inputs, index.snapshot()), encoder=encoder)
    Detector.load(folder).open_banks()


def _warm(folder: Path, queries: Sequence[Sample], encoder: Encoder, bare: Bare) -> dict[str, Any]:
    detector = Detector.load(folder, encoder=encoder)
    detector.query(queries[0].path)
    asked, embedded = [], []
    for query in queries[1 : _WARM_QUERIES + 1]:
        started = time.perf_counter()
        bare.embed([query.path])
        embedded.append(time.perf_counter() - started)
        started = time.perf_counter()
        detector.query(query.path)
        asked.append(time.perf_counter() - started)
    return {"warm_query_s": rounds_of(asked), "warm_bare_s": rounds_of(embedded)}


# ---------------------------------------------------------------- as commands


class _Commands:
    """The commands on one index, timed whole: Python's start, imports, weights and all."""

    def __init__(self, references: Sequence[Sample], encoder: str, work: Path) -> None:
        self._work = work
        self._bare = ("-m", "bench._bare", "--encoder", encoder)
        self._references = references
        self._images = lay_out(references, work / "references")
        self.folder = work / "index"
        self.building = (
            *(*_RD, "build-index", "--index", str(self.folder), "--encoder", encoder),
            *("--real", str(self._images / "real"), "--fake", str(self._images / "fake")),
        )

    def build(self) -> dict[str, Any]:
        bare = took(*self._bare, str(self._images))
        built = took(*self.building)
        return {
            "images": len(self._references),
            "build_index_s": built.elapsed_s,
            "build_index_peak_memory_bytes": built.peak_bytes,
            "bare_loop_s": bare.elapsed_s,
            "bare_loop_peak_memory_bytes": bare.peak_bytes,
        }

    def size(self) -> dict[str, Any]:
        total = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        derived = sum(path.stat().st_size for path in (self.folder / "banks").rglob("*"))
        n = Index.open(self.folder).snapshot().manifest.next_row_id
        return {
            "references": n,
            "index_bytes": total,
            "of_which_derived_bank_files_bytes": derived,
            "index_bytes_per_reference": total / n,
            "one_vector_bytes": 2 * self._references[0].embedded.vectors["proj"].size,
            "images_bytes": sum(sample.path.stat().st_size for sample in self._references),
        }

    def adding(self, lesson: Sequence[Sample]) -> dict[str, Any]:
        images = lay_out(lesson, self._work / "lesson")
        whole, bare, after = [], [], []
        for turn in range(_FAST_ROUNDS):
            index = _copied(self.folder, self._work / f"taught-{turn}")
            add = ("bank", "add", str(images), "--label", "fake", "--generator", "new", "--index", str(index))
            bare.append(took(*self._bare, str(images)).elapsed_s)
            whole.append(took(*_RD, *add).elapsed_s)
            shutil.rmtree(index)
            index = _copied(self.folder, self._work / f"committed-{turn}")
            after.append(_after_embedding(index, lesson))
            shutil.rmtree(index)
        return {
            "images": len(lesson),
            "bank_add_s": rounds_of(whole),
            "after_embedding_s": rounds_of(after),
            "bare_script_s": rounds_of(bare),
        }

    def asking(self, query: Sample) -> dict[str, Any]:
        return _in_turns(
            {
                "cold_query_s": (*_RD, "query", str(query.path), "--index", str(self.folder)),
                "cold_bare_script_s": (*self._bare, str(query.path)),
            }
        )


def _starting() -> dict[str, Any]:
    return _in_turns(
        {
            "rd_help_s": (*_RD, "--help"),
            "import_retrieval_detect_s": ("-c", "import retrieval_detect"),
            "python_alone_s": ("-c", "pass"),
        }
    )


def _in_turns(commands: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(_FAST_ROUNDS):
        for name, command in commands.items():
            found[name].append(took(*command).elapsed_s)
    return {name: rounds_of(values) for name, values in found.items()}


def _copied(folder: Path, copy: Path) -> Path:
    """A copy whose files rd has seen once, so that checking them anew is not counted as adding."""
    shutil.copytree(folder, copy)
    Detector.load(copy).open_banks()
    return copy


def _after_embedding(index: Path, lesson: Sequence[Sample]) -> float:
    """Seconds from vectors in memory to a committed generation whose banks are open."""
    started = time.perf_counter()
    teach(Store(index), lesson)
    Detector.load(index).open_banks()
    return time.perf_counter() - started


# ---------------------------------------------------------------- words


def speed_rows(speed: Mapping[str, Any]) -> list[list[str]]:
    """What was measured, what rd took, and what stands beside it."""
    rates, build, size = speed["in_process"], speed["build_command"], speed["index"]
    adding, query, start = speed["adding"], speed["query"], speed["start"]
    return [
        [
            f"building from {rates['images']:,} images (hash, decode, embed, group, commit, banks)",
            f"{_rate(rates['build_images_per_s'])} images/s",
            f"bare decode + encode loop: {_rate(rates['bare_loop_images_per_s'])} images/s",
        ],
        [
            "the same as a command",
            f"{build['build_index_s']:.1f} s",
            f"bare script: {build['bare_loop_s']:.1f} s",
        ],
        [
            "peak memory of that command",
            _mebibytes(build["build_index_peak_memory_bytes"]),
            f"bare script: {_mebibytes(build['bare_loop_peak_memory_bytes'])}",
        ],
        [
            f"index of {size['references']:,} references",
            f"{_mebibytes(size['index_bytes'])}, {size['index_bytes_per_reference'] / 1024:.1f} KiB each",
            f"one vector: {size['one_vector_bytes'] / 1024:.1f} KiB; "
            f"the images: {_mebibytes(size['images_bytes'])}",
        ],
        ["the command again, nothing new", _seconds(speed["nothing_new"]["build_index_again_s"]), ""],
        [
            f"`rd bank add` of {adding['images']} images",
            _seconds(adding["bank_add_s"]),
            f"bare script on them: {_seconds(adding['bare_script_s'])}",
        ],
        ["of it, after embedding", _seconds(adding["after_embedding_s"]), ""],
        [
            "`rd query` of one image, cold",
            _seconds(query["cold_query_s"]),
            f"bare script: {_seconds(query['cold_bare_script_s'])}",
        ],
        [
            "`Detector.query` of one image, warm",
            _seconds(query["warm_query_s"]),
            f"bare: {_seconds(query['warm_bare_s'])}",
        ],
        ["`rd --help`", _seconds(start["rd_help_s"]), f"Python alone: {_seconds(start['python_alone_s'])}"],
        ["`import retrieval_detect`", _seconds(start["import_retrieval_detect_s"]), ""],
    ]


def _rate(rounds: Mapping[str, float]) -> str:
    return f"{rounds['median']:.0f} ({rounds['min']:.0f} to {rounds['max']:.0f})"


def _seconds(rounds: Mapping[str, float]) -> str:
    value = rounds["median"]
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"


def _mebibytes(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB" if size_bytes < 100 * 2**20 else f"{size_bytes / 2**20:,.0f} MiB"
