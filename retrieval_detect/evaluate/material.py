"""What an audit looks at: references of an index, or images of a folder, with all that one reading shows."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

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
        statistics=statistics(_centre(decoded.rgb)),
        thumbnail=thumbnail(decoded.rgb),
    )


def _centre(rgb: UInt8) -> UInt8:
    top, left = (max(side - _PIXELS_SIDE, 0) // 2 for side in rgb.shape[:2])
    return rgb[top : top + _PIXELS_SIDE, left : left + _PIXELS_SIDE]


def thumbnail(rgb: UInt8) -> Float16:
    """The picture as 16 × 16 colours about their mean, float16 (768,), unit norm; zeros if it is flat."""
    small = Image.fromarray(rgb).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX, reducing_gap=3.0)
    colours = np.asarray(small, np.float32).reshape(-1, 3)
    centred = (colours - colours.mean(axis=0)).ravel()
    unit: Float16 = (centred / (np.linalg.norm(centred) + 1e-3)).astype(np.float16)
    return unit


# ---------------------------------------------------------------- what is audited


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """Images that will be looked at. ``total`` : how many there are of each label.

    ``rows`` : what the store knows of each, empty for a folder.
    """

    subject: str
    items: tuple[ImageItem, ...]
    labels: tuple[Label, ...]
    names: tuple[str, ...]
    total: dict[Label, int]
    rows: tuple[dict[str, Any], ...] = ()
    snapshot: Snapshot | None = None

    def __len__(self) -> int:
        return len(self.items)


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


def of_index(snapshot: Snapshot, *, at_most: int = AT_MOST) -> Listing:
    """``at_most`` references of each label, drawn by content id: the same ones whenever it is asked."""
    columns = ["row_id", "content_id", "group", "phash", "view", "label", "generator", "source", "category"]
    rows = snapshot.scan([*columns, "pair_id", "uri", "width", "height", "format"]).to_pylist()
    rows = [row for row in rows if row["view"] == ORIGINAL_VIEW]
    total = {label: sum(row["label"] == label for row in rows) for label in LABELS}
    chosen = [
        row
        for label in LABELS
        for row in sorted((r for r in rows if r["label"] == label), key=_by_content)[:at_most]
    ]
    return Listing(
        snapshot.folder.resolve().name,
        tuple(stored_items((row["uri"], row["content_id"]) for row in chosen)),
        tuple(row["label"] for row in chosen),
        tuple(row["generator" if row["label"] == "fake" else "source"] for row in chosen),
        total,
        tuple(chosen),
        snapshot,
    )


def _by_content(row: dict[str, Any]) -> bytes:
    return bytes(row["content_id"])


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
    if listing.snapshot:  # the store knows enough: that a file is gone is no failure
        return _stored(listing, listing.snapshot, looks)
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


def _stored(listing: Listing, snapshot: Snapshot, looks: Sequence[Look | None]) -> Material:
    rows = listing.rows
    layer = grouping_layer(snapshot.manifest.layers)
    row_ids = np.array([row["row_id"] for row in rows], np.int64)

    def text(column: str) -> NDArray[np.str_]:
        return np.array([row[column] for row in rows], np.str_)

    return Material.of(
        vectors={layer: snapshot.gather(row_ids.tolist(), layer)},
        fake=np.array([label == "fake" for label in listing.labels], bool),
        names=np.array(listing.names, np.str_),
        groups=np.array([row["group"] for row in rows], np.int64),
        row_ids=row_ids,
        content_ids=np.array([row["content_id"] for row in rows], object),
        phash=np.array([row["phash"] for row in rows], np.uint64),
        sizes=np.array([(row["width"], row["height"]) for row in rows], np.int64).reshape(-1, 2),
        formats=text("format"),
        categories=text("category"),
        pair_ids=text("pair_id"),
        subject=listing.subject,
        items=np.array(listing.items, object),
        uris=np.array([str(row["uri"]) for row in rows], object),
        looks=np.array(looks, object),
        layer=layer,
        total=listing.total,
        snapshot=snapshot,
    )


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
        groups=_groups(seen, phashes, thumbnails),
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


def _groups(looks: Sequence[Look], phashes: UInt64, thumbnails: Float16) -> Int64:
    """Near-duplicates by the rule of the store, thumbnails standing for vectors; equal files always."""
    if not looks:
        return np.empty(0, np.int64)
    near = group_rows(phashes, thumbnails, (), "").cluster
    first: dict[bytes, int] = {}
    for look, group in zip(looks, near.tolist(), strict=True):
        first.setdefault(look.content_id, group)
    return np.array([first[look.content_id] for look in looks], np.int64)
