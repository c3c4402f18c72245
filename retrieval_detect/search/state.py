"""What one search sees from beginning to end, and why its answers are exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import SearchError
from retrieval_detect.search.exact import BLOCK_ROWS, similarity, top
from retrieval_detect.search.projection import unit

if TYPE_CHECKING:
    from retrieval_detect.search.scan import Part, Scan
    from retrieval_detect.types import Bool, Float32, Int64, Neighbours

_ROUNDING = 2.0**-24
"""Relative error of one float32 operation."""


@dataclass(frozen=True, slots=True)
class BankState:
    """The parts of a bank at one moment; adding and removing make a new one."""

    parts: tuple[Part, ...]

    @property
    def n(self) -> int:
        """Live rows."""
        return sum(part.n_alive for part in self.parts)

    def attempt(self, scan: Scan, codes: Float32, block: Int64, *, c: int, found: Neighbours) -> Bool:
        """Answer the queries ``codes[block]`` from c candidates each, where that can be exact.

        ``codes`` : float32 (q, d), float16 codes widened. Fills the rows of ``found`` whose answers
        stand and returns which they are, bool (len(block),).

        An answer stands if its k-th similarity exceeds what any other row could reach. With codes q and v
        of d terms, u = 2^-24 and a scan of r roundings a term, a product is off by r·d·u·|q||v| or less.
        Similarity is q·v / (|q||v|); computing it is off by 2·d·u or less. So a row whose product is p has
        a similarity within |p/|q||·spread + (r + 2)·(d + 8)·u of p/|q|, where spread = max |1/|v| - 1| and
        the 8 pays for square roots and divisions. The candidates themselves are held to this bound too: a
        device that rounds worse than it says is a ``SearchError``.
        """
        queries, norms = unit(codes[block]), _norms(codes[block])
        candidates = scan.search(self.parts, codes[block], c)
        spread = max(part.shard.spread for part in self.parts)
        slack = (scan.roundings + 2) * (codes.shape[1] + 8) * _ROUNDING
        cut = candidates.cut / norms
        reach = np.maximum(cut * (1 + spread), cut * (1 - spread)) + slack
        k = found.row_ids.shape[1]
        stands = np.zeros(len(block), bool)
        for j, query in enumerate(queries):
            order = np.argsort(candidates.slots[j])
            row_ids, similarities = self._measure(query, candidates.slots[j][order])
            cosines = candidates.products[j][order] / norms[j]
            live = similarities > -np.inf
            if (np.abs(cosines - similarities) > np.abs(cosines) * spread + slack)[live].any():
                raise SearchError("FAISS computes less exactly here than it must")
            stands[j] = np.count_nonzero(similarities > reach[j]) >= k
            if stands[j]:
                _keep(found, int(block[j]), row_ids, similarities)
        return stands

    def compare_all(self, codes: Float32, i: int, *, found: Neighbours) -> None:
        """Answer query ``i`` by its similarity to every row, without FAISS."""
        slots = np.arange(self.parts[-1].end)
        _keep(found, i, *self._measure(unit(codes[i : i + 1])[0], slots))

    def _measure(self, query: Float32, slots: Int64) -> tuple[Int64, Float32]:
        """Row ids and similarities of ``slots``, int64 (c,), ascending; -inf for removed rows."""
        row_ids = np.empty(len(slots), np.int64)
        similarities = np.empty(len(slots), np.float32)
        for part in self.parts:
            first, last = np.searchsorted(slots, (part.start, part.end))
            for start in range(first, last, BLOCK_ROWS):
                block = slice(start, min(start + BLOCK_ROWS, last))
                rows = slots[block] - part.start
                row_ids[block] = part.shard.row_ids[rows]
                values = similarity(query, part.shard.codes[rows])
                similarities[block] = np.where(part.alive[rows], values, -np.inf)
        return row_ids, similarities


def _norms(codes: Float32) -> Float32:
    norms: Float32 = np.sqrt((codes.astype(np.float64) ** 2).sum(axis=1))
    return norms


def _keep(found: Neighbours, i: int, row_ids: Int64, similarities: Float32) -> None:
    first = top(similarities, row_ids, found.row_ids.shape[1])
    found.row_ids[i], found.similarities[i] = row_ids[first], similarities[first]
