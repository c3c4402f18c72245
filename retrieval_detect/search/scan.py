"""Candidates: the rows FAISS holds for nearest, and a bound on all others.

A scan may round as its device does; ``Bank`` computes the similarities of the candidates anew and
accepts them only if no excluded row can reach them. So a scan decides how fast an answer is, never
what it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retrieval_detect.search._faiss import faiss, faiss_errors
from retrieval_detect.search.exact import BLOCK_ROWS

if TYPE_CHECKING:
    from retrieval_detect.search.derived import ShardCodes
    from retrieval_detect.types import Bool, Float32, Int64

REBUILD_SHARE = 0.2
"""Removed rows still on the device, as a share of all there, at which its copy is made anew."""

_DEVICE_BLOCK_ROWS = 8 * BLOCK_ROWS
"""Each addition makes the device move all it holds, so blocks are larger than elsewhere."""
_GPU_LARGEST_K = 2048
_GPU_SCRATCH_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A shard within a bank.

    ``start`` : the bank's slot of its first row; row i sits at ``start + i`` for the bank's life.
    ``alive`` : bool (n,), which rows were not removed; ``n_alive`` of them.
    """

    shard: ShardCodes
    start: int
    alive: Bool
    n_alive: int

    @classmethod
    def of(cls, shard: ShardCodes, start: int, alive: Bool) -> Part:
        """A part, counted."""
        return cls(shard, start, alive, int(alive.sum()))

    @property
    def end(self) -> int:
        """One past the last slot."""
        return self.start + len(self.alive)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a scan found for q queries, in no particular order.

    ``slots`` : int64 (q, c). ``products`` : float32 (q, c), inner products as the device computed them.
    ``cut`` : float32 (q,), no row left out had a larger product; -inf where none was left out.
    """

    slots: Int64
    products: Float32
    cut: Float32


class Scan(Protocol):
    """A way to find candidates."""

    roundings: float
    """Bound on the error of a product, in float32 roundings a term."""
    largest_c: int
    """Most candidates that can be asked for."""
    shared: bool
    """Whether several threads may search while another one adds or removes."""

    def extend(self, parts: Sequence[Part]) -> None:
        """Take in new parts; their slots follow on those known."""

    def remove(self, parts: Sequence[Part]) -> None:
        """Take note that rows of ``parts`` (all of the bank's) have gone."""

    def search(self, parts: Sequence[Part], codes: Float32, c: int) -> Candidates:
        """At least c candidates (or all rows) for each of ``codes``, float32 (q, d), q >= 1, c >= 1.

        Removed rows may be among them.
        """


class CpuScan:
    """One FAISS index a shard, mapped from disk; shards and queries are shared out to a thread a core."""

    roundings = 1.0
    largest_c = 1 << 62
    shared = True

    def extend(self, parts: Sequence[Part]) -> None:
        """Nothing to do: the parts carry their indexes."""

    def remove(self, parts: Sequence[Part]) -> None:
        """Nothing to do: the parts carry what is alive."""

    def search(self, parts: Sequence[Part], codes: Float32, c: int) -> Candidates:
        """Scan every shard, keep the c best of all. Removed rows are never among them."""
        parts = [part for part in parts if part.n_alive]
        step = -(-len(codes) // _threads())
        jobs = [(part, codes[i : i + step]) for i in range(0, len(codes), step) for part in parts]
        found = list(_pool().map(lambda job: _search_part(job[0], job[1], c), jobs))
        blocks = [_best(found[i : i + len(parts)], c) for i in range(0, len(found), len(parts))]
        products = np.concatenate([products for products, _ in blocks])
        slots = np.concatenate([slots for _, slots in blocks])
        left_out = sum(part.n_alive for part in parts) > products.shape[1]
        return Candidates(slots, products, _cut(products, left_out=left_out))


class FlatScan:
    """One flat FAISS index, normally on a GPU, added to in place.

    Such an index can neither skip nor delete rows: removed ones stay among the candidates, more are
    fetched to make up for them, and past ``REBUILD_SHARE`` the copy is made anew from the shards.

    Parameters
    ----------
    flat : an empty FAISS index of inner products that keeps rows in order and as float16 (or wider).
    roundings : bound on the error of its products, in float32 roundings a term.
    """

    largest_c = _GPU_LARGEST_K
    shared = False

    def __init__(self, flat: Any, *, roundings: float) -> None:
        self.roundings = roundings
        self._flat = flat
        self._slots: Int64 = np.empty(0, np.int64)

    def extend(self, parts: Sequence[Part]) -> None:
        """Copy the live rows of ``parts`` to the device, block by block."""
        slots = [self._slots]
        for part in parts:
            live = np.flatnonzero(part.alive)
            for start in range(0, len(live), _DEVICE_BLOCK_ROWS):
                block = live[start : start + _DEVICE_BLOCK_ROWS]
                with faiss_errors("copy references to the device"):
                    self._flat.add(part.shard.codes[block].astype(np.float32))
            slots.append(part.start + live)
        self._slots = np.concatenate(slots)

    def remove(self, parts: Sequence[Part]) -> None:
        """Make the copy anew when too many of its rows are removed ones."""
        if self._n_removed(parts) > REBUILD_SHARE * len(self._slots):
            self._flat.reset()
            self._slots = np.empty(0, np.int64)
            self.extend(parts)

    def search(self, parts: Sequence[Part], codes: Float32, c: int) -> Candidates:
        """The c best rows of the device's copy, and some more while removed ones are among them."""
        n = len(self._slots)
        fetched = min(c + min(c, self._n_removed(parts)), n, self.largest_c)
        with faiss_errors("search on the device"):
            products, positions = self._flat.search(codes, fetched)
        return Candidates(self._slots[positions], products, _cut(products, left_out=fetched < n))

    def _n_removed(self, parts: Sequence[Part]) -> int:
        return len(self._slots) - sum(part.n_alive for part in parts)


def gpu_scan(ordinal: int, d: int) -> FlatScan:
    """An empty scan over float16 rows of d dimensions on GPU number ``ordinal``.

    Products of two float16 numbers are exact in float32; only sums round. Tensor cores align the terms
    of a block and truncate, where IEEE arithmetic rounds to nearest (Fasi, Higham, Mikaitis and Pranesh
    2021, "Numerical behavior of NVIDIA tensor cores"): about two such roundings a term; eight are allowed.
    """
    library = faiss()
    with faiss_errors(f"start on GPU {ordinal}"):
        resources = library.StandardGpuResources()
        resources.setTempMemory(_GPU_SCRATCH_BYTES)
        config = library.GpuIndexFlatConfig()
        config.device = ordinal
        config.useFloat16 = True
        if hasattr(config, "use_cuvs"):
            # cuVS promises no precision for its products; FAISS's own kernels accumulate in float32.
            config.use_cuvs = False
        flat = library.GpuIndexFlat(resources, d, library.METRIC_INNER_PRODUCT, config)
    return FlatScan(flat, roundings=8.0)


def _cut(products: Float32, *, left_out: bool) -> Float32:
    if not left_out:
        return np.full(len(products), -np.inf, np.float32)
    smallest: Float32 = products.min(axis=1)
    return smallest


def _search_part(part: Part, codes: Float32, c: int) -> tuple[Float32, Int64]:
    library = faiss()
    parameters = None
    if part.n_alive < len(part.alive):
        selector = library.IDSelectorBitmap(np.packbits(part.alive, bitorder="little"))
        parameters = library.SearchParameters(sel=selector)
    with faiss_errors("search a shard"):
        products, positions = part.shard.index.search(codes, min(c, part.n_alive), params=parameters)
    return products, positions + part.start


def _best(found: Sequence[tuple[Float32, Int64]], c: int) -> tuple[Float32, Int64]:
    """The c best of what several parts gave for the same queries, each (q, up to c)."""
    products = np.concatenate([products for products, _ in found], axis=1)
    slots = np.concatenate([slots for _, slots in found], axis=1)
    if products.shape[1] <= c:
        return products, slots
    best = np.argpartition(products, -c, axis=1)[:, -c:]
    return np.take_along_axis(products, best, 1), np.take_along_axis(slots, best, 1)


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    # FAISS's own threads share out queries but not shards, spin while they wait, and would be started
    # by each of these anew; a process that forks after they ran hangs.
    return ThreadPoolExecutor(
        _threads(), thread_name_prefix="rd-search", initializer=lambda: faiss().omp_set_num_threads(1)
    )
