"""A bank: all references of one label, searched exactly, whatever the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retrieval_detect.errors import EmptyBank, SearchError, VectorError
from retrieval_detect.search._faiss import gpu_ordinal
from retrieval_detect.search.blocks import block_scans
from retrieval_detect.search.derived import BankFiles
from retrieval_detect.search.exact import ShardVectors, check_k
from retrieval_detect.search.projection import query_codes
from retrieval_detect.search.scan import CpuScan, Part, Scan, gpu_scan
from retrieval_detect.search.state import BankState
from retrieval_detect.types import Neighbours

if TYPE_CHECKING:
    from retrieval_detect.types import Bool, Float16, Float32, Int64, Label

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
        with self._turn():
            state = self._state
            if state.n == 0:
                hint = f"add references: rd bank add PATH --label {self.label}"
                raise EmptyBank(f"the {self.label} bank is empty", hint=hint)
            return self._search(state, codes.astype(np.float32), min(k, state.n))

    def _turn(self) -> AbstractContextManager[Any]:
        return nullcontext() if all(scan.shared for scan in self._scans) else self._lock

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
