"""What an addition would do: inputs are hashed and compared with what is stored; nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.items import attempted
from retrieval_detect.images.labelled import refuse_both_labels
from retrieval_detect.images.laundering import CROPS, MAX_CROPS, stored_views
from retrieval_detect.names import named
from retrieval_detect.store.originals import stored_images
from retrieval_detect.store.staging import Staging
from retrieval_detect.store.sweep import keyed_digest
from retrieval_detect.teach.wanted import Wanted
from retrieval_detect.types import Facts, Failure, ImageItem, quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval_detect.store.manifest import GeneratorFacts
    from retrieval_detect.store.originals import StoredImage
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Label


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
    ``kept`` of the new were embedded before, by a run that was interrupted. ``named_otherwise`` :
    generator or source under which known images are stored, where another was given → how many.
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
    kept: int = 0
    named_otherwise: Mapping[str, int] = field(default_factory=dict)

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
        kept = [f"{self.kept:,} kept from before", f"{len(self.new) - self.kept:,} to embed"]
        parts = [
            f"{self.n_read:,} image{'s' * (self.n_read != 1)}",
            *(kept if self.kept else [f"{len(self.new):,} new"]),
            f"{self.known:,} already known",
        ]
        parts += [f"{sum(self.named_otherwise.values()):,} of them under other names"] * bool(
            self.named_otherwise
        )
        parts += [f"{len(self.lacking):,} of them without some of the views"] * bool(self.lacking)
        parts += [f"{self.repeated:,} given twice"] * bool(self.repeated)
        parts += [f"{self.purged:,} purged and refused"] * bool(self.purged)
        parts += [f"{len(self.failures):,} unreadable"] * bool(self.failures)
        return ", ".join(parts)


def plan(
    inputs: Iterable[tuple[ImageItem, Facts]],
    snapshot: Snapshot | None,
    *,
    views: Sequence[str] = (),
    progress: Callable[[int], None] = quiet,
) -> UpdatePlan:
    """Hash every input and compare with what is stored (``snapshot=None``: nothing yet).

    ``views`` : kinds of ``types.VIEW_KINDS``, to be stored beside each image. Raises ``LabelConflict``
    if an image is given, or given and stored, under both labels, and ``BadName`` for facts that are none.
    """
    first: dict[bytes, Planned] = {}
    failures: list[Failure] = []
    conflicts: list[str] = []
    repeated = 0
    for item, given in inputs:
        facts = named(given)
        progress(1)
        identity = attempted(item, content_id)
        if isinstance(identity, Failure):
            failures.append(identity)
            continue
        earlier = first.setdefault(identity, Planned(item, facts, identity))
        repeated += earlier.item is not item
        if earlier.facts.label != facts.label:
            conflicts.append(f"{item.uri} ({facts.label}) and {earlier.item.uri} ({earlier.facts.label})")
    stored = {} if snapshot is None else stored_images(snapshot, list(first))
    refuse_both_labels([*conflicts, *conflicts_with(first, stored)], "nothing was written")
    fresh = [planned for identity, planned in first.items() if identity not in stored]
    purged = _purged(fresh, snapshot)
    new = tuple(planned for planned in fresh if planned.content_id not in purged)
    lacking = {} if snapshot is None or not views else wanted_views(list(stored), views, snapshot).to_embed()
    return UpdatePlan(
        new,
        len(stored),
        repeated,
        len(purged),
        tuple(failures),
        views=tuple(views),
        lacking=tuple(first[image] for image in lacking),
        n_lacking=sum(lacking.values()),
        kept=_kept([planned.content_id for planned in new], views, snapshot),
        named_otherwise=_named_otherwise(first, stored, snapshot),
    )


def _kept(images: Sequence[bytes], views: Sequence[str], snapshot: Snapshot | None) -> int:
    """How many of some new images were embedded before, by a run that was interrupted."""
    if snapshot is None or not images:
        return 0
    staging = Staging.of(snapshot)
    return len(images) - len(wanted_views(images, views, snapshot, staging).to_embed()) if staging else 0


def _named_otherwise(
    given: Mapping[bytes, Planned], stored: Mapping[bytes, StoredImage], snapshot: Snapshot | None
) -> dict[str, int]:
    """Generator or source under which images are stored, where another is given → how many."""
    counts: Counter[str] = Counter()
    if snapshot is None:
        return {}
    rows = snapshot.take([image.row_id for image in stored.values()], ["generator", "source"])
    for identity, row in zip(stored, rows, strict=True):
        facts = given[identity].facts
        column = "generator" if facts.label == "fake" else "source"
        name = getattr(facts, column)
        counts[row[column]] += bool(name) and name != row[column]
    return dict(+counts)


def wanted_views(
    images: Sequence[bytes], views: Sequence[str], snapshot: Snapshot, staging: Staging | None = None
) -> Wanted:
    """The views of kinds ``views`` that some images should have; ``staging=None`` : nothing is staged."""
    choose = stored_views(views, crop_size=snapshot.manifest.encoder.preprocessing.size)
    return Wanted(images, choose, snapshot=snapshot, staging=staging)


def conflicts_with(given: Mapping[bytes, Planned], stored: Mapping[bytes, StoredImage]) -> Iterator[str]:
    """Which images are given under another label than they are stored, in words."""
    for identity, image in stored.items():
        planned = given[identity]
        if planned.facts.label != image.label:
            yield f"{planned.item.uri} ({planned.facts.label}) and a stored reference ({image.label})"


def still_wanted(planned: UpdatePlan, snapshot: Snapshot) -> tuple[dict[bytes, Planned], int]:
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
