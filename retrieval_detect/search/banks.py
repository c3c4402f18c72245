"""Both banks of one generation: an image's nearest references in each, without its own copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.files import DigestCache
from retrieval_detect.scoring.near import same_image
from retrieval_detect.scoring.neighbours import BankNeighbours
from retrieval_detect.search import threads
from retrieval_detect.search.approximate import ApproximateBank, open_bank
from retrieval_detect.search.bank import BankFiles, ShardVectors
from retrieval_detect.search.exact import SideBySide, search, similarity
from retrieval_detect.search.fitted import PLAIN, read_projection
from retrieval_detect.search.projection import query_codes
from retrieval_detect.search.references import References
from retrieval_detect.store.append import grouping_layer
from retrieval_detect.store.layout import BANKS
from retrieval_detect.store.shards import IDS
from retrieval_detect.types import LABELS, NEAR_HAMMING, Neighbours

if TYPE_CHECKING:
    from retrieval_detect.search.bank import Bank
    from retrieval_detect.search.projection import Projection
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.tuned import Tuned
    from retrieval_detect.types import Bool, Embedded, Float16, Float32, Int64, Label, Probe

    Sought = tuple[Embedded | Probe, Mapping[str, Float32], set[int]]
    """An image, its vectors and the groups known to hold it; see ``Banks.nearest``."""

SPARE = 16
"""Neighbours fetched beyond those wanted, so that dropping the query's own seldom means asking again."""
_VERIFIED_K = 10


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """A query's neighbours in one bank, best first; all arrays have shape (m,).

    ``positions`` point into the bank's ``References``. ``own`` marks the query's own image, its
    near-duplicates and the groups of either: they are shown and do not vote.
    """

    row_ids: Int64
    similarities: Float32
    positions: Int64
    own: Bool


class Banks:
    """The real and the fake bank of a generation through one projection, opened when first needed.

    ``projection`` : its name in the index; ``None`` is the index's default. ``device`` : see
    ``Bank.open``. ``view_kind`` : only the views of this kind are references. ``exact`` : whatever the index
    was tuned to; banks that hold less than all references always are. Missing or damaged derived files are
    rebuilt.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        projection: str | None = None,
        device: str = "auto",
        view_kind: str | None = None,
        exact: bool = False,
    ) -> None:
        self.projection = read_projection(snapshot, projection)
        self._snapshot = snapshot
        self._device = device
        self._view_kind = view_kind
        self._partial = view_kind is not None
        self._exact = exact
        self._banks: dict[Label, Bank] = {}
        self._references: dict[Label, References] = {}

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
        reduced._partial = True
        return reduced

    def nearest(
        self, image: Embedded | Probe, vectors: Mapping[str, Float32], *, wanted: int, own_groups: set[int]
    ) -> dict[Label, Near]:
        """At least ``wanted`` different images that may vote from each bank, or the whole bank.

        ``vectors`` : layer → float32 (d,), any norm; the projection's layers and the one that tells
        near-duplicates. ``own_groups`` : groups known to hold the query's image.
        """
        return self.nearest_of_each([(image, vectors, own_groups)], wanted=wanted)[0]

    def nearest_of_each(self, asked: Sequence[Sought], *, wanted: int) -> list[dict[Label, Near]]:
        """``nearest`` for each of some images, from one search of each bank."""
        layers = self.projection.layers
        queries = np.stack([np.concatenate([vectors[layer] for layer in layers]) for _, vectors, _ in asked])
        codes, fetch = query_codes(queries, self.projection), wanted + SPARE
        near: dict[int, dict[Label, Near]] = {}
        pending = list(range(len(asked)))
        while pending:
            both = self.search_codes(codes[pending], fetch)
            near |= {i: self._near(asked[i], both, row) for row, i in enumerate(pending)}
            pending = [i for i in pending if not self._suffice(near[i], wanted)]
            fetch *= 4
        return [near[i] for i in range(len(asked))]

    def search_codes(self, codes: Float16, k: int) -> dict[Label, Neighbours]:
        """Each bank's ``Bank.search_codes``, side by side: no thread idles between the two."""
        searches = [partial(self.bank(label).search_codes, codes, k) for label in LABELS]
        return dict(zip(LABELS, threads.together(searches), strict=True))

    def own_groups(self, near: Mapping[Label, Near]) -> set[int]:
        """The groups of the query's own image and of its near-duplicates, as far as they were found."""
        return {
            group
            for label in LABELS
            for group in self.references(label).group[near[label].positions[near[label].own]].tolist()
        }

    def voters(self, near: Mapping[Label, Near]) -> dict[Label, BankNeighbours]:
        """The neighbours that vote, with their weights."""
        return {label: self._voters(label, near[label]) for label in LABELS}

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

    def _files(self, digests: DigestCache) -> BankFiles:
        return BankFiles(self._snapshot.folder / BANKS, self.projection, digests=digests)

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

    def _near(self, sought: Sought, both: Mapping[Label, Neighbours], row: int) -> dict[Label, Near]:
        image, vectors, own_groups = sought
        found = {label: self._seen(label, image, vectors, _row(both[label], row)) for label in LABELS}
        groups = own_groups | self.own_groups(found)
        return {label: self._without(label, found[label], groups) for label in LABELS}

    def _suffice(self, near: Mapping[Label, Near], wanted: int) -> bool:
        return all(self._enough(label, near[label], wanted) for label in LABELS)

    def _seen(
        self, label: Label, image: Embedded | Probe, vectors: Mapping[str, Float32], neighbours: Neighbours
    ) -> Near:
        references = self.references(label)
        row_ids, similarities = neighbours.row_ids[0], neighbours.similarities[0]
        positions = references.positions(row_ids)
        hamming = np.bitwise_count(references.phash[positions] ^ np.uint64(image.phash))
        own = same_image(
            self.cosines(row_ids, similarities, vectors, hamming <= NEAR_HAMMING),
            hamming,
            same_content=references.content[positions] == _leading_word(image.content_id),
        )
        return Near(row_ids, similarities, positions, own)

    def cosines(
        self, row_ids: Int64, similarities: Float32, vectors: Mapping[str, Float32], asked: Bool
    ) -> Float32:
        """Cosines of one query with stored vectors where ``asked``, whatever the projection does to them.

        ``row_ids``, ``similarities``, ``asked`` : (m,), of the neighbours found.
        """
        layer = grouping_layer(self._snapshot.manifest.layers)
        if self.projection.id == self.plain.id or not asked.any():
            return similarities
        cosines = similarities.copy()
        query = query_codes(vectors[layer][None, :], self.plain)[0].astype(np.float32)
        stored = self._snapshot.gather(row_ids[asked].tolist(), layer)
        cosines[asked] = similarity(query / np.linalg.norm(query), stored.astype(np.float16))
        return cosines

    @property
    def plain(self) -> Projection:
        """The stored vectors that tell near-duplicates, as they are."""
        return read_projection(self._snapshot, PLAIN)

    def _without(self, label: Label, near: Near, groups: set[int]) -> Near:
        grouped = np.isin(self.references(label).group[near.positions], list(groups))
        return replace(near, own=near.own | grouped)

    def _enough(self, label: Label, near: Near, wanted: int) -> bool:
        images = np.unique(self.references(label).content[near.positions[~near.own]])
        return len(images) >= wanted or len(near.row_ids) >= self.bank(label).n

    def _voters(self, label: Label, near: Near) -> BankNeighbours:
        references, keep = self.references(label), ~near.own
        at = near.positions[keep]
        return BankNeighbours(
            similarities=near.similarities[keep],
            content=references.content[at],
            log_weights=references.log_weight[at],
            names=references.name[at],
            row_ids=near.row_ids[keep],
            n_bank=references.n_images,
        )


def _joined(layers: list[Float16]) -> Float16 | SideBySide:
    return layers[0] if len(layers) == 1 else SideBySide(layers)


def _row(neighbours: Neighbours, row: int) -> Neighbours:
    return Neighbours(neighbours.row_ids[row : row + 1], neighbours.similarities[row : row + 1])


def _leading_word(identity: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(identity[:8], "big"))
