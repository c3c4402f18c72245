"""Approximate banks: candidates from an index that skips most rows, answers of exact similarities.

Some of the nearest may be missing, and not as many in one bank as in the other, which a vote feels. So
banks are exact unless somebody chose otherwise (``rd index tune``), and what is found of the nearest is
measured for each bank and said with each verdict.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import SearchError
from retrieval_detect.search import threads
from retrieval_detect.search._faiss import faiss, faiss_errors
from retrieval_detect.search.bank import Bank, BankFiles, BankState, nearest
from retrieval_detect.search.derived import forget_swept, mapped, vouched, write_index
from retrieval_detect.search.kinds import Kind, kind_of
from retrieval_detect.search.scan import Part
from retrieval_detect.types import Neighbours

if TYPE_CHECKING:
    from retrieval_detect.search.exact import ShardVectors
    from retrieval_detect.search.scan import Scan
    from retrieval_detect.store.manifest import Tuned
    from retrieval_detect.types import Float32, Float64, Int64, Label

_log = logging.getLogger(__name__)

_SPARE = 8
_CANDIDATES_AT_ONCE = 1 << 20
"""Over all queries of one step; bounds memory."""


@dataclass(frozen=True, slots=True, eq=False)
class _Halves:
    """A ``state`` of the bank in two.

    ``covered`` : the shards under the FAISS index, slots being its positions; ``tail`` : all others.
    ``selector`` tells FAISS which rows are alive; ``None`` where all are.
    """

    state: BankState
    covered: BankState
    tail: BankState
    selector: Any

    @classmethod
    def of(cls, state: BankState, shards: Sequence[str]) -> _Halves:
        by_id = {part.shard.shard_id: part for part in state.parts}
        covered = _in_a_row([by_id[shard] for shard in shards])
        tail = _in_a_row([part for part in state.parts if part.shard.shard_id not in set(shards)])
        selector = None
        if any(part.n_alive < len(part.alive) for part in covered.parts):
            alive = np.concatenate([part.alive for part in covered.parts])
            selector = faiss().IDSelectorBitmap(np.packbits(alive, bitorder="little"))
        return cls(state, covered, tail, selector)


class ApproximateBank(Bank):
    """A bank whose neighbours are the nearest of those that a FAISS index proposes.

    Similarities are exact, and the order by them; a row that was not proposed is missing. Rows that came
    after the index was built are all compared, and so is everything where too few are proposed: an
    answer is never shorter than that of an exact bank. It is searched on the CPU.
    """

    def __init__(self, label: Label, files: BankFiles, scans: Sequence[Scan]) -> None:
        super().__init__(label, files, scans)
        self._kind: Kind | None = None
        self._index: Any = None
        self._shards: tuple[str, ...] = ()
        self._effort = 0
        self._halves: _Halves | None = None

    def rely_on(self, kind: Kind, index: Any, shards: Sequence[str]) -> None:
        """Take candidates from a FAISS index over the rows of ``shards``, which the bank must hold."""
        rows = sum(len(part.alive) for part in self._state.parts if part.shard.shard_id in set(shards))
        if index.ntotal != rows:
            raise SearchError(f"a FAISS index of {index.ntotal:,} rows cannot stand for {rows:,}")
        self._kind, self._index, self._shards = kind, index, tuple(shards)
        self._halves = None

    def at(self, effort: int) -> ApproximateBank:
        """The same bank, searched as thoroughly as that; see ``Kind.efforts``."""
        other = copy(self)
        other._effort = effort
        return other

    def build(self, kind: Kind, shards: Sequence[str]) -> None:
        """Build the FAISS index of a kind over ``shards``, and rely on it."""
        by_id = {part.shard.shard_id: part.shard.codes for part in self._state.parts}
        self.rely_on(kind, kind.build([by_id[shard] for shard in shards]), shards)

    def save(self, path: Path) -> None:
        """Write the FAISS index."""
        write_index(path, self._index, self._identity())

    def load(self, path: Path, kind: Kind, shards: Sequence[str]) -> None:
        """Rely on the FAISS index of a file, which is built anew where it cannot be trusted."""
        self._kind, self._shards = kind, tuple(shards)
        try:
            vouched(path, self._identity(), self._files.sha256)
            self.rely_on(kind, mapped(path, kind.fourcc), shards)
            return
        except FileNotFoundError:
            _log.warning("%s is not there: building it", path.name)
        except (SearchError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be trusted (%s): rebuilding it", path.name, error)
        self.build(kind, shards)
        try:
            self.save(path)
        except (SearchError, OSError) as error:
            _log.warning("%s cannot be kept (%s): searching from memory", path.name, error)

    def _identity(self) -> dict[str, Any]:
        return {
            "format": "retrieval-detect/approximate-bank",
            "version": 1,
            "label": self.label,
            "kind": self._kind.name if self._kind else "",
            "shards": list(self._shards),
            "projection": self._files.projection.id,
        }

    # ------------------------------------------------------------ searching

    def _search(self, state: BankState, codes: Float32, k: int) -> Neighbours:
        halves = self._halved(state)
        if self._kind is None or 2 * k > halves.covered.n or not len(codes):
            return super()._search(state, codes, k)
        c = min(self._kind.refine * k + _SPARE, self._index.ntotal)
        step = max(1, _CANDIDATES_AT_ONCE // c)
        found = [
            self._ranked(halves, codes[start : start + step], k, c) for start in range(0, len(codes), step)
        ]
        covered = Neighbours(
            np.concatenate([block.row_ids for block in found]),
            np.concatenate([block.similarities for block in found]),
        )
        if halves.tail.n:
            rest = super()._search(halves.tail, codes, min(k, halves.tail.n))
            return nearest(
                np.concatenate([covered.row_ids, rest.row_ids], axis=1),
                np.concatenate([covered.similarities, rest.similarities], axis=1),
                k,
            )
        return covered

    def _ranked(self, halves: _Halves, codes: Float32, k: int, c: int) -> Neighbours:
        found = halves.covered.rank(codes, self._proposed(halves, codes, c), k)
        short = np.isneginf(found.similarities[:, -1])
        if short.any():
            rest = super()._search(halves.covered, codes[short], k)
            found.row_ids[short], found.similarities[short] = rest.row_ids, rest.similarities
        return found

    def _proposed(self, halves: _Halves, codes: Float32, c: int) -> Int64:
        """Slots of ``halves.covered``, int64 (q, c); -1 where fewer were found."""
        assert self._kind is not None  # noqa: S101 - for the type checker; ``_search`` has asked
        parameters = self._kind.parameters(self._effort, c, halves.selector)

        def propose(block: Float32) -> Int64:
            with faiss_errors("search for candidates"):
                slots: Int64 = self._index.search(block, c, params=parameters)[1]
            return slots

        blocks = np.array_split(codes, min(len(codes), threads.count()))
        return np.concatenate(threads.shared_out(propose, blocks))

    def _halved(self, state: BankState) -> _Halves:
        halves = self._halves
        if halves is None or halves.state is not state:
            self._halves = halves = _Halves.of(state, self._shards)
        return halves


def open_bank(
    shards: Sequence[ShardVectors],
    files: BankFiles,
    *,
    label: Label,
    dead: Int64,
    device: str,
    tuned: Tuned | None,
) -> Bank:
    """A bank, searched as ``tuned`` says; ``None`` is exactly. Everything else: see ``Bank.open``."""
    if tuned is None:
        return Bank.open(shards, label=label, files=files, dead=dead, device=device)
    kind, present = kind_of(tuned.kind), {shard.shard_id for shard in shards}
    bank = ApproximateBank.open(shards, label=label, files=files, dead=dead)
    if covered := tuned.shards(label, present):
        if files.folder is None:
            bank.build(kind, covered)
        else:
            path = index_path(files.folder, tuned, label, present)
            bank.load(path, kind, covered)
            forget_swept(path, shards)
    return bank.at(tuned.banks[label].effort)


def index_path(folder: Path, tuned: Tuned, label: Label, present: Collection[str]) -> Path:
    """Where a bank's FAISS index lies; ``present`` : the shards of the bank."""
    return folder / f"{tuned.stem(label, present)}.{tuned.projection}.faiss"


def recall(found: Neighbours, exact: Neighbours) -> Float64:
    """Of each query, the share of the ``exact`` neighbours that were found, float64 (q,)."""
    pairs = zip(found.row_ids, exact.row_ids, strict=True)
    return np.array([np.isin(right, some).mean() for some, right in pairs], np.float64)


def caveat(tuned: Tuned) -> str:
    """What approximate search means for an answer, in words."""
    k = max(map(int, tuned.banks["real"].recall))
    shares = {label: bank.recall[str(k)] for label, bank in tuned.banks.items()}
    return (
        f"approximate search ({tuned.kind}): of the {k:,} nearest references it finds "
        f"{shares['real']:.1%} in the real bank and {shares['fake']:.1%} in the fake bank"
    )


def _in_a_row(parts: Sequence[Part]) -> BankState:
    """Parts with their slots counted anew."""
    moved: list[Part] = []
    for part in parts:
        moved.append(replace(part, start=moved[-1].end if moved else 0))
    return BankState(tuple(moved))
