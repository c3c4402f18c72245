"""What one search sees from beginning to end, and why its answers are exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import SearchError
from retrieval_detect.search import threads
from retrieval_detect.search.exact import BLOCK_ROWS, cosine, similarity, top
from retrieval_detect.types import Neighbours

if TYPE_CHECKING:
    from retrieval_detect.search.scan import Part, Scan
    from retrieval_detect.types import Bool, Float16, Float32, Float64, Int64

_LAST_ROUNDING = 2.0**-23
"""Similarities are rounded to float32; twice what that can do to a number up to 1."""
_ROWS_AT_ONCE = 1024
"""Rows widened to float64 at a time: they stay in the cache."""
_NUMBERS_ALONE = 1 << 15
"""So few that waking a thread takes longer than measuring, and torch starts none of its own."""


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

        An answer stands if its k-th similarity exceeds what any other row could reach. Similarity is
        q·v / (|q||v|) rounded to float32, and a scan says how far its products are off q·v
        (``Candidates``). So a row whose product is p has a similarity within |p/|q||·share + slack of
        p/|q|, where share grows by spread = max |1/|v| - 1| over the rows. The candidates themselves are
        held to this bound too: a device that rounds worse than it says is a ``SearchError``.
        """
        queries = codes[block].astype(np.float64)
        norms = np.sqrt(np.vecdot(queries, queries))[:, None]
        candidates = scan.search(self.parts, codes[block], c)
        row_ids, similarities = self._measure(queries, candidates.slots)
        spread = max(part.shard.spread for part in self.parts)
        share = candidates.share + (1 + candidates.share) * spread
        slack = candidates.slack[:, None] * (1 + spread) + _LAST_ROUNDING
        cosines, live = candidates.products / norms, similarities > -np.inf
        if (np.abs(cosines - similarities) > np.abs(cosines) * share + slack)[live].any():
            raise SearchError("this device computes less exactly than it must")
        cut = candidates.cut[:, None] / norms
        reach = np.maximum(cut * (1 + share), cut * (1 - share)) + slack
        k = found.row_ids.shape[1]
        stands: Bool = np.count_nonzero(similarities > reach, axis=1) >= k
        best = nearest(row_ids[stands], similarities[stands], k)
        found.row_ids[block[stands]], found.similarities[block[stands]] = best.row_ids, best.similarities
        return stands

    def compare_all(self, codes: Float32, i: int, *, found: Neighbours) -> None:
        """Answer query ``i`` by its similarity to every row, without any scan."""
        parts = [part for part in self.parts if part.n_alive]
        blocks = [
            similarity(codes[i], part.shard.codes[start : start + BLOCK_ROWS])
            for part in parts
            for start in range(0, len(part.alive), BLOCK_ROWS)
        ]
        alive = np.concatenate([part.alive for part in parts])
        similarities = np.concatenate(blocks)[alive]
        row_ids = np.concatenate([part.shard.row_ids for part in parts])[alive]
        first = top(similarities, row_ids, found.row_ids.shape[1])
        found.row_ids[i], found.similarities[i] = row_ids[first], similarities[first]

    def rank(self, codes: Float32, slots: Int64, k: int) -> Neighbours:
        """The k best of some rows for each query; where fewer than k are live, similarities end in -inf.

        ``codes`` : float32 (q, d), float16 codes widened. ``slots`` : int64 (q, c), c >= k; -1 is no row.
        """
        row_ids, similarities = self._measure(codes.astype(np.float64), np.maximum(slots, 0))
        similarities[slots < 0] = -np.inf
        return nearest(row_ids, similarities, k)

    def _measure(self, queries: Float64, slots: Int64) -> tuple[Int64, Float32]:
        """Row ids and similarities of ``slots``, int64 (q, c), for ``queries``; -inf for removed rows."""
        if slots.size * queries.shape[1] <= _NUMBERS_ALONE:
            return self._measured(queries, slots, _Room(slots.size, queries.shape[1]))
        row_ids, similarities = np.empty_like(slots), np.empty(slots.shape, np.float32)
        step = max(1, _ROWS_AT_ONCE // slots.shape[1])

        def measure(corners: Iterator[tuple[int, int]]) -> None:
            room = _Room(_ROWS_AT_ONCE, queries.shape[1])
            for query, column in corners:
                here = slice(query, query + step), slice(column, column + _ROWS_AT_ONCE)
                row_ids[here], similarities[here] = self._measured(queries[here[0]], slots[here], room)

        corners = product(range(0, len(slots), step), range(0, slots.shape[1], _ROWS_AT_ONCE))
        threads.drained(measure, corners)
        return row_ids, similarities

    def _measured(self, queries: Float64, slots: Int64, room: _Room) -> tuple[Int64, Float32]:
        row_ids, alive = self._rows(slots.ravel(), room.codes)
        rows = room.wide(slots.size).reshape(*slots.shape, queries.shape[1])
        squares = np.vecdot(queries, queries)[:, None]
        similarities = cosine(np.vecdot(rows, queries[:, None]), np.vecdot(rows, rows), squares)
        similarities[~alive.reshape(slots.shape)] = -np.inf
        return row_ids.reshape(slots.shape), similarities

    def _rows(self, slots: Int64, codes: Float16) -> tuple[Int64, Bool]:
        """Row ids of ``slots``, int64 (m,), and whether they are alive; their codes go to ``codes``."""
        owner = np.searchsorted([part.end for part in self.parts], slots, side="right")
        row_ids, alive = np.empty_like(slots), np.empty(len(slots), bool)
        for i in np.flatnonzero(np.bincount(owner)):
            part, at = self.parts[i], np.flatnonzero(owner == i)
            inside = slots[at] - part.start
            row_ids[at], alive[at] = part.shard.row_ids[inside], part.alive[inside]
            if len(at) == len(slots) and part.shard.codes.flags.aligned:
                # Without a mode numpy would gather elsewhere first; where codes are not aligned, as in a file
                # of FAISS, it would copy all of them.
                part.shard.codes.take(inside, axis=0, out=codes[: len(slots)], mode="clip")
            else:
                codes[at] = part.shard.codes[inside]
        return row_ids, alive


class _Room:
    """Where a thread widens up to m rows of d dimensions, over and over: new memory costs more than sums."""

    def __init__(self, m: int, d: int) -> None:
        self.codes = np.empty((m, d), np.float16)
        self._single, self._double = np.empty((m, d), np.float32), np.empty((m, d))

    def wide(self, m: int) -> Float64:
        """The first m ``codes`` in float64, valid until the next call."""
        import torch

        # In two steps, for torch widens float16 to float64 one number at a time.
        single = torch.from_numpy(self._single[:m]).copy_(torch.from_numpy(self.codes[:m]))
        torch.from_numpy(self._double[:m]).copy_(single)
        return self._double[:m]


def nearest(row_ids: Int64, similarities: Float32, k: int) -> Neighbours:
    """The k first by (-similarity, row id) of each query; ``row_ids``, ``similarities`` : (q, c), c >= k."""
    order = np.argsort(-similarities, axis=1)
    ranked = np.take_along_axis(similarities, order, 1)
    tied = (ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] > -np.inf)
    if (several := tied.any(axis=1)).any():
        order[several] = np.lexsort((row_ids[several], -similarities[several]), axis=-1)
    first = order[:, :k]
    return Neighbours(np.take_along_axis(row_ids, first, 1), np.take_along_axis(similarities, first, 1))
