"""Building and teaching: images and what is known about them → a new generation of an index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from retrieval_detect.encoders.agreement import engine_drift, require_layers, require_same_encoder
from retrieval_detect.encoders.canaries import canary_vectors
from retrieval_detect.encoders.pipeline import embed_views
from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.labelled import refuse_both_labels
from retrieval_detect.images.laundering import CROPS, MAX_CROPS, stored_views
from retrieval_detect.progress import quiet
from retrieval_detect.store.failures import record_failures
from retrieval_detect.store.originals import stored_images
from retrieval_detect.store.purge import keyed_digest
from retrieval_detect.store.store import Store
from retrieval_detect.store.wanted import Wanted
from retrieval_detect.store.writer import Addition
from retrieval_detect.types import LABELS, ORIGINAL_VIEW, Embedded, Facts, Failure, ImageItem

if TYPE_CHECKING:
    import numpy as np

    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.store.manifest import FittedRecord, GeneratorFacts, Manifest
    from retrieval_detect.store.originals import StoredImage
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.staging import Staging
    from retrieval_detect.store.writer import Writer
    from retrieval_detect.types import Float32, Label, Split

STAGE_ROWS = 256
"""Embeddings kept at most in memory before they are written: what a kill can cost."""

Progress = Callable[[int], None]
Review: TypeAlias = "Callable[[Writer, Snapshot], Sequence[FittedRecord]]"


@dataclass(frozen=True, slots=True)
class Planned:
    """One image that an addition will store."""

    item: ImageItem
    facts: Facts
    content_id: bytes


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """What an addition would do. Made by hashing files; nothing is decoded, embedded or written.

    ``known`` are stored already, ``repeated`` occur twice in the input, ``purged`` were erased for
    good and are refused. ``generators`` is what is known about those of the new fakes; ``command``
    goes into the history. ``views`` are the kinds of laundered copies to store beside each image;
    ``lacking`` are those of the known that lack some, and ``n_lacking`` how many they lack together.
    """

    new: tuple[Planned, ...]
    known: int = 0
    repeated: int = 0
    purged: int = 0
    failures: tuple[Failure, ...] = ()
    generators: Mapping[str, GeneratorFacts] = field(default_factory=dict)
    command: str = ""
    views: tuple[str, ...] = ()
    lacking: tuple[Planned, ...] = ()
    n_lacking: int = 0

    @property
    def work(self) -> tuple[Planned, ...]:
        """Images of which something is to be stored."""
        return (*self.new, *self.lacking)

    @property
    def views_at_most(self) -> int:
        """How many views will be stored; how many crops a new image has is known once it is decoded."""
        most = sum(MAX_CROPS if kind == CROPS else 1 for kind in self.views)
        return len(self.new) * most + self.n_lacking

    @property
    def n_read(self) -> int:
        """How many inputs were looked at."""
        return len(self.new) + self.known + self.repeated + self.purged + len(self.failures)

    def count(self, label: Label) -> int:
        """New references of one label."""
        return sum(planned.facts.label == label for planned in self.new)

    def summary(self) -> str:
        """One line for people."""
        parts = [
            f"{self.n_read:,} image{'s' * (self.n_read != 1)}",
            f"{len(self.new):,} new",
            f"{self.known:,} already known",
        ]
        parts += [f"{len(self.lacking):,} of them without some of the views"] * bool(self.lacking)
        parts += [f"{self.repeated:,} given twice"] * bool(self.repeated)
        parts += [f"{self.purged:,} purged and refused"] * bool(self.purged)
        parts += [f"{len(self.failures):,} unreadable"] * bool(self.failures)
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class AddReport:
    """What an addition did. ``added`` and ``embedded`` count images, ``views`` laundered copies stored.

    ``purged`` : images refused because they were erased for good, before the plan was made or after.
    """

    manifest: Manifest
    added: int
    embedded: int
    failures: tuple[Failure, ...]
    views: int = 0
    purged: int = 0

    @property
    def changed(self) -> bool:
        """Whether there is a new generation."""
        return bool(self.added or self.views)


def plan(
    inputs: Iterable[tuple[ImageItem, Facts]],
    snapshot: Snapshot | None,
    *,
    views: Sequence[str] = (),
    progress: Progress = quiet,
) -> UpdatePlan:
    """Hash every input and compare with what is stored (``snapshot=None``: nothing yet).

    ``views`` : kinds of ``types.VIEW_KINDS``, to be stored beside each image. Raises ``LabelConflict``
    if an image is given, or given and stored, under both labels.
    """
    first: dict[bytes, Planned] = {}
    failures: list[Failure] = []
    conflicts: list[str] = []
    repeated = 0
    for item, facts in inputs:
        progress(1)
        try:
            identity = content_id(item.read())
        except (OSError, ImageError) as error:
            failures.append(_unreadable(item, error))
            continue
        earlier = first.setdefault(identity, Planned(item, facts, identity))
        repeated += earlier.item is not item
        if earlier.facts.label != facts.label:
            conflicts.append(f"{item.uri} ({facts.label}) and {earlier.item.uri} ({earlier.facts.label})")
    stored = {} if snapshot is None else stored_images(snapshot, list(first))
    refuse_both_labels([*conflicts, *_conflicts(first, stored)], "nothing was written")
    fresh = [planned for identity, planned in first.items() if identity not in stored]
    purged = _purged(fresh, snapshot)
    new = tuple(planned for planned in fresh if planned.content_id not in purged)
    lacking = {} if snapshot is None or not views else _wanted(list(stored), views, snapshot).to_embed()
    return UpdatePlan(
        new,
        len(stored),
        repeated,
        len(purged),
        tuple(failures),
        views=tuple(views),
        lacking=tuple(first[image] for image in lacking),
        n_lacking=sum(lacking.values()),
    )


def _wanted(
    images: Sequence[bytes], views: Sequence[str], snapshot: Snapshot, staging: Staging | None = None
) -> Wanted:
    choose = stored_views(views, crop_size=snapshot.manifest.encoder.preprocessing.size)
    return Wanted(images, choose, snapshot=snapshot, staging=staging)


def _conflicts(given: Mapping[bytes, Planned], stored: Mapping[bytes, StoredImage]) -> Iterator[str]:
    for identity, image in stored.items():
        planned = given[identity]
        if planned.facts.label != image.label:
            yield f"{planned.item.uri} ({planned.facts.label}) and a stored reference ({image.label})"


def _still_wanted(planned: UpdatePlan, snapshot: Snapshot) -> tuple[dict[bytes, Planned], int]:
    """What a plan wants of the generation that is in force by now, and how much of it was purged since.

    Plans are made without the lock: another writer may have erased what they would add, or taken out what
    they would only add views of.
    """
    purged = _purged(planned.work, snapshot)
    stored = stored_images(snapshot, [p.content_id for p in planned.lacking])
    work = (*planned.new, *(p for p in planned.lacking if p.content_id in stored))
    return {p.content_id: p for p in work if p.content_id not in purged}, len(purged)


def _purged(planned: Sequence[Planned], snapshot: Snapshot | None) -> set[bytes]:
    """Which of the images were erased from the index for good."""
    if snapshot is None or not snapshot.manifest.purge.digests:
        return set()
    key, digests = snapshot.manifest.purge.key, frozenset(snapshot.manifest.purge.digests)
    return {p.content_id for p in planned if keyed_digest(key, p.content_id) in digests}


def _unreadable(item: ImageItem, error: OSError | ImageError) -> Failure:
    if isinstance(error, ImageError):
        return Failure(item.uri, error.reason, error.message)
    return Failure(item.uri, "unreadable", error.strerror or str(error))


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """Vectors and labels of live references, for methods that train on them.

    ``X`` : float32 (n, d), unit norm; ``norms`` : float32 (n,), before normalisation, so that
    ``X * norms[:, None]`` is what the network gave; ``y`` : int8 (n,), 1 = fake; ``names`` : n
    generators (fakes) or sources (photographs); ``groups`` : int64 (n,); ``row_ids`` : int64 (n,).
    """

    X: Float32
    norms: Float32
    y: np.ndarray
    names: list[str]
    groups: np.ndarray
    row_ids: np.ndarray


@dataclass(slots=True)
class Index:
    """An index directory: build it, teach it, take references back, read its vectors.

    ``Index.create`` and ``Index.open`` make one. Every change is one generation, crash-safe, and
    refused while another writer holds the lock.
    """

    folder: Path
    store: Store = field(repr=False)

    @classmethod
    def create(cls, folder: str | Path, *, encoder: Encoder, layers: Sequence[str] = ("proj",)) -> Index:
        """A new, empty index of ``encoder``'s ``layers``; embeds the 16 canary images."""
        require_layers(encoder.spec, layers)
        canaries = canary_vectors(encoder, layers)
        return cls(Path(folder), Store.create(Path(folder), encoder.spec, canaries=canaries))

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """An index that exists; raises ``IndexNotFound``, ``IndexCorrupt`` or ``FormatUnsupported``."""
        index = cls(Path(folder), Store(Path(folder)))
        index.snapshot()
        return index

    def snapshot(self) -> Snapshot:
        """The generation in force, read-only."""
        return self.store.snapshot()

    def plan_add(self, items: Iterable[ImageItem], *, views: Sequence[str] = (), **facts: Any) -> UpdatePlan:
        """What adding ``items`` would do; ``facts`` are fields of ``types.Facts``, ``label`` at least.

        ``views`` : kinds of ``types.VIEW_KINDS``, to be stored beside each image.
        """
        known = Facts(**facts)
        if known.label not in LABELS:
            raise UsageError(f"there is no label {known.label!r}", hint="Labels are real and fake.")
        return plan(((item, known) for item in items), self.snapshot(), views=views)

    def apply(
        self,
        planned: UpdatePlan,
        *,
        encoder: Encoder,
        review: Review | None = None,
        progress: Progress = quiet,
        workers: int | None = None,
        batch_size: int | None = None,
    ) -> AddReport:
        """Embed what is new and commit it as one generation.

        ``review`` is called before the commit with the writer and the generation to be; it returns
        what it fitted on that, or raises to keep the old one. Interrupted, it leaves the old
        generation and keeps what was embedded, so that running the same again goes on from there.
        """
        with self.store.writer() as writer:
            require_same_encoder(encoder.spec, writer.snapshot)
            drift = engine_drift(encoder, writer.snapshot) if planned.work else 0.0
            staging = writer.staging()
            given, n_purged = _still_wanted(planned, writer.snapshot)
            wanted = _wanted(list(given), planned.views, writer.snapshot, staging)
            refuse_both_labels(list(_conflicts(given, wanted.stored)), "nothing was written")
            todo = [given[image] for image in wanted.to_embed()]
            progress(len(given) - len(todo))
            results = embed_views(
                (p.item for p in todo),
                encoder,
                layers=writer.snapshot.manifest.layers,
                views=lambda *image: wanted.missing(*image) or [ORIGINAL_VIEW],
                batch_size=batch_size,
                workers=workers,
            )
            failures = list(_embed_into(staging, todo, results, progress))
            addition = Addition(
                wanted.rows({image: (p.item.uri, p.facts) for image, p in given.items()}),
                (*planned.failures, *failures),
                planned.generators,
                {encoder.spec.engine: drift},
                {"command": planned.command} if planned.command else {},
            )
            look = None if review is None else partial(review, writer)
            manifest = writer.add(addition, staging, review=look)
            return AddReport(
                manifest,
                addition.n_images,
                len(todo) - len(failures),
                (*planned.failures, *failures),
                len(addition.rows) - addition.n_images,
                planned.purged + n_purged,
            )

    def note(self, failures: Sequence[Failure]) -> None:
        """List inputs that could not be used, where nothing else is to be written."""
        with self.store.writer():
            record_failures(self.folder, failures)

    def remove(
        self, row_ids: Sequence[int], *, reason: str = "", detail: dict[str, Any] | None = None
    ) -> Manifest:
        """Take references out of the banks, exactly and at once; returns the new generation."""
        if not len(row_ids):
            raise UsageError("no reference matches, so there is nothing to remove", hint="See: rd bank list")
        with self.store.writer() as writer:
            return writer.remove(row_ids, reason=reason, detail=detail or {})

    def arrays(self, *, split: Split = "bank", layer: str = "proj") -> Arrays:
        """Vectors and labels of all live references of a split; see ``Arrays``."""
        return _arrays(self.snapshot(), split, layer)


def _embed_into(
    staging: Staging,
    todo: Sequence[Planned],
    results: Iterator[list[Embedded | Failure]],
    progress: Progress,
) -> Iterator[Failure]:
    """Stage what is embedded, yielding what failed. What is done is staged even if it is interrupted.

    Of an image all views are staged or none: no view is ever stored without its original.
    """
    done: list[Embedded] = []
    try:
        for planned, views in zip(todo, results, strict=True):
            progress(1)
            failed = next((view for view in views if isinstance(view, Failure)), None)
            good = [view for view in views if isinstance(view, Embedded)]
            if failed is not None:
                yield failed
            elif good[0].content_id != planned.content_id:
                yield Failure(planned.item.uri, "changed", "the file changed while it was being read")
            else:
                done += good
            if len(done) >= STAGE_ROWS:
                batch, done = done, []
                staging.add(batch)
    finally:
        staging.add(done)


def _arrays(snapshot: Snapshot, split: Split, layer: str) -> Arrays:
    import numpy as np

    from retrieval_detect.store.schema import norm_column

    if layer not in snapshot.manifest.layers:
        raise UsageError(
            f"index {snapshot.folder.name!r} does not store layer {layer!r}",
            hint=f"It stores: {', '.join(snapshot.manifest.layers)}",
        )
    names = ["row_id", "group", "label", "generator", "source", norm_column(layer)]
    table = snapshot.scan(names, split=split)
    vectors = [shard.vectors(layer)[snapshot.live(shard)] for shard in snapshot.shards(split=split)]
    width = snapshot.manifest.encoder.layers[layer]
    vectors32 = np.concatenate([np.empty((0, width), np.float16), *vectors]).astype(np.float32)
    fake = np.array([label == "fake" for label in table["label"].to_pylist()], dtype=bool)
    generators, sources = table["generator"].to_pylist(), table["source"].to_pylist()
    return Arrays(
        vectors32 / np.linalg.norm(vectors32, axis=1, keepdims=True),
        table[norm_column(layer)].to_numpy(),
        fake.astype(np.int8),
        [g if f else s for f, g, s in zip(fake, generators, sources, strict=True)],
        table["group"].to_numpy(),
        table["row_id"].to_numpy(),
    )
