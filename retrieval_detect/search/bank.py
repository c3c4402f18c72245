"""A bank: all references of one label, searched exactly whatever the device, and why that is exact."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Self

import numpy as np

from retrieval_detect.errors import EmptyBank, SearchError, VectorError
from retrieval_detect.search import threads
from retrieval_detect.search._faiss import gpu_ordinal
from retrieval_detect.search.blocks import block_scans
from retrieval_detect.search.derived import BankFiles
from retrieval_detect.search.exact import BLOCK_ROWS, ShardVectors, check_k, cosine, similarity, top
from retrieval_detect.search.projection import query_codes
from retrieval_detect.search.scan import CpuScan, Part, Scan, gpu_scan
from retrieval_detect.types import Neighbours

if TYPE_CHECKING:
    from retrieval_detect.types import Bool, Float16, Float32, Float64, Int64, Label

__all__ = ["Bank", "BankFiles", "ShardVectors"]

_log = logging.getLogger(__name__)

_SPARE = 8
"""Candidates beyond 17/16 of k: enough for most answers to stand at the first attempt."""
_COARSE_ROWS = 8192
"""Rows below which rough products save less than the candidates they cost."""
_CANDIDATES_AT_ONCE = 1 << 18
"""Over all queries of one scan; bounds memory."""


class Bank:
    """The references of one label, less the removed ones. Made by ``Bank.open``.

    Neighbours are those of ``search.exact.search``, bit for bit: a scan proposes candidates, their
    similarities are computed anew, and the answer stands if no other row can reach the k-th of them
    (``BankState.attempt``). Where it does not, a finer scan and then twice as many candidates are tried,
    in the end all rows.

    Any number of threads may search, add and remove at once.
    """

    def __init__(self, label: Label, files: BankFiles, scans: Sequence[Scan]) -> None:
        self.label = label
        self._files = files
        self._scans = tuple(scans)
        self._state = BankState(())
        self._lock = Lock()

    @classmethod
    def open(
        cls,
        shards: Sequence[ShardVectors],
        *,
        label: Label,
        files: BankFiles,
        dead: Int64 | None = None,
        device: str = "cpu",
    ) -> Self:
        """A bank of all rows of ``shards`` but those whose id is in ``dead``, int64 (m,).

        ``device`` : ``auto`` (a GPU where FAISS has one), ``cpu``, ``cuda`` or ``cuda:n``.
        """
        ordinal = gpu_ordinal(device)
        scans: list[Scan] = [] if ordinal is None else [gpu_scan(ordinal, files.projection.d_out)]
        bank = cls(label, files, [*scans, *block_scans(), CpuScan()])
        bank.extend(shards, dead=dead)
        return bank

    @property
    def n(self) -> int:
        """Live rows."""
        return self._state.n

    # ------------------------------------------------------------ changing

    def extend(self, shards: Sequence[ShardVectors], *, dead: Int64 | None = None) -> None:
        """Add the rows of ``shards`` but those in ``dead``; costs work for these rows alone.

        A row id that the bank has held before, removed or not, is a ``VectorError``; nothing is added.
        """
        gone = np.unique(dead) if dead is not None else np.empty(0, np.int64)
        with self._lock:
            old = self._state.parts
            parts = list(old)
            for shard in shards:
                if len(shard.row_ids):
                    self._refuse_known(shard, parts)
                    start = parts[-1].end if parts else 0
                    parts.append(Part.of(self._files.open(shard), start, ~_among(shard.row_ids, gone)))
            self._tell(lambda scan: scan.extend(parts[len(old) :]))
            self._state = BankState(tuple(parts))

    def remove(self, row_ids: Int64) -> None:
        """Forget rows, int64 (m,), at once and exactly. Ids the bank does not hold are ignored."""
        gone = np.unique(row_ids)
        with self._lock:
            parts = tuple(_without(part, gone) for part in self._state.parts)
            self._tell(lambda scan: scan.remove(parts))
            self._state = BankState(parts)

    def _refuse_known(self, shard: ShardVectors, parts: Sequence[Part]) -> None:
        for part in parts:
            held = part.shard.row_ids
            if shard.row_ids[-1] < held[0] or held[-1] < shard.row_ids[0]:
                continue
            known = shard.row_ids[_among(shard.row_ids, held)]
            if known.size:
                raise VectorError(
                    f"row {known[0]} of shard {shard.shard_id} is in the {self.label} bank already",
                    hint="check the index: rd index verify",
                )

    def _tell(self, change: Callable[[Scan], None]) -> None:
        for scan in self._scans:
            try:
                change(scan)
            except SearchError as error:
                self._drop(scan, error)

    def _drop(self, scan: Scan, error: SearchError) -> None:
        _log.warning("%s bank: %s; slower from now on, and as exact", self.label, error)
        self._scans = tuple(other for other in self._scans if other is not scan)

    # ------------------------------------------------------------ searching

    def search(self, queries: Float32, k: int) -> Neighbours:
        """The k nearest live rows of each query; all rows where the bank has fewer than k.

        ``queries`` : see ``projection.query_codes``.
        """
        return self.search_codes(query_codes(queries, self._files.projection), k)

    def search_codes(self, codes: Float16, k: int) -> Neighbours:
        """``search`` for queries that are bank codes already, float16 (q, d_out)."""
        check_k(k)
        with nullcontext() if all(scan.shared for scan in self._scans) else self._lock:
            state = self._state
            if state.n == 0:
                hint = f"add references: rd bank add PATH --label {self.label}"
                raise EmptyBank(f"the {self.label} bank is empty", hint=hint)
            return self._search(state, codes.astype(np.float32), min(k, state.n))

    def _search(self, state: BankState, codes: Float32, k: int) -> Neighbours:
        found = Neighbours(np.empty((len(codes), k), np.int64), np.empty((len(codes), k), np.float32))
        pending, c = np.arange(len(codes)), k + k // 16 + _SPARE
        coarse = state.n >= _COARSE_ROWS
        while pending.size and c < state.n:
            scan = self._scan_for(len(pending), c, coarse=coarse)
            if scan is None:
                break
            step = max(1, _CANDIDATES_AT_ONCE // c)
            blocks = [pending[start : start + step] for start in range(0, len(pending), step)]
            try:
                stands = [state.attempt(scan, codes, block, c=c, found=found) for block in blocks]
            except SearchError as error:
                self._drop(scan, error)
            else:
                pending, c = pending[~np.concatenate(stands)], c if scan.coarse else 2 * c
                coarse = False
        for i in pending:
            state.compare_all(codes, int(i), found=found)
        return found

    def _scan_for(self, n_queries: int, c: int, *, coarse: bool) -> Scan | None:
        fit = (s for s in self._scans if c <= s.largest_c and n_queries >= s.fewest)
        return next((scan for scan in fit if coarse or not scan.coarse), None)


def _among(values: Int64, known: Int64) -> Bool:
    """Which of ``values`` occur in ``known``, int64 (m,), ascending."""
    if not known.size:
        return np.zeros(len(values), bool)
    member: Bool = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
    return member


def _without(part: Part, gone: Int64) -> Part:
    hits = gone[_among(gone, part.shard.row_ids)]
    if not hits.size:
        return part
    alive = part.alive.copy()
    alive[np.searchsorted(part.shard.row_ids, hits)] = False
    return Part.of(part.shard, part.start, alive)


# ---------------------------------------------------------------- one search

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
