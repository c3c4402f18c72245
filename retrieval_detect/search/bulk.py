"""Both banks asked about many images at once: what ``Banks.nearest`` leaves to vote, a block at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.scoring.near import same_image
from retrieval_detect.scoring.neighbours import NearestImages, seen_before
from retrieval_detect.search.banks import SPARE
from retrieval_detect.search.projection import query_codes
from retrieval_detect.store.schema import content_words
from retrieval_detect.types import LABELS, NEAR_HAMMING

if TYPE_CHECKING:
    from retrieval_detect.search.banks import Banks
    from retrieval_detect.search.references import References
    from retrieval_detect.types import Bool, Float32, Int64, Label, Neighbours, UInt64

_NEIGHBOURS_AT_ONCE = 1 << 19
"""Of one bank, over all queries; bounds memory."""
_LARGEST_GAP = 8
"""Row ids a reference up to which a table of all ids is worth its memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Embedded images, q of them.

    ``content_ids`` : 32 bytes each. ``phash`` : uint64 (q,). ``vectors`` : layer → float32 (q, d), as the
    network gave them.
    """

    content_ids: Sequence[bytes]
    phash: UInt64
    vectors: Mapping[str, Float32]

    def __len__(self) -> int:
        return len(self.phash)

    def one(self, i: int) -> Asked:
        """Only image ``i``."""
        vectors = {layer: x[i : i + 1] for layer, x in self.vectors.items()}
        return Asked(self.content_ids[i : i + 1], self.phash[i : i + 1], vectors)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Neighbours of q queries in one bank, as ``banks.Near`` has those of one; arrays are (q, m)."""

    row_ids: Int64
    similarities: Float32
    positions: Int64
    own: Bool


class BulkBanks:
    """Gives for a block of images what ``Banks.nearest`` gives for each, and faster.

    Banks are searched for all of them at once. What is done for one image alone is what few images need:
    comparing with references of the same perceptual hash, and leaving out groups. Those whose neighbours
    are too few to vote without them are asked about again, together.
    """

    def __init__(self, banks: Banks) -> None:
        self._banks = banks
        self._sides = {label: _Side(banks.references(label)) for label in LABELS}

    def nearest(
        self, asked: Asked, *, wanted: int, own_groups: Mapping[int, set[int]]
    ) -> dict[Label, NearestImages]:
        """The ``wanted`` nearest images that may vote from each bank, or all of the bank.

        ``own_groups`` : position in ``asked`` → groups known to hold that image; most have none.
        """
        projection = self._banks.projection
        joined = np.concatenate([asked.vectors[layer] for layer in projection.layers], axis=1)
        codes, words = query_codes(joined, projection), content_words(asked.content_ids)[:, 0]
        near = {label: _nobody(len(asked), min(wanted, self._banks.bank(label).n)) for label in LABELS}
        pending, fetch = np.arange(len(asked)), wanted + SPARE
        while pending.size:
            step, left = max(1, _NEIGHBOURS_AT_ONCE // fetch), []
            for rows in (pending[start : start + step] for start in range(0, len(pending), step)):
                both = self._banks.search_codes(codes[rows], fetch)
                found = {label: self._found(label, asked, rows, words[rows], both[label]) for label in LABELS}
                self._leave_out_groups(found, [own_groups.get(i, set()) for i in rows.tolist()])
                left.append(rows[~self._settle(near, rows, found, wanted)])
            pending, fetch = np.concatenate(left), 4 * fetch
        return near

    def _found(
        self, label: Label, asked: Asked, rows: Int64, words: UInt64, neighbours: Neighbours
    ) -> _Found:
        side = self._sides[label]
        row_ids, cosines = neighbours.row_ids, neighbours.similarities
        positions = side.positions(row_ids)
        hamming = np.bitwise_count(side.references.phash[positions] ^ asked.phash[rows, None])
        close = hamming <= NEAR_HAMMING
        if self._banks.projection.id != self._banks.plain.id:
            cosines = cosines.copy()
            for i in np.flatnonzero(close.any(axis=1)).tolist():
                vectors = {layer: x[rows[i]] for layer, x in asked.vectors.items()}
                cosines[i] = self._banks.cosines(row_ids[i], cosines[i], vectors, close[i])
        same = side.references.content[positions] == words[:, None]
        return _Found(
            row_ids, neighbours.similarities, positions, same_image(cosines, hamming, same_content=same)
        )

    def _leave_out_groups(self, found: Mapping[Label, _Found], known: Sequence[set[int]]) -> None:
        """Of each image that has copies: mark the groups of those, in both banks."""
        copied = np.array([bool(groups) for groups in known])
        for bank in found.values():
            copied |= bank.own.any(axis=1)
        for i in np.flatnonzero(copied).tolist():
            group_of = {
                label: self._sides[label].references.group[bank.positions[i]] for label, bank in found.items()
            }
            own = [group_of[label][bank.own[i]] for label, bank in found.items()]
            groups = np.concatenate([np.fromiter(known[i], np.int64), *own])
            for label, bank in found.items():
                bank.own[i] |= np.isin(group_of[label], groups)

    def _settle(
        self, near: Mapping[Label, NearestImages], rows: Int64, found: Mapping[Label, _Found], wanted: int
    ) -> Bool:
        """Fill in those of ``rows`` that have enough to vote, and say which they are, bool (len(rows),)."""
        voting = {label: self._sides[label].voting(bank) for label, bank in found.items()}
        enough = np.ones(len(rows), bool)
        for label, bank in found.items():
            if bank.row_ids.shape[1] < self._banks.bank(label).n:
                enough &= np.count_nonzero(voting[label], axis=1) >= wanted
        for label, bank in found.items():
            self._sides[label].put(near[label], rows, bank, voting[label], enough)
        return enough


class _Side:
    """The references of one bank, by row id."""

    def __init__(self, references: References) -> None:
        self.references = references
        # Only views of one image can be the same image twice.
        images = np.unique(references.content, return_inverse=True)[1]
        self._image = images if references.n_images < len(references) else None
        self._first = int(references.row_ids[0])
        span = int(references.row_ids[-1]) - self._first + 1
        self._table: Int64 | None = None
        if span <= _LARGEST_GAP * len(references):
            self._table = np.zeros(span, np.int64)
            self._table[references.row_ids - self._first] = np.arange(len(references))

    def positions(self, row_ids: Int64) -> Int64:
        """See ``References.positions``; by a table where that is small."""
        return (
            self.references.positions(row_ids) if self._table is None else self._table[row_ids - self._first]
        )

    def voting(self, found: _Found) -> Bool:
        """Which neighbours vote, (q, m): those of other images, each by its nearest view."""
        if self._image is None:
            return ~found.own
        # What does not vote is told apart by its column.
        image = np.where(found.own, -1 - np.arange(found.own.shape[1]), self._image[found.positions])
        voting: Bool = ~(found.own | seen_before(image))
        return voting

    def put(self, near: NearestImages, rows: Int64, found: _Found, voting: Bool, chosen: Bool) -> None:
        """Write the nearest that vote, of the ``chosen`` queries, into their ``rows``."""
        width = near.similarities.shape[1]
        at, votes = np.flatnonzero(chosen), voting[chosen, :width]
        n, similarities = np.count_nonzero(voting[chosen], axis=1), found.similarities[at, :width]
        row_ids, positions = found.row_ids[at, :width], found.positions[at, :width]
        mixed = np.flatnonzero(~votes.all(axis=1))
        if mixed.size:
            columns = np.argsort(~voting[at[mixed]], axis=1, kind="stable")[:, :width]
            from_ = at[mixed, None], columns
            votes[mixed], similarities[mixed] = voting[from_], found.similarities[from_]
            row_ids[mixed], positions[mixed] = found.row_ids[from_], found.positions[from_]
        rows = rows[at]
        near.similarities[rows] = np.where(votes, similarities, -np.inf)
        near.log_weights[rows] = self.references.log_weight[positions]
        near.names[rows] = self.references.name[positions]
        near.row_ids[rows], near.n[rows] = row_ids, np.minimum(n, width)


def _nobody(q: int, k: int) -> NearestImages:
    """Room for k images of each of q queries."""
    return NearestImages(
        np.full((q, k), -np.inf),
        np.zeros((q, k)),
        np.zeros((q, k), np.int64),
        np.zeros((q, k), np.int64),
        np.zeros(q, np.int64),
    )
