"""Building and teaching: images and what is known about them → a new generation of an index."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from retrieval_detect.encoders.agreement import engine_drift, require_same_encoder
from retrieval_detect.encoders.base import default_layers, require_layers
from retrieval_detect.encoders.canaries import canary_vectors
from retrieval_detect.encoders.pipeline import embed_views
from retrieval_detect.errors import UsageError
from retrieval_detect.images.given import items_of
from retrieval_detect.images.labelled import refuse_both_labels
from retrieval_detect.options import keywords_of
from retrieval_detect.store.failures import record_failures
from retrieval_detect.store.indexes import default_home, located, resolved
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.teach.plans import Planned, UpdatePlan, conflicts_with, plan, still_wanted, wanted_views
from retrieval_detect.types import (
    LABELS,
    ORIGINAL_VIEW,
    Embedded,
    FactFields,
    Facts,
    Failure,
    ImageItem,
    quiet,
)

if TYPE_CHECKING:
    import numpy as np

    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.images.given import GivenMany
    from retrieval_detect.store.manifest import FittedRecord, Manifest
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.staging import Staging
    from retrieval_detect.store.writer import Writer
    from retrieval_detect.types import Float32, Split

_LOG = logging.getLogger(__name__)
STAGE_ROWS = 256
"""Embeddings kept at most in memory before they are written: what a kill can cost."""

Progress = Callable[[int], None]
Review: TypeAlias = "Callable[[Writer, Snapshot], Sequence[FittedRecord]]"


@dataclass(frozen=True, slots=True, repr=False)
class AddReport:
    """What an addition did. ``added`` and ``embedded`` count images, ``views`` laundered copies stored.

    ``purged`` : images refused because they were erased for good, before the plan was made or after.
    ``notes`` : code of ``images.codes.NOTES`` → how many of the embedded images have it. ``fitted`` : what
    was fitted anew in the same generation.
    """

    manifest: Manifest
    added: int
    embedded: int
    failures: tuple[Failure, ...]
    views: int = 0
    purged: int = 0
    notes: Mapping[str, int] = field(default_factory=dict)
    fitted: tuple[FittedRecord, ...] = ()

    def __repr__(self) -> str:
        counts = {"views": self.views, "failed": len(self.failures), "refused, purged before": self.purged}
        more = "".join(f", {n:,} {what}" for what, n in counts.items() if n)
        return f"<generation {self.manifest.generation}: {self.added:,} added{more}>"

    @property
    def changed(self) -> bool:
        """Whether there is a new generation."""
        return bool(self.added or self.views)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Arrays:
    """Vectors and labels of live references, for methods that train on them.

    ``X`` : float32 (n, d), unit norm; ``norms`` : float32 (n,), before normalisation, so that
    ``X * norms[:, None]`` is what the network gave; ``y`` : int8 (n,), 1 = fake; ``names`` : text (n,),
    generators (fakes) or sources (photographs); ``groups`` : int64 (n,), equal for near-duplicates and
    views, which no split may part (``GroupKFold``); ``row_ids`` : int64 (n,).
    """

    X: Float32
    norms: Float32
    y: np.ndarray
    names: np.ndarray
    groups: np.ndarray
    row_ids: np.ndarray

    def __repr__(self) -> str:
        (n, d), fakes = self.X.shape, int(self.y.sum())
        n_groups, n_names = len(set(self.groups.tolist())), len(set(self.names.tolist()))
        return f"<{n:,} × {d}: {n - fakes:,} real, {fakes:,} fake, {n_names:,} names, {n_groups:,} groups>"


@dataclass(slots=True, repr=False)
class Index:
    """An index directory: build it, teach it, take references back, read its vectors.

    ``Index.build``, ``Index.create`` and ``Index.open`` make one, by its path or, as text, by its name (see
    ``Detector.load``). Every change is one generation, crash-safe, and
    refused while another writer holds the lock.
    """

    folder: Path
    store: Store = field(repr=False)

    @classmethod
    def build(
        cls,
        folder: str | Path,
        *,
        real: GivenMany,
        fake: GivenMany,
        encoder: str | Encoder,
        layers: Sequence[str] = (),
        device: str = "auto",
    ) -> Index:
        """A new index of photographs and fakes, as ``rd build-index`` makes it: projected and calibrated.

        ``real``, ``fake`` : see ``Detector.query_many``; the first sub-folder of each names the source or the
        generator. ``encoder`` : its name, or itself. With few references there is no projection, and with
        fewer no calibration. What cannot be used is logged, and listed in the index's ``failures.jsonl``.
        """
        from retrieval_detect.teach.projections import fit_default

        parts = (known_references(real, Facts("real")), known_references(fake, Facts("fake")))
        planned = plan((pair for part in parts for pair in part), None)
        found = _encoder_of(encoder, device)
        index = cls.create(folder, encoder=found, layers=layers)
        report = index.apply(planned, encoder=found)
        if report.failures:
            named = "; ".join(f"{one.uri}: {one.message}" for one in report.failures[:3])
            _LOG.warning("%d of %d images could not be used: %s", len(report.failures), planned.n_read, named)
        fit_default(index.store, device=device)
        return index

    @classmethod
    def create(cls, folder: str | Path, *, encoder: Encoder, layers: Sequence[str] = ()) -> Index:
        """A new, empty index; embeds the 16 canary images.

        ``layers`` : of ``encoder``, to be stored of each image; none is ``encoders.base.default_layers``.
        """
        layers = layers or default_layers(encoder.spec)
        require_layers(encoder.spec, layers)
        path = folder if isinstance(folder, Path) else resolved(folder, default_home())
        return cls(path, Store.create(path, encoder.spec, canaries=canary_vectors(encoder, layers)))

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """An index that exists.

        Raises ``IndexNotFound``, ``IndexCorrupt`` or ``FormatUnsupported``.
        """
        path = located(folder)
        index = cls(path, Store(path))
        index.snapshot()
        return index

    def __repr__(self) -> str:
        return f"Index({self.snapshot()!r})"

    def snapshot(self) -> Snapshot:
        """The generation in force, read-only."""
        return self.store.snapshot()

    @keywords_of(Facts)
    def add(
        self,
        images: GivenMany,
        *,
        encoder: str | Encoder = "",
        device: str = "auto",
        **facts: Unpack[FactFields],
    ) -> AddReport:
        """Add references as ``rd bank add`` does: what was fitted on them follows, in one generation.

        ``images``, ``facts`` : see ``plan_add``. ``encoder`` : its name, or itself, if not the index's own by
        its name. Of a calibrated index the change is measured, and refused where it costs too many false
        alarms (``UsageError``).
        """
        from retrieval_detect.teach.measure import Reviewer

        planned = self.plan_add(images, **facts)
        found = _encoder_of(encoder or self.snapshot().manifest.encoder.name, device)
        return self.apply(planned, encoder=found, review=Reviewer(device=device))

    @keywords_of(Facts)
    def plan_add(
        self, images: GivenMany, *, views: Sequence[str] = (), **facts: Unpack[FactFields]
    ) -> UpdatePlan:
        """What adding ``images`` would do.

        ``images`` : see ``Detector.query_many``. ``facts`` : what is known of each, ``label`` at least; where
        no generator (fakes) or source (photographs) is given, the first sub-folder names it. ``views`` :
        kinds of ``types.VIEW_KINDS``, to be stored beside each image.
        """
        known = Facts(**facts)
        if known.label not in LABELS:
            raise UsageError(f"there is no label {known.label!r}", hint="Labels are real and fake.")
        if known.label == "real" and known.generator:
            raise UsageError("a photograph has no generator", hint="Say where it came from: source.")
        return plan(known_references(images, known), self.snapshot(), views=views)

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
            given, n_purged = still_wanted(planned, writer.snapshot)
            wanted = wanted_views(list(given), planned.views, writer.snapshot, staging)
            refuse_both_labels(list(conflicts_with(given, wanted.stored)), "nothing was written")
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
            notes = Counter[str]()
            failures = list(_embed_into(staging, todo, results, progress, notes))
            addition = Addition(
                wanted.rows({image: (p.item.uri, p.facts) for image, p in given.items()}),
                (*planned.failures, *failures),
                planned.generators,
                {encoder.spec.engine: drift},
                {"command": planned.command} if planned.command else {},
            )
            look = None if review is None else partial(review, writer)
            before = writer.snapshot.manifest.fitted
            manifest = writer.add(addition, staging, review=look)
            return AddReport(
                manifest,
                addition.n_images,
                len(todo) - len(failures),
                (*planned.failures, *failures),
                len(addition.rows) - addition.n_images,
                planned.purged + n_purged,
                notes,
                tuple(record for record in manifest.fitted if record not in before),
            )

    def note(self, failures: Sequence[Failure]) -> None:
        """List inputs that could not be used, where nothing else is to be written."""
        with self.store.writer() as writer:
            record_failures(writer.folder, failures)

    def remove(
        self,
        row_ids: Sequence[int],
        *,
        reason: str = "",
        detail: dict[str, Any] | None = None,
        calibrate: bool = True,
        device: str = "auto",
    ) -> Manifest:
        """Take references out of the banks, exactly and at once; returns the new generation.

        What was fitted on them is fitted anew in the same generation, as with an addition that is reviewed,
        and takes as long (``device`` is where). Nothing about that refuses a removal: what cannot be fitted
        is ``stale``; so are calibrations without ``calibrate``.
        """
        from retrieval_detect.teach.refit import refitted

        if not len(row_ids):
            raise UsageError("no reference matches, so there is nothing to remove", hint="See: rd bank list")
        with self.store.writer() as writer:
            look = partial(refitted, writer, device=device, whatever_fails=True, calibrate=calibrate)
            return writer.remove(row_ids, reason=reason, detail=detail or {}, review=look)

    def arrays(self, *, split: Split | None = "bank", layer: str = "proj") -> Arrays:
        """Vectors and labels of all live references of a split, or of both for ``None``; see ``Arrays``."""
        from retrieval_detect.store.training import stored_rows

        rows = stored_rows(self.snapshot(), (layer,), split=split)
        y = rows.fake.astype("int8")
        return Arrays(rows.vectors[layer], rows.norms[layer], y, rows.names, rows.groups, rows.row_ids)


def known_references(images: GivenMany, facts: Facts) -> Iterator[tuple[ImageItem, Facts]]:
    """Images with what is known of each. Paths become absolute: references are looked at from anywhere."""
    given = [_absolute(image) for image in images] if isinstance(images, list | tuple) else _absolute(images)
    column = "generator" if facts.label == "fake" else "source"
    for item in items_of(given):
        folder, below, _ = item.relative.partition("/")
        named = getattr(facts, column) or not below
        yield item, facts if named else replace(facts, **{column: folder})  # type: ignore[arg-type]


def _absolute(image: Any) -> Any:
    return Path(image).absolute() if isinstance(image, str | os.PathLike) else image


def _encoder_of(encoder: str | Encoder, device: str) -> Encoder:
    from retrieval_detect.encoders.registry import load_encoder

    return load_encoder(encoder, device=device) if isinstance(encoder, str) else encoder


def _embed_into(
    staging: Staging,
    todo: Sequence[Planned],
    results: Iterator[list[Embedded | Failure]],
    progress: Progress,
    notes: Counter[str],
) -> Iterator[Failure]:
    """Stage what is embedded, counting its notes and yielding what failed.

    What is done is staged even if it is interrupted. Of an image all views are staged or none: no view
    is ever stored without its original.
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
                notes.update(good[0].notes)
            if len(done) >= STAGE_ROWS:
                batch, done = done, []
                staging.add(batch)
    finally:
        staging.add(done)
