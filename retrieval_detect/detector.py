"""Asking: an image → its nearest references in both banks → a verdict with its evidence."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import EmptyBank, ImageError, UsageError
from retrieval_detect.files import DigestCache
from retrieval_detect.scoring.attribution import attribute
from retrieval_detect.scoring.near import same_image
from retrieval_detect.scoring.vote import DEFAULT_K, BankNeighbours, vote
from retrieval_detect.search.bank import Bank, ShardVectors
from retrieval_detect.search.projection import Identity
from retrieval_detect.search.references import References
from retrieval_detect.store.append import grouping_layer
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.store import BANKS
from retrieval_detect.types import LABELS, Embedded, Evidence, Failure, ImageItem, IndexRef, Verdict, Votes

if TYPE_CHECKING:
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.scoring.vote import VoteResult
    from retrieval_detect.types import Bool, Float32, Int64, Label, Method

N_EVIDENCE = 10
_SPARE = 16
"""Neighbours fetched beyond k, so that dropping the query's own image seldom means asking again."""

_EVIDENCE_COLUMNS = ["label", "generator", "source", "uri", "content_id", "added_at"]

_NOTES = {
    "alpha-on-white": "transparent areas were put on white",
    "first-frame": "only the first frame of an animation was judged",
}


@dataclass(frozen=True, slots=True)
class Query:
    """What a vote needs of an image: its vector and what tells it from its own copies."""

    embedded: Embedded
    vector: Float32
    """float32 (d,), of the searched layer, any norm"""


class _Side:
    """One bank with what is known about its references."""

    def __init__(
        self, snapshot: Snapshot, label: Label, *, layer: str, device: str, digests: DigestCache
    ) -> None:
        self.references = References.load(snapshot, label)
        shards = [
            ShardVectors(shard.record.id, shard.row_ids, shard.vectors(layer))
            for shard in snapshot.shards(label, "bank")
        ]
        self.bank = Bank.open(
            shards,
            label=label,
            projection=Identity(layer),
            folder=snapshot.folder / BANKS,
            dead=snapshot.dead,
            device=device,
            digests=digests,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """A query's neighbours in one bank: the ones that vote, and its own copies, which do not."""

    row_ids: Int64
    similarities: Float32
    positions: Int64
    own: Bool


class Detector:
    """Judges images by one generation of one index.

    ``Detector.load(path).query("photo.jpg")`` returns a ``Verdict``. Nothing heavy is loaded before
    the first image is judged: torch with the first encoding, FAISS with the first search.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        encoder: Encoder | None = None,
        weights: str | Path | None = None,
        device: str = "auto",
        layer: str | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.layer = layer or grouping_layer(snapshot.manifest.layers)
        self._device = device
        self._weights = weights
        self._encoder = encoder
        self._agreed = False
        self._sides: dict[Label, _Side] = {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        weights: str | Path | None = None,
        device: str = "auto",
    ) -> Detector:
        """A detector over the generation in force at ``path``.

        ``encoder`` replaces the one that would be built from the index's own record; ``weights`` is
        a local file or folder for it. Raises ``IndexNotFound``, ``IndexCorrupt``, ``EmptyBank``.
        """
        snapshot = Snapshot.open(Path(path))
        _require_banks(snapshot)
        return cls(snapshot, encoder=encoder, weights=weights, device=device)

    # ------------------------------------------------------------ parts, opened when needed

    @property
    def encoder(self) -> Encoder:
        """The index's encoder; raises ``WeightsUnavailable`` or ``EncoderMismatch``."""
        if not self._agreed:
            from retrieval_detect.encoders.agreement import engine_drift, require_same_encoder

            if self._encoder is None:
                from retrieval_detect.encoders.registry import load_encoder

                name = self.snapshot.manifest.encoder.name
                self._encoder = load_encoder(name, weights=self._weights, device=self._device)
            require_same_encoder(self._encoder.spec, self.snapshot)
            engine_drift(self._encoder, self.snapshot)
            self._agreed = True
        assert self._encoder is not None  # noqa: S101 - for the type checker; set above
        return self._encoder

    def _side(self, label: Label) -> _Side:
        if label not in self._sides:
            digests = DigestCache.for_user()
            self._sides[label] = _Side(
                self.snapshot, label, layer=self.layer, device=self._device, digests=digests
            )
            digests.save()
        return self._sides[label]

    @property
    def reference(self) -> IndexRef:
        """Which generation judges, and how large its banks are."""
        manifest = self.snapshot.manifest
        return IndexRef(
            self.snapshot.folder.resolve().name,
            manifest.generation,
            manifest.encoder.fingerprint,
            manifest.live_rows("real", "bank"),
            manifest.live_rows("fake", "bank"),
            len(manifest.names("fake")),
        )

    # ------------------------------------------------------------ asking

    def query(
        self, image: str | Path | bytes | ImageItem, *, method: Method = "density", k: int | None = None
    ) -> Verdict:
        """The verdict for one image: a path, its bytes, or an item of ``images.sources``.

        Raises ``ImageError`` if the image cannot be used.
        """
        item = _item(image)
        result = next(iter(self.query_many([item], method=method, k=k)))
        if isinstance(result, Failure):
            raise ImageError(f"{result.uri}: {result.message}", reason=result.reason, uri=result.uri)
        return result

    def query_many(
        self,
        images: Iterable[str | Path | bytes | ImageItem],
        *,
        method: Method = "density",
        k: int | None = None,
        batch_size: int = 32,
        workers: int | None = None,
    ) -> Iterator[Verdict | Failure]:
        """Verdicts in the order of ``images``, streamed; what cannot be used comes as a ``Failure``."""
        from retrieval_detect.encoders.pipeline import embed

        items = (_item(image) for image in images)
        started = time.perf_counter()
        for result in embed(
            items, self.encoder, layers=self.snapshot.manifest.layers, batch_size=batch_size, workers=workers
        ):
            if isinstance(result, Failure):
                yield result
            else:
                yield self.judge(result, method=method, k=k, started=started)
            started = time.perf_counter()

    def judge(
        self,
        embedded: Embedded,
        *,
        method: Method = "density",
        k: int | None = None,
        started: float | None = None,
    ) -> Verdict:
        """The verdict for an image that is embedded already; no encoder is needed."""
        started = time.perf_counter() if started is None else started
        k = k or DEFAULT_K[method]
        if k < 1:
            raise UsageError(f"k is {k}", hint="Give a k of 1 or more.")
        vector = embedded.vectors[self.layer][None, :]
        stored = self._stored_copies(embedded)
        near = self._neighbours(embedded, vector, max(k, N_EVIDENCE), {group for _, group in stored})
        voters = {label: self._voters(label, near[label]) for label in LABELS}
        result = vote(voters["fake"], voters["real"], method=method, k=k)
        return self._verdict(embedded, near, voters, result, stored, method=method, started=started)

    def _stored_copies(self, embedded: Embedded) -> list[tuple[int, int]]:
        """(row id, group) of every live row of the query's own bytes, in either split."""
        row_ids = [row_id for _, row_id, _, _ in self.snapshot.find([embedded.content_id])]
        rows = self.snapshot.take(row_ids, ["group"]) if row_ids else []
        return [(row["row_id"], row["group"]) for row in rows]

    def _neighbours(
        self, embedded: Embedded, vector: Float32, wanted: int, own_groups: set[int]
    ) -> dict[Label, _Near]:
        """At least ``wanted`` different images that may vote from each bank, or the whole bank."""
        fetch = wanted + _SPARE
        while True:
            found = {label: self._fetch(label, embedded, vector, fetch) for label in LABELS}
            groups = set(own_groups)
            for label, near in found.items():
                groups |= set(self._side(label).references.group[near.positions[near.own]].tolist())
            near = {label: self._drop_groups(label, found[label], groups) for label in LABELS}
            short = [label for label in LABELS if self._distinct(label, near[label]) < wanted]
            if all(len(near[label].row_ids) >= self._side(label).bank.n for label in short):
                return near
            fetch *= 4

    def _fetch(self, label: Label, embedded: Embedded, vector: Float32, fetch: int) -> _Near:
        side = self._side(label)
        neighbours = side.bank.search(vector, fetch)
        row_ids, similarities = neighbours.row_ids[0], neighbours.similarities[0]
        positions = side.references.positions(row_ids)
        own = same_image(
            similarities,
            np.bitwise_count(side.references.phash[positions] ^ np.uint64(embedded.phash)),
            same_content=side.references.content[positions] == _leading_word(embedded.content_id),
        )
        return _Near(row_ids, similarities, positions, own)

    def _drop_groups(self, label: Label, near: _Near, groups: set[int]) -> _Near:
        grouped = np.isin(self._side(label).references.group[near.positions], list(groups))
        return _Near(near.row_ids, near.similarities, near.positions, near.own | grouped)

    def _distinct(self, label: Label, near: _Near) -> int:
        return len(np.unique(self._side(label).references.content[near.positions[~near.own]]))

    def _voters(self, label: Label, near: _Near) -> BankNeighbours:
        references, keep = self._side(label).references, ~near.own
        at = near.positions[keep]
        return BankNeighbours(
            similarities=near.similarities[keep],
            content=references.content[at],
            log_weights=references.log_weight[at],
            names=references.name[at],
            row_ids=near.row_ids[keep],
            n_bank=len(references),
        )

    # ------------------------------------------------------------ answering

    def _verdict(
        self,
        embedded: Embedded,
        near: Mapping[Label, _Near],
        voters: Mapping[Label, BankNeighbours],
        result: VoteResult,
        stored: Sequence[tuple[int, int]],
        *,
        method: Method,
        started: float,
    ) -> Verdict:
        evidence = self._evidence(_merged(voters))
        fakes = sum(e.label == "fake" for e in evidence)
        reference = self.reference
        n = reference.n_fake + reference.n_real
        own = self._own_rows(near, stored)
        return Verdict(
            input=embedded.item.uri,
            sha256=embedded.content_id.hex(),
            verdict="fake-like" if result.score > 0 else "real-like",
            score=result.score,
            method=method,
            k=result.k,
            votes=Votes(fakes, len(evidence) - fakes, len(evidence), reference.n_fake / n),
            nearest={label: float(voters[label].similarities.max()) for label in ("fake", "real")},
            attribution=attribute(voters["fake"], names=self._side("fake").references.names, k=result.k),
            evidence=evidence,
            same_image=own,
            warnings=(*_warnings(embedded, own, self.snapshot), *result.warnings),
            index=reference,
            encoder=self.snapshot.manifest.encoder.name,
            engine=self._encoder.spec.engine if self._encoder else self.snapshot.manifest.encoder.engine,
            elapsed_s=time.perf_counter() - started,
        )

    def _evidence(self, ranked: Sequence[tuple[int, float]]) -> tuple[Evidence, ...]:
        rows = self.snapshot.take([row_id for row_id, _ in ranked], _EVIDENCE_COLUMNS)
        return tuple(
            Evidence(
                rank=rank,
                row_id=row["row_id"],
                label=row["label"],
                similarity=similarity,
                generator=row["generator"],
                source=row["source"],
                uri=row["uri"],
                content_id=row["content_id"].hex(),
                added_at=row["added_at"].strftime("%Y-%m-%dT%H:%M:%SZ"),
            )
            for rank, (row, (_, similarity)) in enumerate(zip(rows, ranked, strict=True), start=1)
        )

    def _own_rows(
        self, near: Mapping[Label, _Near], stored: Sequence[tuple[int, int]]
    ) -> tuple[Evidence, ...]:
        """The query's own image and its near-duplicates among the references, most similar first."""
        similar = {row_id: 1.0 for row_id, _ in stored}
        for bank in near.values():
            similar |= dict(
                zip(bank.row_ids[bank.own].tolist(), bank.similarities[bank.own].tolist(), strict=True)
            )
        return self._evidence(sorted(similar.items(), key=lambda pair: (-pair[1], pair[0])))


def _merged(voters: Mapping[Label, BankNeighbours]) -> list[tuple[int, float]]:
    """The nearest of both banks together, one row an image, ordered by (-similarity, row id)."""
    seen: set[int] = set()
    merged: list[tuple[int, float]] = []
    pairs = sorted(
        (-float(s), int(r), int(c))
        for bank in voters.values()
        for s, r, c in zip(bank.similarities, bank.row_ids, bank.content, strict=True)
    )
    for similarity, row_id, content in pairs:
        if content not in seen and len(merged) < N_EVIDENCE:
            seen.add(content)
            merged.append((row_id, -similarity))
    return merged


def _warnings(embedded: Embedded, own: Sequence[Evidence], snapshot: Snapshot) -> Iterator[str]:
    size = snapshot.manifest.encoder.preprocessing.size
    if min(embedded.width, embedded.height) < size:
        yield f"{embedded.width}×{embedded.height} is smaller than the encoder's {size}×{size}"
    yield from (_NOTES[note] for note in embedded.notes if note in _NOTES)
    if any(e.content_id == embedded.content_id.hex() for e in own):
        yield "this very image is a reference of the index; it did not vote"
    elif own:
        yield "near-duplicates of this image are references of the index; they did not vote"
    if not snapshot.manifest.encoder.is_clip:
        yield f"{snapshot.manifest.encoder.name} is not CLIP: {snapshot.manifest.encoder.note}"


def _require_banks(snapshot: Snapshot) -> None:
    for label in LABELS:
        if not snapshot.manifest.live_rows(label, "bank"):
            raise EmptyBank(
                f"the {label} bank of index {snapshot.folder.name!r} is empty, so nothing can be compared with it",
                hint=f"Add references: rd bank add DIR --label {label}",
            )


def _leading_word(identity: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(identity[:8], "big"))


def _item(image: str | Path | bytes | ImageItem) -> ImageItem:
    if isinstance(image, ImageItem):
        return image
    if isinstance(image, bytes):
        return ImageItem("-", lambda: image)
    path = Path(image)
    return ImageItem(str(path), path.read_bytes, path.name)
