"""Approximate search as a generation records it: of what kind, how thorough, and how much it finds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.types import Label

_ID = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class TunedBank:
    """How one bank is searched.

    ``shards`` : ids of those that its FAISS index was built over; all others are compared row by row.
    ``rows`` : how many these had. ``effort`` : lists probed, or length of the candidate list of a graph.
    ``recall`` : k → mean share of the k nearest that were found, 0…1, by ``n_queries`` references of the
    split ``split``.
    """

    shards: tuple[str, ...]
    rows: int
    effort: int
    recall: Mapping[str, float]
    n_queries: int
    split: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """The approximate search of an index; it holds for the projection with the id ``projection`` alone.

    ``target`` : the recall that was asked for.
    """

    projection: str
    kind: str
    target: float
    banks: Mapping[Label, TunedBank]

    @property
    def digest(self) -> str:
        """Short digest: another may mean other neighbours."""
        return _short(asdict(self))

    def shards(self, label: Label, present: Collection[str]) -> tuple[str, ...]:
        """The shards under a bank's FAISS index, of those that are there still."""
        return tuple(shard for shard in self.banks[label].shards if shard in present)

    def stem(self, label: Label, present: Collection[str]) -> str:
        """Name of a bank's FAISS index: what it is made of, and nothing of how it is searched."""
        return f"{label}-{_short([label, self.kind, self.shards(label, present)])}"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tuned:
        """Inverse of ``asdict``; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        banks = {label: _bank(data["banks"][label]) for label in LABELS}
        ids = [data["projection"], *(shard for bank in banks.values() for shard in bank.shards)]
        if not all(_ID.fullmatch(id_) for id_ in ids):
            raise ValueError("approximate search is recorded of what has no name")
        return cls(data["projection"], str(data["kind"]), float(data["target"]), banks)


def _bank(data: Mapping[str, Any]) -> TunedBank:
    recall = {str(int(k)): float(share) for k, share in data["recall"].items()}
    return TunedBank(**dict(data) | {"shards": tuple(data["shards"]), "recall": recall})


def _short(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
