"""The files of a set, read once: which image each listing names, under one label, and counted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_detect.evaluate.cache import content_ids
from retrieval_detect.images.labelled import both_labels, refuse_both_labels
from retrieval_detect.store.originals import stored_images
from retrieval_detect.types import Failure, quiet

if TYPE_CHECKING:
    from retrieval_detect.evaluate.cache import Progress
    from retrieval_detect.evaluate.datasets import Dataset
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import ImageItem


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """``items`` : content id → image, each once. ``identities`` : of each sample; ``None`` where it cannot be
    read, or is listed ``again``: so many are.
    """

    items: Mapping[bytes, ImageItem]
    identities: Sequence[bytes | None]
    failures: Sequence[Failure]
    again: int


def read_listed(dataset: Dataset, snapshot: Snapshot, *, progress: Progress = quiet) -> Listed:
    """Hash every file of a set.

    An image counts once, under the name by which it is listed first; in the papers' own sets as often as they
    list it. Raises ``LabelConflict`` for one under both labels, in the set or in the set and in the index.
    """
    samples = dataset.samples
    found = content_ids([sample.item for sample in samples], progress=progress)
    read = [(i, sample) for i, sample in zip(found, samples, strict=True) if isinstance(i, bytes)]
    given = [(i, sample.label, sample.item.uri) for i, sample in read]
    stored = stored_images(snapshot, [content for content, _, _ in given])
    otherwise = [
        f"{uri} ({label}) and a stored reference ({stored[content].label})"
        for content, label, uri in given
        if content in stored and stored[content].label != label
    ]
    refuse_both_labels([*both_labels(given), *otherwise], "nothing was measured")
    items: dict[bytes, ImageItem] = {}
    identities: list[bytes | None] = []
    for i, sample in zip(found, samples, strict=True):
        again = i in items and not dataset.published
        identities.append(i if isinstance(i, bytes) and not again else None)
        if isinstance(i, bytes):
            items.setdefault(i, sample.item)
    failures = [i for i in found if isinstance(i, Failure)]
    return Listed(items, identities, failures, len(read) - sum(i is not None for i in identities))
