"""Candidates for batches of queries: blocks of rows widened once and multiplied with all queries.

A batch shares the reading and widening of the codes, and matrix products run near the peak of the CPU.
Where the CPU multiplies bfloat16 in hardware that is several times its float32 peak; what the rounding
may do to a product is part of the answer, so answers stay exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.search import threads
from retrieval_detect.search.scan import Candidates, Scan, cut_of, slack_of

if TYPE_CHECKING:
    from torch import Tensor

    from retrieval_detect.search.scan import Part
    from retrieval_detect.types import Float16, Float32, Float64, Int64

_BLOCK_ROWS = 2048
"""Rows multiplied at a time: what is made of them stays in the cache."""
_QUERIES_AT_ONCE = 1024
_PRODUCTS_AT_ONCE = 1 << 21
"""Of one thread."""
_GROUP = 16
"""Products searched for their largest first, which is cheaper than looking at each."""
_COARSE_SPARE = 24
_BFLOAT16_ROUNDING = 2.0**-8
"""Largest relative error of rounding to bfloat16."""


class BlockScan(Scan):
    """Matrix products in float32 or, ``coarse``, in bfloat16."""

    fewest = 6

    def __init__(self, *, coarse: bool) -> None:
        self.coarse = coarse

    def search(self, parts: Sequence[Part], codes: Float32, c: int) -> Candidates:
        """The best of all rows. Removed rows are never among them."""
        n = sum(part.n_alive for part in parts)
        # Rough products need more candidates before the last of them is surely too far.
        wanted = min(n, 7 * c // 4 + _COARSE_SPARE if self.coarse else c)
        batches = [codes[i : i + _QUERIES_AT_ONCE] for i in range(0, len(codes), _QUERIES_AT_ONCE)]
        found = [self._search(parts, batch, wanted) for batch in batches]
        products = np.concatenate([products for products, _ in found])
        slots = np.concatenate([slots for _, slots in found])
        cut = cut_of(products, left_out=wanted < n)
        slack = slack_of(codes.shape[1], len(codes), roundings=4.0)
        if not self.coarse:
            return Candidates(slots, products, cut, slack)
        # |q·v - q'·v'| <= |q - q'||v| + |q'||v - v'|, and |v| <= 1 + 2^-7; q'·v' is rounded once more.
        slack += (_query_error(codes) + _BFLOAT16_ROUNDING * (1 + _BFLOAT16_ROUNDING)) * (1 + 2.0**-7)
        return Candidates(slots, products, cut, slack, share=1.01 * _BFLOAT16_ROUNDING)

    def _search(self, parts: Sequence[Part], codes: Float32, c: int) -> tuple[Float32, Int64]:
        slabs = list(_slabs(parts[-1].end, len(codes)))
        found = threads.drained(lambda taken: self._best(parts, codes, taken, c), slabs)
        products = np.concatenate([best.values.numpy() for best in found], axis=1)
        slots = np.concatenate([best.slots.numpy() for best in found], axis=1)
        first = _largest(products, c)
        return np.take_along_axis(products, first, 1), np.take_along_axis(slots, first, 1)

    def _best(self, parts: Sequence[Part], codes: Float32, slabs: Iterator[slice], c: int) -> _Best:
        """The best rows of ``slabs``."""
        import torch

        best = _Best(len(codes), c)
        queries = torch.from_numpy(codes).to(torch.bfloat16 if self.coarse else torch.float32).T
        wide = torch.empty(_BLOCK_ROWS, codes.shape[1])
        rows = torch.empty_like(wide, dtype=queries.dtype) if self.coarse else wide
        made = torch.empty(_BLOCK_ROWS, len(codes), dtype=queries.dtype)
        products = torch.empty(0, len(codes))
        for slab in slabs:
            n = slab.stop - slab.start
            whole = -(-n // _GROUP) * _GROUP
            if len(products) < whole:
                products = torch.empty(whole, len(codes))
            products[n:whole] = -torch.inf
            for part, block in _pieces(parts, slab.start, slab.stop):
                m, first = block.stop - block.start, part.start + block.start - slab.start
                wide[:m].copy_(_tensor(part.shard.codes[block]))
                if self.coarse:
                    rows[:m].copy_(wide[:m])
                products[first : first + m] = torch.mm(rows[:m], queries, out=made[:m])
                if part.n_alive < len(part.alive):
                    gone = np.flatnonzero(~part.alive[block])
                    products[torch.from_numpy(first + gone)] = -torch.inf
            best.take(products[:whole], slab.start)
        return best


class _Best:
    """The c largest products of each of q queries among those seen; -inf where there were fewer."""

    def __init__(self, q: int, c: int) -> None:
        import torch

        self.values = torch.full((q, c), -torch.inf)
        self.slots = torch.zeros((q, c), dtype=torch.int64)
        self._cut = self.values[:, 0]

    def take(self, products: Tensor, start: int) -> None:
        """See ``products``, float32 (m, q), m a multiple of ``_GROUP``, of slots from ``start`` on."""
        import torch

        if (self._cut > -torch.inf).all():
            self._merge(*self._larger(products, start))
        else:
            slots = torch.arange(start, start + len(products)).expand(len(self.values), -1)
            self._merge(products.T, slots)

    def _larger(self, products: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Products above the smallest kept, and their slots, padded to the same number a query."""
        import torch

        q, cut = products.shape[1], self._cut
        grouped = products.view(_GROUP, -1, q)
        query, group = (grouped.amax(dim=0) > cut).T.nonzero(as_tuple=True)
        values = grouped[:, group, query].T
        at, member = (values > cut[query, None]).nonzero(as_tuple=True)
        query = query[at]
        counts = torch.bincount(query, minlength=q)
        place = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]
        width = int(counts.max())
        padded = torch.full((q, width), -torch.inf)
        slots = torch.zeros((q, width), dtype=torch.int64)
        padded[query, place] = values[at, member]
        slots[query, place] = start + member * grouped.shape[1] + group[at]
        return padded, slots

    def _merge(self, values: Tensor, slots: Tensor) -> None:
        import torch

        if not values.shape[1]:
            return
        values, slots = torch.cat([self.values, values], dim=1), torch.cat([self.slots, slots], dim=1)
        # Several times faster than torch's topk, which sorts.
        best = torch.from_numpy(_largest(values.numpy(), self.values.shape[1]))
        self.values, self.slots = values.gather(1, best), slots.gather(1, best)
        self._cut = self.values.amin(dim=1)


def _largest(values: Float32, c: int) -> Int64:
    """Where the c largest of each row are, in no particular order."""
    return np.argpartition(values, -c, axis=1)[:, -c:]


def block_scans() -> list[Scan]:
    """Those worth having on this CPU, the fastest first."""
    import torch

    # Without these torch emulates bfloat16 products, and float32 is faster.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    coarse = any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return [BlockScan(coarse=rough) for rough in ([True, False] if coarse else [False])]


def _query_error(codes: Float32) -> Float64:
    """|q - q'| / |q| of each query and its rounding to bfloat16."""
    import torch

    rounded = torch.from_numpy(codes).to(torch.bfloat16).to(torch.float32).numpy()
    error = (codes.astype(np.float64) - rounded) ** 2
    share: Float64 = np.sqrt(error.sum(axis=1) / np.vecdot(codes, codes, dtype=np.float64))
    return share


def _slabs(end: int, n_queries: int) -> Iterator[slice]:
    """Slots 0 to ``end``, ever more at once: the better the best so far, the fewer that are better.

    Towards the end they become small again, so that all threads are done at about the same time.
    """
    n_threads, start, size = threads.count(), 0, _BLOCK_ROWS
    largest = _PRODUCTS_AT_ONCE // n_queries
    while start < end:
        for first in range(start, min(start + n_threads * size, end), size):
            yield slice(first, min(first + size, end))
        start += n_threads * size
        size = min(2 * size, largest, (end - start) // (2 * n_threads))
        size = max(1, size // _BLOCK_ROWS) * _BLOCK_ROWS


def _pieces(parts: Sequence[Part], first: int, last: int) -> Iterator[tuple[Part, slice]]:
    """The blocks that make up slots ``first`` to ``last``."""
    for part in parts:
        start, stop = max(first, part.start) - part.start, min(last, part.end) - part.start
        for row in range(start, stop, _BLOCK_ROWS):
            yield part, slice(row, min(row + _BLOCK_ROWS, stop))


class _Lent:
    """An array as if it could be written to: torch, which only reads it, else makes a copy or a warning."""

    def __init__(self, array: Float16) -> None:
        self.array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}


def _tensor(rows: Float16) -> Tensor:
    import torch

    return torch.from_numpy(np.asarray(_Lent(rows)))
