"""Is a set of photographs and fakes evidence? What gives the label away, what is there twice, what leaks.

Torralba and Efros 2011, "Unbiased look at dataset bias", §2, asked which data set an image is from;
here the question is which of two, by anything but how it was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.duplicates import (
    Drop,
    Duplicates,
    Leak,
    everything,
    leaks,
    near_duplicates,
)
from retrieval_detect.evaluate.shortcuts import (
    LEAST_IMAGES,
    Clusters,
    Kind,
    Level,
    Shortcut,
    category_shortcut,
    clustered,
    compression_facts,
    content_shortcut,
    describe,
    format_facts,
    pixel_facts,
    shortcut,
)
from retrieval_detect.evaluate.sources import Alike, alike
from retrieval_detect.teach.apart import Apart, apart_in, generators_apart
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.evaluate.material import Material
    from retrieval_detect.types import Failure, ImageItem, Int64, Label

Why: TypeAlias = Literal["few", "files", "vectors", "categories"]
"""Why something was not audited: too few images, no files, no vectors, no categories."""

LEVELS: tuple[Level, ...] = ("usable", "care", "unusable")
MOST_ONE_NAME = 0.8
MOST_DUPLICATES = 0.05
MOST_LEAKED = 0.01
MOST_UNEVEN = 10.0


@dataclass(frozen=True, slots=True)
class Balance:
    """``counts`` : images of each label; ``names`` : of each source and generator, the largest first."""

    counts: dict[Label, int]
    names: dict[Label, dict[str, int]]

    @property
    def lopsided(self) -> list[Label]:
        """Labels that are as good as one source or one generator."""
        return [
            label
            for label, names in self.names.items()
            if names and max(names.values()) > MOST_ONE_NAME * sum(names.values())
        ]

    @property
    def uneven(self) -> bool:
        """Whether one label is far more frequent than the other."""
        return max(self.counts.values()) > MOST_UNEVEN * min(self.counts.values())


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. ``looked`` and ``read`` : images of each label, and those of which the file was read.

    ``total`` : how many there are. ``skipped`` : what could not be audited, and why. ``apart`` : generators
    without photographs of what they show; ``alike`` : pairs of sources that may be one.
    """

    subject: str
    looked: dict[Label, int]
    read: dict[Label, int]
    total: dict[Label, int]
    balance: Balance
    shortcuts: tuple[Shortcut, ...]
    skipped: dict[Kind, Why]
    clusters: Clusters | None
    duplicates: Duplicates
    apart: tuple[Apart, ...]
    alike: tuple[Alike, ...]
    leak: Leak | None
    drop: tuple[Drop, ...]
    failures: tuple[Failure, ...]

    @property
    def sampled(self) -> bool:
        """Whether there are more images than were looked at."""
        return sum(self.total.values()) > sum(self.looked.values()) + len(self.failures)

    @property
    def level(self) -> Level:
        """The worst of all that was found."""
        return max((level for _, level in self.findings()), key=LEVELS.index, default="usable")

    def findings(self) -> Iterator[tuple[str, Level]]:
        """What was found wrong, by name, and how bad it is."""
        told = [found for found in self.shortcuts if found.level != "usable"]
        yield from ((found.kind, found.level) for found in told if not found.unclear)
        if self.leak and self.leak.share:
            yield "leak", "unusable" if self.leak.share > MOST_LEAKED else "care"
        wrong = {
            "few": "few" in self.skipped.values() or any(found.unclear for found in told),
            "files": "files" in self.skipped.values(),
            "lopsided": bool(self.balance.lopsided),
            "uneven": self.balance.uneven,
            "apart": bool(self.apart),
            "alike": bool(self.alike),
            "across": bool(self.duplicates.across),
            "duplicates": sum(self.duplicates.within.values())
            > MOST_DUPLICATES * sum(self.balance.counts.values()),
        }
        yield from ((name, "care") for name, is_wrong in wrong.items() if is_wrong)


def audit(
    material: Material,
    *,
    against: Sequence[ImageItem] = (),
    rebalance: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Audit:
    """Audit a set. ``against`` : images of a test set that must not be among it.

    ``rebalance`` : also list, for dropping, what every content cluster has more of one label than of the
    other; takes vectors of every image. ``progress`` counts test images.
    """
    rows = everything(material)
    counts = Counter(row.label for row in rows)
    if min(counts[label] for label in LABELS) == 0:
        missing = "photographs" if not counts["real"] else "fakes"
        raise UsageError(f"'{material.subject}' has no {missing}", hint="An audit compares both labels.")
    shortcuts, skipped, clusters = _shortcuts(material)
    leak, leaked = leaks(material, rows, against, progress) if against else (None, [])
    duplicates, doubled = near_duplicates(rows)
    surplus = _surplus(material, clusters) if rebalance else []
    found = {label: material.fake == (label == "fake") for label in LABELS}
    return Audit(
        material.subject,
        {label: int(own.sum()) for label, own in found.items()},
        {label: int((own & material.read).sum()) for label, own in found.items()},
        material.total,
        Balance(
            {label: counts[label] for label in LABELS},
            {
                label: dict(Counter(row.name for row in rows if row.label == label).most_common())
                for label in LABELS
            },
        ),
        tuple(shortcuts),
        skipped,
        describe(clusters, material) if clusters is not None else None,
        duplicates,
        tuple(_apart(material) if material.vectors else ()),
        tuple(alike(material) if material.vectors else ()),
        leak,
        tuple({drop.uri: drop for drop in [*surplus, *doubled, *leaked]}.values()),
        material.failures,
    )


# ---------------------------------------------------------------- shortcuts


def _shortcuts(material: Material) -> tuple[list[Shortcut], dict[Kind, Why], Int64 | None]:
    """What tells the label, what was not asked and why, and the content clusters if there are vectors."""
    found: list[Shortcut] = []
    skipped: dict[Kind, Why] = {}
    if not _enough(material):
        return found, dict.fromkeys(("format", "compression", "pixels", "content"), "few"), None
    files = material.take(material.read)
    if _enough(files):
        found.append(shortcut("format", files, format_facts(files)))
        found.append(shortcut("compression", files, compression_facts(files)))
        found.append(shortcut("pixels", files, pixel_facts(files)))
    else:
        found.append(shortcut("format", material, format_facts(material)))
        skipped |= dict.fromkeys(("compression", "pixels"), "files")
    clusters = clustered(material) if material.vectors else None
    if clusters is None:
        skipped["content"] = "vectors"
    else:
        found.append(content_shortcut(material, clusters))
    if len(np.unique(material.categories)) > 1:
        found.append(category_shortcut(material))
    else:
        skipped["category"] = "categories"
    return found, skipped, clusters


def _enough(material: Material) -> bool:
    return all(
        len(np.unique(material.groups[material.fake == fake])) >= LEAST_IMAGES for fake in (False, True)
    )


def _apart(material: Material) -> list[Apart]:
    """Compared with all photographs of an index, however few were drawn to be looked at."""
    if material.snapshot is None:
        return generators_apart(material, material.layer, uris=material.uris.tolist())
    return apart_in(material.snapshot, set(material.names[material.fake].tolist()))


# ---------------------------------------------------------------- content matching


def _surplus(material: Material, clusters: Int64 | None) -> list[Drop]:
    """In each cluster, what one label has more than the other; who stays is drawn by content id."""
    if clusters is None:
        raise UsageError(
            "content can only be matched by vectors of enough images",
            hint="Audit an index, or name an encoder: --encoder efficientnet-lite0",
        )
    if sum(material.total.values()) > len(material) + len(material.failures):
        raise UsageError(
            "content can only be matched if every image is looked at",
            hint=f"Look at all of them: --at-most {max(material.total.values())}",
        )
    drops = []
    for number in np.unique(clusters):
        members = {
            fake: sorted(
                np.flatnonzero((clusters == number) & (material.fake == fake)).tolist(),
                key=lambda i: material.content_ids[i],
            )
            for fake in (False, True)
        }
        kept = min(map(len, members.values()))
        reason = f"content cluster {number}: {len(members[False])} photographs, {len(members[True])} fakes"
        drops += [
            Drop(int(material.row_ids[i]), material.uris[i], "fake" if fake else "real", reason)
            for fake, places in members.items()
            for i in places[kept:]
        ]
    return drops
