"""What is there twice: near-duplicates within and across labels, and test images among the references."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.evaluate.material import Look, looked_at
from retrieval_detect.store.groups import near_candidates, near_keys
from retrieval_detect.store.training import COLUMNS, rows_of
from retrieval_detect.types import LABELS, NEAR_COSINE, NEAR_HAMMING, ORIGINAL_VIEW, Failure

if TYPE_CHECKING:
    from retrieval_detect.evaluate.material import Material
    from retrieval_detect.types import ImageItem, Label
    from retrieval_detect.vectors import Rows


@dataclass(frozen=True, slots=True)
class Duplicates:
    """``within`` : images of a label beyond the first of their near-duplicate group. ``across`` : groups that
    hold both labels, without those a pair id explains. ``pairs`` : pair ids of both labels.
    """

    within: dict[Label, int]
    across: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Leak:
    """Test images that are among the references. ``exact`` by the bytes, ``near`` by the perceptual hash and,
    where the file could be read, the picture; ``unconfirmed`` of the near ones by the hash alone.
    """

    test: int
    exact: int
    near: int
    unconfirmed: int
    failures: tuple[Failure, ...]

    @property
    def share(self) -> float:
        """Of the test images."""
        return (self.exact + self.near) / self.test if self.test else 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """An image better left out, and why; ``row_id`` : -1 in a folder."""

    row_id: int
    uri: str
    label: Label
    reason: str


@dataclass(frozen=True, slots=True)
class Row:
    """What is compared of every image, also of those that were not looked at."""

    row_id: int
    uri: str
    label: Label
    name: str
    pair_id: str
    group: int
    content_id: bytes
    phash: int


def everything(material: Material) -> list[Row]:
    """All references of an index; of a folder the images that were looked at."""
    rows: Rows = material
    uris, pair_ids = material.uris, material.pair_ids.tolist()
    if material.snapshot is not None:
        table = material.snapshot.scan([*COLUMNS, "pair_id", "uri"])
        rows = rows_of(table, vectors={}, norms={})
        uris, pair_ids = (table[name].to_pylist() for name in ("uri", "pair_id"))
    labels: list[Label] = ["fake" if fake else "real" for fake in rows.fake]
    facts = (rows.names, rows.groups, rows.content_ids, rows.phash)
    names, *others = (column.tolist() for column in facts)
    found = map(Row, rows.row_ids.tolist(), uris, labels, names, pair_ids, *others)
    return [row for row, view in zip(found, rows.views, strict=True) if view == ORIGINAL_VIEW]


# ---------------------------------------------------------------- among themselves


def near_duplicates(rows: Sequence[Row]) -> tuple[Duplicates, list[Drop]]:
    """How many there are, and which are better left out."""
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    within: Counter[Label] = Counter()
    across, drops = 0, []
    for members in groups.values():
        # A photograph and the fake made from it are alike on purpose.
        one_pair = len({row.pair_id for row in members}) == 1 and bool(members[0].pair_id)
        if len({row.label for row in members}) > 1 and not one_pair:
            across += 1
            drops += [_drop(row, "near-duplicate under the other label") for row in members]
        for label in LABELS:
            first, *others = [row for row in members if row.label == label] or members[:1]
            within[label] += len(others)
            drops += [_drop(row, f"near-duplicate of {first.uri}") for row in others]
    pairs: dict[str, set[Label]] = defaultdict(set)
    for row in rows:
        pairs[row.pair_id].add(row.label)
    n_pairs = sum(len(labels) == len(LABELS) for pair, labels in pairs.items() if pair)
    return Duplicates({label: within[label] for label in LABELS}, across, n_pairs), drops


def _drop(row: Row, reason: str) -> Drop:
    return Drop(row.row_id, row.uri, row.label, reason)


# ---------------------------------------------------------------- in a test set


def leaks(
    material: Material, rows: Sequence[Row], test: Sequence[ImageItem], progress: Callable[[int], None]
) -> tuple[Leak, list[Drop]]:
    """Which test images are among the references, and which references are better left out for it."""
    seen = list(looked_at(test, progress=progress))
    looks = [look for look in seen if isinstance(look, Look)]
    own = {row.content_id: i for i, row in enumerate(rows)}
    exact = {i: own[look.content_id] for i, look in enumerate(looks) if look.content_id in own}
    near = _near(material, rows, looks, exact)
    drops = [_drop(rows[j], "in the test set") for j in exact.values()]
    drops += [_drop(rows[j], "near-duplicate of a test image") for found in near.values() for j, _ in found]
    unconfirmed = sum(not any(sure for _, sure in found) for found in near.values())
    failures = tuple(failure for failure in seen if isinstance(failure, Failure))
    return Leak(len(looks), len(exact), len(near), unconfirmed, failures), drops


def _near(
    material: Material, rows: Sequence[Row], looks: Sequence[Look], exact: dict[int, int]
) -> dict[int, list[tuple[int, bool]]]:
    """Test image → near-duplicate rows, and whether the pictures were compared and not only the hashes."""
    if not looks:
        return {}
    thumbnails = {
        content: look.thumbnail
        for content, look in zip(material.content_ids, material.looks, strict=True)
        if look is not None
    }
    hashes, asked_hashes = (np.array([one.phash for one in own], np.uint64) for own in (rows, looks))
    asked, position = near_candidates(near_keys(hashes), asked_hashes)
    close = np.bitwise_count(asked_hashes[asked] ^ hashes[position]) <= NEAR_HAMMING
    found: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for i, j in zip(asked[close].tolist(), position[close].tolist(), strict=True):
        known = thumbnails.get(rows[j].content_id)
        alike = known is None or float(looks[i].thumbnail.astype(np.float32) @ known) >= NEAR_COSINE
        if i not in exact and alike:
            found[i].append((j, known is not None))
    return dict(found)
