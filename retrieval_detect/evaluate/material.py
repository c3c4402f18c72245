"""What an audit looks at: references of an index, or images of a folder, with all that one reading shows."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.evaluate.jpeg import JpegFacts, comb, jpeg_facts
from retrieval_detect.evaluate.pixels import statistics
from retrieval_detect.images.content_id import content_id, phash
from retrieval_detect.images.decode import decode
from retrieval_detect.images.items import attempted
from retrieval_detect.images.labelled import both_labels, refuse_both_labels
from retrieval_detect.images.sources import scan
from retrieval_detect.images.stored import stored_items
from retrieval_detect.store.groups import group_rows
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.training import COLUMNS, rows_of
from retrieval_detect.types import LABELS, ORIGINAL_VIEW, Failure
from retrieval_detect.vectors import Rows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Float16, Float32, ImageItem, Int64, Label, UInt8, UInt64

AT_MOST = 2000
"""Images of a label that are looked at, if not said otherwise."""
_THUMBNAIL = 16
_PIXELS_SIDE = 1024
_BATCH = 256


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What reading one file shows.

    ``statistics`` : float32 (18,), of at most the central 1024 × 1024 pixels. ``thumbnail`` : float16
    (768,), unit norm, colours about their mean. ``comb`` : trace of earlier compression. The rest is said
    in ``images`` and ``jpeg``.
    """

    content_id: bytes
    phash: int
    width: int
    height: int
    format: str
    n_bytes: int
    exif: bool
    profile: bool
    jpeg: JpegFacts | None
    comb: float
    statistics: Float32
    thumbnail: Float16


def _look(data: bytes) -> Look:
    decoded = decode(data)
    with Image.open(io.BytesIO(data), formats=[decoded.format]) as image:
        exif, facts = bool(image.info.get("exif")), jpeg_facts(image)
    top, left = (max(side - _PIXELS_SIDE, 0) // 2 for side in decoded.rgb.shape[:2])
    centre = decoded.rgb[top : top + _PIXELS_SIDE, left : left + _PIXELS_SIDE]
    return Look(
        content_id(data),
        phash(decoded.rgb),
        decoded.width,
        decoded.height,
        decoded.format,
        len(data),
        exif=exif,
        profile="icc-ignored" in decoded.notes,
        jpeg=facts,
        comb=comb(data),
        statistics=statistics(centre),
        thumbnail=thumbnail(decoded.rgb),
    )


def thumbnail(rgb: UInt8) -> Float16:
    """The picture as 16 × 16 colours about their mean, float16 (768,), unit norm; zeros if it is flat."""
    small = Image.fromarray(rgb).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX, reducing_gap=3.0)
    colours = np.asarray(small, np.float32).reshape(-1, 3)
    centred = (colours - colours.mean(axis=0)).ravel()
    unit: Float16 = (centred / (np.linalg.norm(centred) + 1e-3)).astype(np.float16)
    return unit


# ---------------------------------------------------------------- what is audited


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Material(Rows):
    """n images that were looked at, or of which a store knows enough.

    ``looks`` : ``Look``, or ``None`` where a file cannot be read or has changed. ``items``, ``uris`` and
    ``looks`` : object (n,). ``vectors`` : of the encoder's layer ``layer``, unit norm to float16 rounding;
    none without an encoder.
    """

    subject: str
    items: NDArray[np.object_]
    uris: NDArray[np.object_]
    pair_ids: NDArray[np.str_]
    looks: NDArray[np.object_]
    layer: str = ""
    total: dict[Label, int]
    failures: tuple[Failure, ...] = ()
    snapshot: Snapshot | None = None

    @property
    def read(self) -> Bool:
        """Whose files could be read: bool (n,)."""
        return np.array([look is not None for look in self.looks], bool)


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """Images that will be looked at. ``total`` : how many there are of each label.

    ``stored`` : what an index knows of them, without looks and vectors; ``None`` for a folder.
    """

    subject: str
    items: tuple[ImageItem, ...]
    labels: tuple[Label, ...]
    names: tuple[str, ...]
    total: dict[Label, int]
    stored: Material | None = None

    def __len__(self) -> int:
        return len(self.items)


def of_index(snapshot: Snapshot, *, at_most: int = AT_MOST) -> Listing:
    """``at_most`` references of each label, as ``drawn_from`` an index."""
    stored = drawn_from(snapshot, at_most)
    labels: list[Label] = ["fake" if fake else "real" for fake in stored.fake]
    names, items = stored.names.tolist(), stored.items.tolist()
    return Listing(stored.subject, tuple(items), tuple(labels), tuple(names), stored.total, stored)


def drawn_from(snapshot: Snapshot, at_most: int) -> Material:
    """``at_most`` references of each label, drawn by content id: the same ones whenever it is asked.

    Without looks and vectors.
    """
    table = snapshot.scan([*COLUMNS, "pair_id", "uri"])
    rows = rows_of(table, vectors={}, norms={})
    own: dict[Label, list[int]] = {label: [] for label in LABELS}
    for i in sorted(np.flatnonzero(rows.views == ORIGINAL_VIEW).tolist(), key=rows.content_ids.__getitem__):
        own["fake" if rows.fake[i] else "real"].append(i)
    chosen = np.array([i for label in LABELS for i in own[label][:at_most]], np.int64)
    rows = rows.take(chosen)
    uris, pair_ids = (np.array(table[name].to_pylist(), object)[chosen] for name in ("uri", "pair_id"))
    items = stored_items(zip(uris.tolist(), rows.content_ids.tolist(), strict=True))
    return Material(
        **{f.name: getattr(rows, f.name) for f in fields(rows)},
        subject=snapshot.folder.resolve().name,
        items=np.array(items, object),
        uris=uris,
        pair_ids=pair_ids.astype(np.str_),
        looks=np.full(len(rows), None),
        total={label: len(positions) for label, positions in own.items()},
        snapshot=snapshot,
    )


def of_folder(folder: Path, *, at_most: int = AT_MOST) -> Listing:
    """``at_most`` images each of ``real/`` and ``fake/``, whose sub-folders name sources and generators."""
    items: list[ImageItem] = []
    labels: list[Label] = []
    total: dict[Label, int] = {}
    for label in LABELS:
        if not (folder / label).is_dir():
            raise UsageError(
                f"'{folder}' has no folder {label}/",
                hint="Give a folder with real/SOURCE/… and fake/GENERATOR/…, or name an index: --index NAME",
            )
        found = list(scan([folder / label]))
        total[label] = len(found)
        drawn = sorted(found, key=lambda item: hashlib.sha256(item.relative.encode()).digest())[:at_most]
        items += drawn
        labels += [label] * len(drawn)
    names = tuple(item.relative.rpartition("/")[0].partition("/")[0] for item in items)
    return Listing(str(folder), tuple(items), tuple(labels), names, total)


# ---------------------------------------------------------------- reading


def look_through(listing: Listing, *, progress: Callable[[int], None] = lambda _: None) -> Material:
    """Read every file of a listing once."""
    looks: list[Look | None] = []
    failures = []
    for seen in looked_at(listing.items, progress=progress):
        if isinstance(seen, Failure):
            failures.append(seen)
        looks.append(seen if isinstance(seen, Look) else None)
    if (stored := listing.stored) and stored.snapshot:  # it knows enough: that a file is gone is no failure
        layer = grouping_layer(stored.snapshot.manifest.layers)
        vectors = {layer: stored.snapshot.gather(stored.row_ids.tolist(), layer)}
        return replace(stored, vectors=vectors, layer=layer, looks=np.array(looks, object))
    return replace(_found(listing, looks), failures=tuple(failures))


def looked_at(
    items: Iterable[ImageItem], *, progress: Callable[[int], None] = lambda _: None
) -> Iterable[Look | Failure]:
    """A look at each, in order; at most some hundred files are held at a time."""
    remaining = iter(items)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(remaining, _BATCH)):
            for seen in pool.map(lambda item: attempted(item, _look), batch):
                progress(1)
                yield seen


def with_vectors(
    material: Material, encoder: Encoder, *, progress: Callable[[int], None] = lambda _: None
) -> Material:
    """The same images with an encoder's vectors, for a folder that no index knows."""
    layer = grouping_layer(list(encoder.spec.layers))
    vectors = []
    for result in embed(material.items.tolist(), encoder, layers=[layer]):
        if isinstance(result, Failure):
            raise ImageError(result.message, reason=result.reason, uri=result.uri)
        vectors.append(result.vectors[layer] / np.linalg.norm(result.vectors[layer]))
        progress(1)
    return replace(material, vectors={layer: np.stack(vectors)}, layer=layer)


def _found(listing: Listing, looks: Sequence[Look | None]) -> Material:
    """A folder: what cannot be read is left out, and groups are found here.

    Raises ``LabelConflict`` for an image in both of its halves.
    """
    kept = [i for i, look in enumerate(looks) if look is not None]
    seen = [look for look in looks if look is not None]
    given = [
        (look.content_id, label, item.uri)
        for look, label, item in zip(looks, listing.labels, listing.items, strict=True)
        if look is not None
    ]
    refuse_both_labels(list(both_labels(given)), "nothing was audited")
    items = [item for i, item in enumerate(listing.items) if looks[i] is not None]
    phashes = np.array([look.phash for look in seen], np.uint64)
    thumbnails = np.stack([look.thumbnail for look in seen]) if seen else np.empty((0, 768), np.float16)
    return Material.of(
        fake=np.array([listing.labels[i] == "fake" for i in kept], bool),
        names=np.array([listing.names[i] for i in kept], np.str_),
        groups=groups_of(phashes, thumbnails, [look.content_id for look in seen]),
        content_ids=np.array([look.content_id for look in seen], object),
        phash=phashes,
        sizes=np.array([(look.width, look.height) for look in seen], np.int64).reshape(-1, 2),
        formats=np.array([look.format for look in seen], np.str_),
        pair_ids=np.full(len(kept), ""),
        subject=listing.subject,
        items=np.array(items, object),
        uris=np.array([item.uri for item in items], object),
        looks=np.array(seen, object),
        total=listing.total,
    )


def groups_of(phashes: UInt64, codes: Float16, content_ids: Sequence[bytes]) -> Int64:
    """Near-duplicates by the rule of the store, int64 (n,); equal files are always one group.

    ``codes`` : float16 (n, d), unit norm: vectors, or thumbnails in their place.
    """
    if not len(phashes):
        return np.empty(0, np.int64)
    near = group_rows(phashes, codes, (), "").cluster
    first: dict[bytes, int] = {}
    for identity, group in zip(content_ids, near.tolist(), strict=True):
        first.setdefault(identity, group)
    return np.array([first[identity] for identity in content_ids], np.int64)
