"""What every protocol is given: the images asked about, the index's references, where steps are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from retrieval_detect.ask.banks import Asked
from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.datasets import EVERY
from retrieval_detect.evaluate.intervals import Scored
from retrieval_detect.evaluate.material import drawn_from, groups_of
from retrieval_detect.evaluate.metrics import auroc
from retrieval_detect.evaluate.shortcuts import LEAST_IMAGES, MODELS, group_folds, out_of_fold
from retrieval_detect.files import sha256_bytes
from retrieval_detect.images.chains import UNIFIED, pruned
from retrieval_detect.store.manifest import tool_versions
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.training import stored_rows
from retrieval_detect.types import ORIGINAL_VIEW, Embedded, ImageItem
from retrieval_detect.vectors import Rows, normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.evaluate.cache import Cache, Row
    from retrieval_detect.evaluate.datasets import Dataset
    from retrieval_detect.images.chains import Chain
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Int64, Split
    from retrieval_detect.verdicts import Question

    Float64: TypeAlias = NDArray[np.float64]

Json: TypeAlias = Any
"""Plain JSON types."""
_AT_MOST = 1000
"""References of each label whose pixels teach the trivial baseline."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Images(Rows):
    """n embedded images with what is known of them; their vectors are as the network gave them.

    ``columns`` : of a ``Dataset``; one image is there once for each column that holds it. ``families`` :
    the generators' kinds.
    """

    columns: NDArray[np.str_]
    families: NDArray[np.str_]

    def joined(self, other: Images) -> Images:
        """These, then the others; an image that both hold stands once. Groups are of no use afterwards."""
        return self.followed_by(other.take(~np.isin(other.content_ids, self.content_ids)))

    def once(self) -> Images:
        """Each image once."""
        return self.take(np.sort(np.unique(self.content_ids, return_index=True)[1]))

    def column(self, name: str) -> Bool:
        """Which images a column holds: its own, and the photographs that all share."""
        inside: Bool = (self.columns == name) | ((self.columns == EVERY) & ~self.fake)
        return inside

    def asked(self) -> Asked:
        """As ``Methods.ask`` wants them."""
        return Asked(self.content_ids.tolist(), self.phash, self.vectors)

    def scored(self, scores: Float64) -> Scored:
        """With scores, for intervals."""
        return Scored(scores, self.fake, self.groups, self.names)

    def embedded(self) -> Iterator[Embedded]:
        """As the store takes them in."""
        for i, identity in enumerate(self.content_ids):
            item = ImageItem(identity.hex(), bytes)
            facts = int(self.phash[i]), int(self.sizes[i, 0]), int(self.sizes[i, 1]), str(self.formats[i])
            yield Embedded(item, identity, *facts, {layer: x[i] for layer, x in self.vectors.items()})


def references(snapshot: Snapshot, layers: Sequence[str], *, split: Split | None = None) -> Images:
    """The references of an index, without their views."""
    rows = stored_rows(snapshot, layers, split=split)
    rows = rows.take(rows.views == ORIGINAL_VIEW)
    known = {name: facts.family for name, facts in snapshot.manifest.generators.items()}
    generators = zip(rows.names.tolist(), rows.fake.tolist(), strict=True)
    families = [known.get(name, "") if fake else "" for name, fake in generators]
    own = {f.name: getattr(rows, f.name) for f in fields(rows)}
    own |= {"vectors": {layer: rows.as_encoded(layer) for layer in layers}, "norms": {}}
    return Images(**own, columns=np.full(len(rows), ""), families=np.array(families, np.str_))


# ---------------------------------------------------------------- steps


@dataclass(frozen=True, slots=True)
class Options:
    """What protocols can be told.

    ``numbers`` : references of a new generator, or sizes of a bank; the protocol's own if empty.
    ``at_most`` : images of a name under every robustness setting. ``order`` : of generators, oldest first.
    ``methods`` : what to measure beside the question's own, as ``majority:9``. ``fpr`` : the share of
    photographs that may be flagged where recall is stated. ``per_category`` : few-shot draws references by
    what they show, not by generator.
    """

    numbers: tuple[int, ...] = ()
    seeds: int = 3
    order: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    fpr: float = 0.05
    unified: bool = False
    at_most: int = 60
    resamples: int = 300
    per_category: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a protocol: ``rows`` and which of their ``columns`` a table shows, and ``detail``.

    All plain JSON types; shares 0…1. ``lines`` : what must be read with the numbers.
    """

    protocol: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, Json], ...]
    lines: tuple[str, ...] = ()
    detail: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """A protocol before it is run: steps by name, each giving plain JSON types, and what follows from all."""

    steps: Sequence[tuple[str, Callable[[], Json]]]
    finish: Callable[[dict[str, Json]], Result]


def rounded(value: float | None) -> float | None:
    """As tables have it; ``None`` for what is no number."""
    return None if value is None or not np.isfinite(value) else round(float(value), 4)


# ---------------------------------------------------------------- context


@dataclass(frozen=True, eq=False)
class Context:
    """One evaluation. ``items`` : content id → image; ``identities`` : of each sample, or ``None``."""

    snapshot: Snapshot
    question: Question
    dataset: Dataset
    cache: Cache
    items: Mapping[bytes, ImageItem]
    identities: Sequence[bytes | None]
    layers: tuple[str, ...]
    options: Options
    work: Path
    device: str = "auto"

    @property
    def layer(self) -> str:
        """The layer that peers learn from."""
        return grouping_layer(self.snapshot.manifest.layers)

    @property
    def key(self) -> str:
        """Digest of references, images, question and options."""
        pairs = zip(self.dataset.samples, self.identities, strict=True)
        labelled = [[s.label, s.name, s.column, i.hex()] for s, i in pairs if i is not None]
        facts = [repr(self.question), repr(self.options), self.snapshot.rows_digest(), list(self.layers)]
        manifest = self.snapshot.manifest
        state = [manifest.encoder.fingerprint, [f.digest for f in manifest.fitted], manifest.projection]
        return sha256_bytes(json.dumps([labelled, facts, state, tool_versions()]).encode())

    @cached_property
    def base(self) -> Chain:
        """What is done to every image."""
        return UNIFIED if self.options.unified else ()

    @cached_property
    def known(self) -> Images:
        """All references of the index."""
        return references(self.snapshot, self.layers)

    @cached_property
    def images(self) -> Images:
        """The images as they are (or unified)."""
        found, _ = self.changed(())
        if not (found.fake.any() and (~found.fake).any()):
            missing = "photographs" if found.fake.any() else "fakes"
            raise UsageError(f"there are no {missing} in {self.dataset.name} that can be measured on")
        return self.grouped(found)

    def grouped(self, images: Images) -> Images:
        """With near-duplicates by the store's rule, and equal files always: one number in all columns."""
        if not len(images):
            return images
        codes = normalise(images.vectors[self.layer])[0]
        return replace(images, groups=groups_of(images.phash, codes, images.content_ids.tolist()))

    def some(self, at_most: int) -> frozenset[bytes]:
        """Up to so many images of each generator and source, always the same ones."""
        by_name: dict[tuple[str, str], set[bytes]] = {}
        for sample, identity in zip(self.dataset.samples, self.identities, strict=True):
            if identity is not None:
                by_name.setdefault((sample.label, sample.name), set()).add(identity)
        return frozenset(i for own in by_name.values() for i in sorted(own)[:at_most])

    def changed(self, chain: Chain, *, only: frozenset[bytes] | None = None) -> tuple[Images, Int64]:
        """The images after a chain of steps, and which samples they are (int64): some may be unusable.

        They are not ``grouped`` yet.
        """
        rows = self._rows(chain, only)
        kept = [n for n, identity in enumerate(self.identities) if identity in rows]
        samples = [self.dataset.samples[n] for n in kept]
        identities = [self.identities[n] for n in kept]
        found = [rows[identity] for identity in identities if identity is not None]
        images = Images.of(
            vectors={layer: np.stack([row.vectors[layer] for row in found]) for layer in self.layers}
            if found
            else {},
            fake=np.array([s.label == "fake" for s in samples], bool),
            names=np.array([s.name for s in samples], np.str_),
            groups=np.zeros(len(found), np.int64),
            content_ids=np.array([identity for identity in identities if identity is not None], object),
            phash=np.array([row.phash for row in found], np.uint64),
            sizes=np.array([(row.width, row.height) for row in found], np.int64).reshape(-1, 2),
            formats=np.array([row.format for row in found], np.str_),
            columns=np.array([s.column for s in samples], np.str_),
            families=np.array([s.family for s in samples], np.str_),
        )
        return images, np.array(kept, np.int64)

    @cached_property
    def _unchanged(self) -> dict[bytes, Row]:
        return self.cache.rows(self.items, self.base)[0]

    def _rows(self, chain: Chain, only: frozenset[bytes] | None) -> dict[bytes, Row]:
        """Images to which two chains do the same have the same rows."""
        by_chain: dict[Chain, list[bytes]] = {}
        for identity, row in self._unchanged.items():
            if only is None or identity in only:
                done = pruned(chain, identity, (row.width, row.height), base=self.base)
                by_chain.setdefault(done, []).append(identity)
        rows = {identity: self._unchanged[identity] for identity in by_chain.pop(self.base, [])}
        for done, own in by_chain.items():
            rows |= self.cache.rows({identity: self.items[identity] for identity in own}, done)[0]
        return rows

    # ------------------------------------------------------------ the trivial baseline

    @cached_property
    def baseline(self) -> tuple[Float64, str]:
        """Scores of each of ``images`` by pixel statistics alone, float64 (n,), and how they learnt."""
        values = self.cache.statistics(self.items, self.base)
        blank = np.full(18, np.nan, np.float32)
        x = np.stack([values.get(identity, blank) for identity in self.images.content_ids]).astype(np.float64)
        x = np.where(np.isfinite(x), x, np.nanmedian(x, axis=0))
        learnt = None if self.options.unified else self._reference_statistics()
        if learnt is not None:
            return MODELS["logistic"](*learnt, x), "trained on the index's references"
        fake = self.images.fake
        if min(len(np.unique(self.images.groups[fake == label])) for label in (False, True)) < LEAST_IMAGES:
            return np.zeros(len(x)), "not measured: too few images"
        folds = group_folds(fake, self.images.groups)
        return out_of_fold(MODELS["logistic"], x, fake, folds), "cross-validated on these very images"

    def _reference_statistics(self) -> tuple[Float64, Bool] | None:
        """Of ``_AT_MOST`` references a label that are no images of the set; ``None`` if files are gone."""
        drawn = drawn_from(self.snapshot, _AT_MOST)
        identities = drawn.content_ids.tolist()
        items = dict(zip(identities, drawn.items.tolist(), strict=True))
        labels = dict(zip(identities, drawn.fake.tolist(), strict=True))
        values = self.cache.statistics({i: item for i, item in items.items() if i not in self.items})
        fake = np.array([labels[identity] for identity in values], bool)
        if min(int(fake.sum()), int((~fake).sum())) < LEAST_IMAGES:
            return None
        return np.stack([*values.values()]).astype(np.float64), fake

    @property
    def n_stored(self) -> int:
        """Images asked about that are references too."""
        return len(set(self.images.content_ids) & set(self.known.content_ids))

    def overlap_lines(self) -> list[str]:
        """What a reader must know if there are such."""
        if not self.n_stored:
            return []
        return [
            f"{self.n_stored:,} of these images are references: no number here is of unseen generators. rd "
            "leaves each one's own copies out; rivals learn from four fifths and are asked about the fifth."
        ]

    def baseline_line(self) -> str:
        """What is said beside every result."""
        scores, how = self.baseline
        if not scores.any():
            return f"Trivial pixel statistics: {how}."
        value = auroc(scores, self.images.fake)
        return f"Trivial pixel statistics ({how}) reach AUC {value:.3f} over all these images."


def tabled(
    context: Context,
    name: str,
    title: str,
    rows: Sequence[dict[str, Json]],
    lines: Sequence[str] = (),
    detail: Mapping[str, Json] | None = None,
) -> Result:
    """A result that shows every value of its rows but ranges, and the trivial baseline below."""
    columns = dict.fromkeys(key for row in rows for key in row if not key.endswith("_range"))
    said = (*lines, context.baseline_line())
    return Result(name, title, tuple(columns), tuple(rows), said, dict(detail or {}))
