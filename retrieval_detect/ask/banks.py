"""Both banks of one generation: images' nearest references in each, without their own copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.fitted import PLAIN, read_projection
from retrieval_detect.ask.references import References
from retrieval_detect.files import DigestCache
from retrieval_detect.scoring.neighbours import NearestImages, same_image, seen_before
from retrieval_detect.search import threads
from retrieval_detect.search.approximate import ApproximateBank, open_bank
from retrieval_detect.search.bank import BankFiles, ShardVectors, nearest
from retrieval_detect.search.exact import SideBySide, search, similarity
from retrieval_detect.search.projection import query_codes
from retrieval_detect.store.layout import BANKS
from retrieval_detect.store.schema import content_words, grouping_layer
from retrieval_detect.store.shards import IDS
from retrieval_detect.types import LABELS, NEAR_HAMMING, Neighbours

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval_detect.search.bank import Bank
    from retrieval_detect.search.projection import Projection
    from retrieval_detect.store.manifest import Tuned
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Float16, Float32, Int64, Label, UInt64
    from retrieval_detect.vectors import Rows

SPARE = 16
"""Neighbours fetched beyond those wanted, so that dropping the query's own seldom means asking again."""
_VERIFIED_K = 10
_NEIGHBOURS_AT_ONCE = 1 << 19
"""Of one bank, over all queries; bounds memory."""
_LARGEST_GAP = 8
"""Row ids a reference up to which a table of all ids is worth its memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A block of q embedded images; one image is q = 1.

    ``content_ids`` : 32 bytes each. ``phash`` : uint64 (q,). ``vectors`` : layer → float32 (q, d), as the
    network gave them. ``own_groups`` : position → groups known to hold that image; their references do not
    vote. Most have none.
    """

    content_ids: Sequence[bytes]
    phash: UInt64
    vectors: Mapping[str, Float32]
    own_groups: Mapping[int, set[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Rows) -> Asked:
        """References, asked about as if they were images never seen: their own groups do not vote."""
        vectors = {layer: rows.as_encoded(layer) for layer in rows.vectors}
        groups = {i: {group} for i, group in enumerate(rows.groups.tolist())}
        return cls(rows.content_ids.tolist(), rows.phash, vectors, groups)

    def __len__(self) -> int:
        return len(self.phash)

    def followed_by(self, other: Asked) -> Asked:
        """These images, then others, which have the same layers."""
        vectors = {layer: np.concatenate([x, other.vectors[layer]]) for layer, x in self.vectors.items()}
        theirs = {len(self) + i: groups for i, groups in other.own_groups.items()}
        return Asked(
            [*self.content_ids, *other.content_ids],
            np.concatenate([self.phash, other.phash]),
            vectors,
            {**self.own_groups, **theirs},
        )

    def take(self, at: Int64) -> Asked:
        """The images at some positions, int64 (m,)."""
        return Asked(
            [self.content_ids[i] for i in at.tolist()],
            self.phash[at],
            {layer: x[at] for layer, x in self.vectors.items()},
            {new: self.own_groups[old] for new, old in enumerate(at.tolist()) if old in self.own_groups},
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Laid:
    """n photographs that lie in the real bank in memory; row ids ``first``, ``first`` + 1, …

    ``codes`` : float16 (n, d), as the bank holds its own; ``plain`` : as the layer that tells near-duplicates
    is stored.
    """

    first: int
    codes: Float16
    plain: Float16

    def among(self, codes: Float16, found: Neighbours, k: int) -> Neighbours:
        """The k nearest of the bank's ``found`` and of these, for queries ``codes``."""
        similarities = similarity(codes.astype(np.float32), self.codes)
        row_ids = np.broadcast_to(np.arange(self.first, self.first + len(self.codes)), similarities.shape)
        together = (
            np.concatenate([found.row_ids, row_ids], axis=1),
            np.concatenate([found.similarities, similarities], axis=1),
        )
        return nearest(*together, min(k, together[0].shape[1]))


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What both banks hold near q images.

    ``voters`` : the nearest images that vote. ``own`` : position → row id → similarity of the image's own
    rows, its near-duplicates and the groups of either, as far as they were met: they are shown and do not
    vote. ``groups`` : position → those groups. Most images have neither.
    """

    voters: Mapping[Label, NearestImages]
    own: dict[int, dict[int, float]]
    groups: dict[int, set[int]]


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """Neighbours of q queries in one bank, best first; all arrays (q, m).

    ``positions`` point into the bank's ``References``. ``own`` : see ``Found``.
    """

    row_ids: Int64
    similarities: Float32
    positions: Int64
    own: Bool


class Banks:
    """The real and the fake bank of a generation through one projection, opened when first needed.

    ``projection`` : its name in the index, ``None`` is the index's default; or one that is in no index,
    whose codes stay in memory. ``device`` : see ``Bank.open``. ``view_kind`` : only the views of this kind
    are references. ``exact`` : whatever the index was tuned to; banks that hold less than all references
    always are. Missing or damaged derived files are rebuilt.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        projection: str | Projection | None = None,
        device: str = "auto",
        view_kind: str | None = None,
        exact: bool = False,
    ) -> None:
        if projection is None or isinstance(projection, str):
            self.projection = read_projection(snapshot, projection)
            self._folder: Path | None = snapshot.folder / BANKS
        else:
            self.projection, self._folder = projection, None
        self._snapshot = snapshot
        self._device = device
        self._view_kind = view_kind
        self._partial = view_kind is not None
        self._exact = exact
        self._laid: _Laid | None = None
        self._banks: dict[Label, Bank] = {}
        self._references: dict[Label, References] = {}
        self._sides: dict[Label, _Side] = {}

    def bank(self, label: Label) -> Bank:
        """The bank of one label."""
        if label not in self._banks:
            digests = DigestCache.for_user()
            self._banks[label] = open_bank(
                self._shards(label),
                self._files(digests),
                label=label,
                dead=self._left_out(label),
                device=self._device,
                tuned=self.tuned,
            )
            digests.save()
        return self._banks[label]

    def untuned(self, label: Label) -> ApproximateBank:
        """A bank to build approximate indexes over; it answers exactly until it relies on one."""
        dead = self._left_out(label)
        files = self._files(DigestCache.for_user())
        return ApproximateBank.open(self._shards(label), label=label, files=files, dead=dead)

    @property
    def tuned(self) -> Tuned | None:
        """How these banks are searched approximately; ``None`` where every answer is exact."""
        tuned = self._snapshot.manifest.tuned
        applies = tuned is not None and tuned.projection == self.projection.id
        return tuned if applies and not (self._exact or self._partial) else None

    @property
    def id(self) -> str:
        """Short digest of all that decides which neighbours are found."""
        return f"{self.projection.id}-{self.tuned.digest}" if self.tuned else self.projection.id

    def references(self, label: Label) -> References:
        """What is known about the rows of one bank."""
        if label not in self._references:
            self._references[label] = References.load(self._snapshot, label, view_kind=self._view_kind)
        return self._references[label]

    def without(self, label: Label, gone: Bool) -> Banks:
        """The same banks as if some references were removed. ``gone`` : bool, of ``references(label)``."""
        reduced = copy(self)
        (other,) = (each for each in LABELS if each != label)
        reduced._banks = {other: self.bank(other)}
        reduced._references = {
            other: self.references(other),
            label: self.references(label).without(gone),
        }
        reduced._partial, reduced._sides = True, {}
        return reduced

    def with_photographs(self, asked: Asked, scenes: Int64) -> Banks:
        """The same banks as if photographs had been added, as one source of their own; nothing is written.

        ``asked`` : them, with the projection's layers and the one that tells near-duplicates. ``scenes`` :
        int64 (n,), 0…m - 1. A scene counts as one image, of which the nearest picture votes: so the weight of
        the source goes by scenes, however many pictures there are of each. The projection stays as it is.
        Of banks that were given some already, the new take their place.
        """
        larger, first = copy(self), self._snapshot.manifest.next_row_id
        layer = grouping_layer(self._snapshot.manifest.layers)
        larger._laid = _Laid(
            first, self._codes(asked), query_codes(np.asarray(asked.vectors[layer]), self.plain)
        )
        stored = self.references("real").up_to(first)
        _, of_scene = np.unique(scenes, return_index=True)
        references = stored.followed_by(
            row_ids=np.arange(first, first + len(asked)),
            content=content_words(asked.content_ids)[of_scene, 0][scenes],
            group=first + scenes,
            phash=asked.phash,
        )
        larger._banks = {label: self.bank(label) for label in LABELS}
        larger._references = {"fake": self.references("fake"), "real": references}
        larger._sides = {}
        return larger

    def nearest(self, asked: Asked, *, wanted: int, labels: Sequence[Label] = LABELS) -> Found:
        """The ``wanted`` nearest images that may vote from each bank of ``labels``, or all of the bank.

        ``asked`` : with the projection's layers and the one that tells near-duplicates. Banks are searched
        for all images at once; those whose neighbours are too few to vote without their own are asked about
        again, together. Row i of the outcome is what it would be alone. Raises ``VectorError`` for an image
        that is nothing once projected.
        """
        codes, words = self._codes(asked), content_words(asked.content_ids)[:, 0]
        voters = {label: _nobody(len(asked), self._side(label), wanted) for label in labels}
        found = Found(voters, {}, {})
        pending, fetch = np.arange(len(asked)), wanted + SPARE
        while pending.size:
            step, left = max(1, _NEIGHBOURS_AT_ONCE // fetch), []
            for rows in (pending[start : start + step] for start in range(0, len(pending), step)):
                both = self.search_codes(codes[rows], fetch, labels)
                near = {label: self._near(label, asked, rows, words[rows], both[label]) for label in labels}
                self._leave_out_groups(near, rows, asked, found)
                left.append(rows[~self._settle(voters, rows, near, wanted)])
            pending, fetch = np.concatenate(left), 4 * fetch
        return found

    def search_codes(
        self, codes: Float16, k: int, labels: Sequence[Label] = LABELS
    ) -> dict[Label, Neighbours]:
        """Each bank's ``Bank.search_codes``, side by side: no thread idles between the two."""
        searches = [partial(self.bank(label).search_codes, codes, k) for label in labels]
        found = dict(zip(labels, threads.together(searches), strict=True))
        if self._laid and "real" in found:
            found["real"] = self._laid.among(codes, found["real"], k)
        return found

    def disagreements(self, label: Label, n_queries: int) -> Iterator[str]:
        """Where a bank's answers differ from comparing with every stored row; for ``rd index verify``."""
        shards = self._shards(label)
        rows = [shard.vectors[:: max(1, len(shard.row_ids) * len(shards) // n_queries)] for shard in shards]
        queries = np.concatenate(rows)[:n_queries].astype(np.float32)
        dead = self._snapshot.dead
        exact = search(queries, shards, k=_VERIFIED_K, projection=self.projection, dead=dead)
        found = self.bank(label).search(queries, _VERIFIED_K)
        wrong = (found.row_ids != exact.row_ids) | (found.similarities != exact.similarities)
        if wrong.any():
            n_wrong = int(wrong.any(axis=1).sum())
            yield f"the {label} bank answers {n_wrong} of {len(queries)} test queries wrongly"

    # ------------------------------------------------------------ parts

    def _codes(self, asked: Asked) -> Float16:
        joined = np.concatenate([asked.vectors[layer] for layer in self.projection.layers], axis=1)
        return query_codes(joined, self.projection)

    def _n(self, label: Label) -> int:
        """Rows of a bank, those laid in among them."""
        laid = len(self._laid.codes) if self._laid and label == "real" else 0
        return self.bank(label).n + laid

    def _files(self, digests: DigestCache) -> BankFiles:
        return BankFiles(self._folder, self.projection, digests=digests)

    def _shards(self, label: Label) -> list[ShardVectors]:
        return [
            ShardVectors(
                s.record.id,
                s.row_ids,
                _joined([s.vectors(layer) for layer in self.projection.layers]),
                s.path(IDS),
            )
            for s in self._snapshot.shards(label, "bank")
        ]

    def _left_out(self, label: Label) -> Int64:
        """Stored rows that are no references: the removed, and views of another kind."""
        if not self._partial:
            return self._snapshot.dead
        stored = [shard.row_ids for shard in self._snapshot.shards(label, "bank")]
        return np.setdiff1d(np.concatenate(stored), self.references(label).row_ids)

    def _side(self, label: Label) -> _Side:
        if label not in self._sides:
            self._sides[label] = _Side(self.references(label), self._n(label))
        return self._sides[label]

    def _near(self, label: Label, asked: Asked, rows: Int64, words: UInt64, neighbours: Neighbours) -> _Near:
        side = self._side(label)
        row_ids, cosines = neighbours.row_ids, neighbours.similarities
        positions = side.positions(row_ids)
        hamming = np.bitwise_count(side.references.phash[positions] ^ asked.phash[rows, None])
        close = hamming <= NEAR_HAMMING
        if self.projection.id != self.plain.id and close.any():
            cosines = cosines.copy()
            for i in np.flatnonzero(close.any(axis=1)).tolist():
                cosines[i, close[i]] = self._cosines(asked, rows[i], row_ids[i, close[i]])
        same = side.references.content[positions] == words[:, None]
        own = same_image(cosines, hamming, same_content=same)
        return _Near(row_ids, neighbours.similarities, positions, own)

    def _cosines(self, asked: Asked, query: int, row_ids: Int64) -> Float32:
        """Cosines of one image with rows of a bank, (m,), whatever the projection does to them."""
        layer = grouping_layer(self._snapshot.manifest.layers)
        code = query_codes(asked.vectors[layer][query][None, :], self.plain)[0].astype(np.float32)
        first = self._laid.first if self._laid else self._snapshot.manifest.next_row_id
        laid = row_ids >= first
        codes = np.empty((len(row_ids), len(code)), np.float16)
        codes[~laid] = self._snapshot.gather(row_ids[~laid].tolist(), layer)
        if self._laid:
            codes[laid] = self._laid.plain[row_ids[laid] - first]
        return similarity(code / np.linalg.norm(code), codes)

    def _leave_out_groups(self, near: Mapping[Label, _Near], rows: Int64, asked: Asked, found: Found) -> None:
        """Of each image that has copies: mark the groups of those, in both banks."""
        copied = np.array([row in asked.own_groups for row in rows.tolist()], bool)
        for bank in near.values():
            copied |= bank.own.any(axis=1)
        for i in np.flatnonzero(copied).tolist():
            row = int(rows[i])
            group_of = {
                label: self.references(label).group[bank.positions[i]] for label, bank in near.items()
            }
            groups = set(asked.own_groups.get(row, ()))
            groups.update(*(group_of[label][bank.own[i]].tolist() for label, bank in near.items()))
            own: dict[int, float] = {}
            for label, bank in near.items():
                bank.own[i] |= np.isin(group_of[label], list(groups))
                met = bank.row_ids[i, bank.own[i]], bank.similarities[i, bank.own[i]]
                own |= dict(zip(*(column.tolist() for column in met), strict=True))
            found.own[row], found.groups[row] = own, groups

    def _settle(
        self, voters: Mapping[Label, NearestImages], rows: Int64, near: Mapping[Label, _Near], wanted: int
    ) -> Bool:
        """Fill in those of ``rows`` that have enough to vote, and say which they are, bool (len(rows),)."""
        voting = {label: self._side(label).voting(bank) for label, bank in near.items()}
        enough = np.ones(len(rows), bool)
        for label, bank in near.items():
            if bank.row_ids.shape[1] < self._n(label):
                enough &= np.count_nonzero(voting[label], axis=1) >= wanted
        for label, bank in near.items():
            self._side(label).put(voters[label], rows, bank, voting[label], enough)
        return enough

    @property
    def plain(self) -> Projection:
        """The stored vectors that tell near-duplicates, as they are."""
        return read_projection(self._snapshot, PLAIN)


class _Side:
    """The references of one bank, by row id."""

    def __init__(self, references: References, n: int) -> None:
        self.references, self.n = references, n
        # Only views of one image can be the same image twice.
        images = np.unique(references.content, return_inverse=True)[1]
        self._image = images if references.n_images < len(references) else None
        ids = references.row_ids
        self._first, last = (int(ids[0]), int(ids[-1])) if len(ids) else (0, 0)
        span = last - self._first + 1
        self._table: Int64 | None = None
        if span <= _LARGEST_GAP * len(references):
            self._table = np.zeros(span, np.int64)
            self._table[references.row_ids - self._first] = np.arange(len(references))

    def positions(self, row_ids: Int64) -> Int64:
        """See ``References.positions``; by a table where that is small."""
        return (
            self.references.positions(row_ids) if self._table is None else self._table[row_ids - self._first]
        )

    def voting(self, near: _Near) -> Bool:
        """Which neighbours vote, (q, m): those of other images, each by its nearest view."""
        if self._image is None:
            return ~near.own
        # What does not vote is told apart by its column.
        image = np.where(near.own, -1 - np.arange(near.own.shape[1]), self._image[near.positions])
        voting: Bool = ~(near.own | seen_before(image))
        return voting

    def put(self, voters: NearestImages, rows: Int64, near: _Near, voting: Bool, chosen: Bool) -> None:
        """Write the nearest that vote, of the ``chosen`` queries, into their ``rows``."""
        width = voters.similarities.shape[1]
        at, votes = np.flatnonzero(chosen), voting[chosen, :width]
        n, similarities = np.count_nonzero(voting[chosen], axis=1), near.similarities[at, :width]
        row_ids, positions = near.row_ids[at, :width], near.positions[at, :width]
        mixed = np.flatnonzero(~votes.all(axis=1))
        if mixed.size:
            columns = np.argsort(~voting[at[mixed]], axis=1, kind="stable")[:, :width]
            from_ = at[mixed, None], columns
            votes[mixed], similarities[mixed] = voting[from_], near.similarities[from_]
            row_ids[mixed], positions[mixed] = near.row_ids[from_], near.positions[from_]
        rows = rows[at]
        voters.similarities[rows] = np.where(votes, similarities, -np.inf)
        voters.log_weights[rows] = self.references.log_weight[positions]
        voters.names[rows] = self.references.name[positions]
        voters.row_ids[rows], voters.n[rows] = row_ids, np.minimum(n, width)


def _nobody(q: int, side: _Side, k: int) -> NearestImages:
    """Room for k images of each of q queries, or all of the bank."""
    k = min(k, side.n)
    return NearestImages(
        np.full((q, k), -np.inf),
        np.zeros((q, k)),
        np.zeros((q, k), np.int64),
        np.zeros((q, k), np.int64),
        np.zeros(q, np.int64),
        side.references.n_images,
    )


def _joined(layers: list[Float16]) -> Float16 | SideBySide:
    return layers[0] if len(layers) == 1 else SideBySide(layers)
