"""What adding 50 references costs as the index grows: seconds, and bytes as the kernel counts them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench._frame import markdown_table
from bench._timing import rounds_of
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.types import Embedded, EncoderSpec, Facts, ImageItem, Preprocessing

SIZES = (1_000, 10_000, 100_000)
ROUNDS = 20
ADDED = 50
_D = 512
_CHUNK = 10_000


def growth(work: Path, *, sizes: Sequence[int], rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Indexes of made-up vectors, added to in turns: no image, no network, only the store."""
    indexes = []
    for size in sizes:
        say(f"an index of {size:,} made-up references")
        indexes.append(_Growing(work / str(size), size))
    say(f"adding {ADDED} references to each, {rounds} times")
    for _ in range(rounds):
        for index in indexes:
            index.add()
    return {
        "dimensions": _D,
        "added_at_once": ADDED,
        "vectors_of_one_addition_bytes": ADDED * _D * 2,
        "by_references_before": {str(size): i.cost() for size, i in zip(sizes, indexes, strict=True)},
    }


def growth_table(growth: Mapping[str, Any]) -> Iterator[str]:
    """What an addition took, by size of the index, as Markdown."""
    yield (
        f"{growth['added_at_once']} made-up references of {growth['dimensions']} dimensions at a time, from "
        "vectors in memory to the committed generation. Their vectors alone are "
        f"{growth['vectors_of_one_addition_bytes'] / 1024:.0f} KiB, written twice: staged, then committed.\n"
    )
    rows = []
    for size, cost in growth["by_references_before"].items():
        time = _spread(cost["stage_and_commit_s"], "median", 1e3, "ms")
        written = cost["written_bytes"]
        volume = _spread(written, "mean", 1 / 1024, "KiB") if written else "not counted here"
        rows.append([f"{int(size):,}", time, volume, str(cost["shards_afterwards"])])
    yield markdown_table(
        ["references before", "time, median", "bytes written, mean", "shards afterwards"], rows
    )


def _spread(rounds: Mapping[str, float], middle: str, scale: float, unit: str) -> str:
    value, low, high = (rounds[name] * scale for name in (middle, "min", "max"))
    return f"{value:.0f} {unit} ({low:.0f} to {high:.0f})"


class _Growing:
    """An index of made-up references, half of them fake, and what each addition to it took."""

    def __init__(self, folder: Path, size: int) -> None:
        self._rng = np.random.default_rng(size)
        self._cache = folder / "cache"
        self._use_own_cache()
        canaries = self._rng.normal(size=(16, _D)).astype(np.float32)
        self._store = Store.create(folder / "index", _spec(), canaries={"proj": canaries})
        for start in range(0, size, _CHUNK):
            n = min(_CHUNK, size - start)
            facts = [Facts("fake", f"generator {i % 8}") if i % 2 else Facts("real") for i in range(n)]
            self._commit(self._images(n), facts)
        self._elapsed_s: list[float] = []
        self._written_bytes: list[int] = []

    def add(self) -> None:
        """One addition of 50 fakes, measured from vectors in memory to the committed generation."""
        self._use_own_cache()
        images, facts = self._images(ADDED), [Facts("fake", "new")] * ADDED
        before, started = _written_so_far_bytes(), time.perf_counter()
        self._commit(images, facts)
        self._elapsed_s.append(time.perf_counter() - started)
        after = _written_so_far_bytes()
        if before is not None and after is not None:
            self._written_bytes.append(after - before)

    def cost(self) -> dict[str, Any]:
        """Of all additions; no bytes where the kernel does not count them."""
        written = self._written_bytes
        return {
            "stage_and_commit_s": rounds_of(self._elapsed_s),
            "written_bytes": rounds_of(written) | {"mean": float(np.mean(written))} if written else None,
            "shards_afterwards": len(self._store.snapshot().manifest.shards),
        }

    def _use_own_cache(self) -> None:
        # rd remembers digests for all indexes of a user in one file: here each index pays for its own.
        os.environ["RD_CACHE"] = str(self._cache)

    def _images(self, n: int) -> list[Embedded]:
        vectors = self._rng.normal(size=(n, _D)).astype(np.float32)
        hashes = self._rng.integers(0, 2**64, n, dtype=np.uint64)
        return [
            Embedded(
                ImageItem(f"made-up/{value:016x}", bytes),
                hashlib.sha256(value.tobytes()).digest(),
                int(value),
                256,
                256,
                "JPEG",
                {"proj": vector},
            )
            for value, vector in zip(hashes, vectors, strict=True)
        ]

    def _commit(self, images: Sequence[Embedded], facts: Sequence[Facts]) -> None:
        with self._store.writer() as writer:
            staging = writer.staging()
            staging.add(images)
            rows = [
                NewRow(image.content_id, image.item.uri, known)
                for image, known in zip(images, facts, strict=True)
            ]
            writer.add(Addition(rows), staging)


def _spec() -> EncoderSpec:
    preprocessing = Preprocessing("clip", 224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return EncoderSpec("made-up", "made-up", "0" * 64, False, preprocessing, {"proj": _D})


def _written_so_far_bytes() -> int | None:
    """What this process has handed to write(2) in its life: every file, temporary ones included."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return None
    return int(dict(line.split(": ") for line in counters.read_text().splitlines())["wchar"])
