"""Candidates: the rows a device holds for nearest, and a bound on all others.

A scan may round as its device does; ``Bank`` computes the similarities of the candidates anew and
accepts them only if no excluded row can reach them. So a scan decides how fast an answer is, never
what it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.search import threads
from retrieval_detect.search._faiss import faiss, faiss_errors
from retrieval_detect.search.exact import BLOCK_ROWS

if TYPE_CHECKING:
    from retrieval_detect.search.derived import ShardCodes
    from retrieval_detect.types import Bool, Float32, Float64, Int64

REBUILD_SHARE = 0.2
"""Removed rows still on the device, as a share of all there, at which its copy is made anew."""

_DEVICE_BLOCK_ROWS = 8 * BLOCK_ROWS
"""Each addition makes the device move all it holds, so blocks are larger than elsewhere."""
_SLICE_ROWS = BLOCK_ROWS
"""Fewest rows worth a thread."""
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
        return cls(shard, start, alive, int(np.count_nonzero(alive)))

    @property
    def end(self) -> int:
        """One past the last slot."""
        return self.start + len(self.alive)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a scan found for q queries, in no particular order.

    ``slots`` : int64 (q, c). ``products`` : float32 (q, c), inner products as the device computed them.
    ``cut`` : float32 (q,), no row left out had a larger product; -inf where none was left out.
    A product p of query q is off the true one by |p|·``share`` + |q|·``slack`` or less; ``slack`` :
    float64 (q,).
    """

    slots: Int64
    products: Float32
    cut: Float32
    slack: Float64
    share: float = 0.0


class Scan(ABC):
    """A way to find candidates. Those on the CPU need not be told of changes: parts carry all they look at.

    ``coarse`` : whether its products are so rough that a query it cannot settle should try another scan.
    ``fewest`` : queries below which another scan is faster. ``largest_c`` : most candidates that can be
    asked for. ``shared`` : whether several threads may search while another one adds or removes.
    """

    coarse = False
    fewest = 1
    largest_c = 1 << 62
    shared = True

    def extend(self, parts: Sequence[Part]) -> None:  # noqa: B027 - most have nothing to do
        """Take in new parts; their slots follow on those known."""

    def remove(self, parts: Sequence[Part]) -> None:  # noqa: B027
        """Take note that rows of ``parts`` (all of the bank's) have gone."""

    @abstractmethod
    def search(self, parts: Sequence[Part], codes: Float32, c: int) -> Candidates:
        """At least c candidates (or all rows) for each of ``codes``, float32 (q, d), q >= 1, c >= 1.

        Removed rows may be among them.
        """


def slack_of(d: int, n_queries: int, *, roundings: float) -> Float64:
    """``Candidates.slack`` of sums of d products in float32, with so many roundings a term, float64 (q,)."""
    # Two roundings and eight terms more than there are: norms, divisions, and second-order terms.
    return np.full(n_queries, (roundings + 2) * (d + 8) * 2.0**-24)


class CpuScan(Scan):
    """One FAISS index a shard, mapped from disk and read by a thread a core: fastest for a query or two.

    The codes are read once a query, 2·d bytes a row, at what memory gives.
    """

    def search(self, parts: Sequence[Part], codes: Float32, c: int) -> Candidates:
        """Scan every shard, keep the c best of all. Removed rows are never among them."""
        jobs = [(part, rows) for part in parts for rows in _slices(part, threads.count())]
        found = threads.shared_out(lambda job: _search_slice(job[0], job[1], codes, c), jobs)
        products, slots = _best(found, c)
        left_out = sum(part.n_alive for part in parts) > products.shape[1]
        slack = slack_of(codes.shape[1], len(codes), roundings=1.0)
        return Candidates(slots, products, cut_of(products, left_out=left_out), slack)


class FlatScan(Scan):
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
        slack = slack_of(codes.shape[1], len(codes), roundings=self.roundings)
        return Candidates(self._slots[positions], products, cut_of(products, left_out=fetched < n), slack)

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


def cut_of(products: Float32, *, left_out: bool) -> Float32:
    """``Candidates.cut``, where the products, float32 (q, c), are the largest."""
    if not left_out:
        return np.full(len(products), -np.inf, np.float32)
    smallest: Float32 = products.min(axis=1)
    return smallest


def _slices(part: Part, n_threads: int) -> list[slice]:
    """Ranges of a part's rows with something alive in them, one a thread unless they became small."""
    n = len(part.alive)
    step = max(_SLICE_ROWS, -(-n // n_threads))
    ranges = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    return [rows for rows in ranges if part.alive[rows].any()]


def _search_slice(part: Part, rows: slice, codes: Float32, c: int) -> tuple[Float32, Int64]:
    library = faiss()
    n, n_alive = rows.stop - rows.start, int(np.count_nonzero(part.alive[rows]))
    parameters = None
    if n_alive < n:
        inside = np.zeros(len(part.alive), bool)
        inside[rows] = part.alive[rows]
        selector = library.IDSelectorBitmap(np.packbits(inside, bitorder="little"))
        parameters = library.SearchParameters(sel=selector)
    elif n < len(part.alive):
        parameters = library.SearchParameters(sel=library.IDSelectorRange(rows.start, rows.stop))
    with faiss_errors("search a shard"):
        products, positions = part.shard.index.search(codes, min(c, n_alive), params=parameters)
    return products, positions + part.start


def _best(found: Sequence[tuple[Float32, Int64]], c: int) -> tuple[Float32, Int64]:
    """The c best of what several parts gave for the same queries, each (q, up to c)."""
    products = np.concatenate([products for products, _ in found], axis=1)
    slots = np.concatenate([slots for _, slots in found], axis=1)
    if products.shape[1] <= c:
        return products, slots
    best = np.argpartition(products, -c, axis=1)[:, -c:]
    return np.take_along_axis(products, best, 1), np.take_along_axis(slots, best, 1)
