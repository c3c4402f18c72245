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
from retrieval_detect.names import NAMED, named
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.originals import stored_images
from retrieval_detect.store.staging import Staging
from retrieval_detect.store.sweep import were_purged
from retrieval_detect.types import ORIGINAL_VIEW, Facts, Failure, ImageItem, quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval_detect.images.laundering import Chooser
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

    @property
    def generators_named(self) -> set[str]:
        """Those that new fakes are of."""
        return {planned.facts.generator for planned in self.new if planned.facts.label == "fake"}

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
    kept = 0  # embedded before, by a run that was interrupted
    if snapshot is not None and new and (staging := Staging.of(snapshot)):
        images = [planned.content_id for planned in new]
        kept = len(new) - len(wanted_views(images, views, snapshot, staging).to_embed())
    return UpdatePlan(
        new,
        len(stored),
        repeated,
        len(purged),
        tuple(failures),
        views=tuple(views),
        lacking=tuple(first[image] for image in lacking),
        n_lacking=sum(lacking.values()),
        kept=kept,
        named_otherwise=_named_otherwise(first, stored, snapshot),
    )


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
    if snapshot is None:
        return set()
    return were_purged((p.content_id for p in planned), snapshot.manifest.purge)


# ---------------------------------------------------------------- which views of which images


class Wanted:
    """The views that ``choose`` names for some images.

    How many views an image has may depend on its size, which is known of stored and of staged images.
    ``staging=None`` : nothing is staged.
    """

    def __init__(
        self,
        content_ids: Sequence[bytes],
        choose: Chooser,
        *,
        snapshot: Snapshot,
        staging: Staging | None = None,
    ) -> None:
        self.stored = stored_images(snapshot, content_ids)
        self._snapshot = snapshot
        self._content_ids = content_ids
        self._choose = choose
        self._staging = staging
        rows = snapshot.take([image.row_id for image in self.stored.values()], ["width", "height"])
        self._stored_sizes = {
            image: (row["width"], row["height"]) for image, row in zip(self.stored, rows, strict=True)
        }

    def missing(self, content_id: bytes, width: int, height: int) -> list[str]:
        """The views of one image that are neither stored nor staged: a ``Chooser``."""
        return [
            view for view in self._absent(content_id, width, height) if not self._is_staged(content_id, view)
        ]

    def to_embed(self) -> dict[bytes, int]:
        """Images of which something is missing → how many views; 1 where the size is not known yet."""
        sizes = self._sizes()
        counts = {
            image: len(self.missing(image, *sizes[image])) if image in sizes else 1
            for image in self._content_ids
        }
        return {image: count for image, count in counts.items() if count}

    def rows(self, given: Mapping[bytes, tuple[str, Facts]]) -> list[NewRow]:
        """What is staged and not stored, an image's original first.

        ``given`` : uri and facts of each image; a stored image keeps its own.
        """
        staged = {
            image: [view for view in self._absent(image, *size) if self._is_staged(image, view)]
            for image, size in self._sizes().items()
        }
        names = ["label", *NAMED]
        stored = [image for image in self.stored if staged[image]]
        known = self._snapshot.take([self.stored[image].row_id for image in stored], ["uri", *names])
        own = ((row["uri"], Facts(**{name: row[name] for name in names})) for row in known)
        called = {**given, **dict(zip(stored, own, strict=True))}
        return [NewRow(image, *called[image], view) for image, views in staged.items() for view in views]

    # ------------------------------------------------------------ parts

    def _absent(self, content_id: bytes, width: int, height: int) -> Iterator[str]:
        stored = self.stored.get(content_id)
        return (view for view in self._choose(content_id, width, height) if not (stored and stored.has(view)))

    def _is_staged(self, content_id: bytes, view: str) -> bool:
        return self._staging is not None and (content_id, view) in self._staging

    def _sizes(self) -> dict[bytes, tuple[int, int]]:
        """Width and height of the images that are stored or staged, in the order given."""
        staged = [
            (image, ORIGINAL_VIEW) for image in self._content_ids if self._is_staged(image, ORIGINAL_VIEW)
        ]
        facts = self._staging.facts(staged).to_pylist() if self._staging is not None and staged else []
        sizes = {row["content_id"]: (row["width"], row["height"]) for row in facts} | self._stored_sizes
        return {image: sizes[image] for image in self._content_ids if image in sizes}
