"""Both banks of one generation: an image's nearest references in each, without its own copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.files import DigestCache
from retrieval_detect.scoring.near import same_image
from retrieval_detect.scoring.neighbours import BankNeighbours
from retrieval_detect.search.bank import Bank, BankFiles, ShardVectors
from retrieval_detect.search.exact import search
from retrieval_detect.search.projection import Identity
from retrieval_detect.search.references import References
from retrieval_detect.store.layout import BANKS
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Embedded, Float32, Int64, Label, Probe

_SPARE = 16
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
    """The real and the fake bank of a generation, opened when first needed.

    ``layer`` : the stored layer that is searched. ``device`` : see ``Bank.open``. Missing or damaged
    derived files are rebuilt.
    """

    def __init__(self, snapshot: Snapshot, *, layer: str, device: str = "auto") -> None:
        self._snapshot = snapshot
        self._layer = layer
        self._device = device
        self._banks: dict[Label, Bank] = {}
        self._references: dict[Label, References] = {}

    def bank(self, label: Label) -> Bank:
        """The bank of one label."""
        if label not in self._banks:
            digests = DigestCache.for_user()
            files = BankFiles(self._snapshot.folder / BANKS, self._projection, digests=digests)
            self._banks[label] = Bank.open(
                self._shards(label), label=label, files=files, dead=self._snapshot.dead, device=self._device
            )
            digests.save()
        return self._banks[label]

    def references(self, label: Label) -> References:
        """What is known about the rows of one bank."""
        if label not in self._references:
            self._references[label] = References.load(self._snapshot, label)
        return self._references[label]

    def nearest(
        self, image: Embedded | Probe, vector: Float32, *, wanted: int, own_groups: set[int]
    ) -> dict[Label, Near]:
        """At least ``wanted`` different images that may vote from each bank, or the whole bank.

        ``vector`` : float32 (1, d), any norm. ``own_groups`` : groups known to hold the query's image.
        """
        fetch = wanted + _SPARE
        while True:
            found = {label: self._fetch(label, image, vector, fetch) for label in LABELS}
            groups = own_groups | {group for label in LABELS for group in self._groups(label, found[label])}
            near = {label: self._without(label, found[label], groups) for label in LABELS}
            if all(self._enough(label, near[label], wanted) for label in LABELS):
                return near
            fetch *= 4

    def voters(self, near: Mapping[Label, Near]) -> dict[Label, BankNeighbours]:
        """The neighbours that vote, with their weights."""
        return {label: self._voters(label, near[label]) for label in LABELS}

    def disagreements(self, label: Label, n_queries: int) -> Iterator[str]:
        """Where a bank's answers differ from comparing with every stored row; for ``rd index verify``."""
        shards = self._shards(label)
        rows = [shard.vectors[:: max(1, len(shard.row_ids) * len(shards) // n_queries)] for shard in shards]
        queries = np.concatenate(rows)[:n_queries].astype(np.float32)
        dead = self._snapshot.dead
        exact = search(queries, shards, k=_VERIFIED_K, projection=self._projection, dead=dead)
        found = self.bank(label).search(queries, _VERIFIED_K)
        wrong = (found.row_ids != exact.row_ids) | (found.similarities != exact.similarities)
        if wrong.any():
            n_wrong = int(wrong.any(axis=1).sum())
            yield f"the {label} bank answers {n_wrong} of {len(queries)} test queries wrongly"

    # ------------------------------------------------------------ parts

    @property
    def _projection(self) -> Identity:
        return Identity(self._layer, self._snapshot.manifest.encoder.layers[self._layer])

    def _shards(self, label: Label) -> list[ShardVectors]:
        shards = self._snapshot.shards(label, "bank")
        return [ShardVectors(s.record.id, s.row_ids, s.vectors(self._layer)) for s in shards]

    def _fetch(self, label: Label, image: Embedded | Probe, vector: Float32, fetch: int) -> Near:
        references = self.references(label)
        neighbours = self.bank(label).search(vector, fetch)
        row_ids, similarities = neighbours.row_ids[0], neighbours.similarities[0]
        positions = references.positions(row_ids)
        own = same_image(
            similarities,
            np.bitwise_count(references.phash[positions] ^ np.uint64(image.phash)),
            same_content=references.content[positions] == _leading_word(image.content_id),
        )
        return Near(row_ids, similarities, positions, own)

    def _groups(self, label: Label, near: Near) -> list[int]:
        groups: list[int] = self.references(label).group[near.positions[near.own]].tolist()
        return groups

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


def _leading_word(identity: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(identity[:8], "big"))
