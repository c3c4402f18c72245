"""Mistakes: images that were judged wrongly, kept to be judged again. Vectors and a reason, never pixels.

They are no references: nothing is fitted on them, and they never vote.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.files import arrays_from_bytes, arrays_to_bytes, sha256_bytes, write_bytes
from retrieval_detect.names import checked
from retrieval_detect.store.layout import MISTAKES
from retrieval_detect.store.manifest import FileRecord, MistakesRecord, mistakes_path, now
from retrieval_detect.store.schema import CONTENT_ID_BYTES
from retrieval_detect.store.shards import damaged
from retrieval_detect.types import LABELS, Embedded, ImageItem, Label
from retrieval_detect.vectors import NORM_TOLERANCE, Rows, normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool

_FORMAT, _VERSION = "retrieval-detect/mistakes", 1
_TEXTS = ("formats", "because", "kept_at")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Mistakes(Rows):
    """n images and what they are, whatever was said of them; each content id once.

    ``vectors`` and ``norms`` : of every layer that the index stores. ``because`` : text (n,), how its label
    is known. ``kept_at`` : text (n,), when it was kept, as manifests write times.
    """

    because: NDArray[np.str_]
    kept_at: NDArray[np.str_]

    def label(self, i: int) -> Label:
        """What one of them is."""
        return "fake" if self.fake[i] else "real"

    def others(self, content_ids: Container[bytes]) -> Bool:
        """Which are none of these: bool (n,)."""
        return np.array([image not in content_ids for image in self.content_ids.tolist()], bool)

    def images(self) -> list[Embedded]:
        """As images to ask about, named by their content ids; there are no bytes to read."""
        return [
            Embedded(
                item=ImageItem(content_id.hex(), bytes),
                content_id=content_id,
                phash=int(self.phash[i]),
                width=int(self.sizes[i, 0]),
                height=int(self.sizes[i, 1]),
                format=str(self.formats[i]),
                vectors={layer: self.as_encoded(layer)[i] for layer in self.vectors},
            )
            for i, content_id in enumerate(self.content_ids.tolist())
        ]


def mistakes_of(images: Sequence[Embedded], layers: Sequence[str], *, label: Label, because: str) -> Mistakes:
    """Different images, one at least, of one label, as they are kept from now on."""
    units = {layer: normalise(np.stack([image.vectors[layer] for image in images])) for layer in layers}
    n = len(images)
    return Mistakes.of(
        fake=np.full(n, label == "fake"),
        vectors={layer: codes.astype(np.float32) for layer, (codes, _) in units.items()},
        norms={layer: norms for layer, (_, norms) in units.items()},
        content_ids=np.array([*(image.content_id for image in images), None], object)[:n],
        phash=np.array([image.phash for image in images], np.uint64),
        sizes=np.array([(image.width, image.height) for image in images], np.int64),
        formats=np.array([image.format for image in images]),
        because=np.full(n, because),
        kept_at=np.full(n, now()),
    )


def read_mistakes(snapshot: Snapshot) -> Mistakes:
    """Those that a generation keeps, the newest last; raises ``IndexCorrupt`` for a file that is none."""
    record = snapshot.manifest.mistakes
    if record is None:
        return _nothing(snapshot.manifest)
    path = mistakes_path(snapshot.folder, record)
    try:
        found = _from_bytes(snapshot.read(path), snapshot.manifest)
        if len(found) != record.rows:
            raise ValueError(f"{len(found)} mistakes, not {record.rows}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path) from error
    return found


def write_mistakes(folder: Path, mistakes: Mistakes) -> MistakesRecord | None:
    """Write them; they count once a manifest names them. ``None`` where there are none."""
    if not len(mistakes):
        return None
    data = _to_bytes(mistakes)
    record = MistakesRecord(len(mistakes), FileRecord(len(data), sha256_bytes(data)))
    (folder / MISTAKES).mkdir(exist_ok=True)
    write_bytes(mistakes_path(folder, record), data)
    return record


# ---------------------------------------------------------------- as bytes


def _nothing(manifest: Manifest) -> Mistakes:
    d = manifest.encoder.layers
    return Mistakes.of(
        fake=np.empty(0, bool),
        vectors={layer: np.empty((0, d[layer]), np.float32) for layer in manifest.layers},
        norms={layer: np.empty(0, np.float32) for layer in manifest.layers},
        because=np.empty(0, np.str_),
        kept_at=np.empty(0, np.str_),
    )


def _to_bytes(mistakes: Mistakes) -> bytes:
    ids = np.frombuffer(b"".join(mistakes.content_ids.tolist()), np.uint8)
    arrays: dict[str, np.ndarray] = {
        "fake": mistakes.fake.astype(np.uint8),
        "content_id": ids.reshape(-1, CONTENT_ID_BYTES),
        "phash": mistakes.phash,
        "size": mistakes.sizes,
        **{f"{layer}.unit": x.astype(np.float16) for layer, x in mistakes.vectors.items()},
        **{f"{layer}.norm": norms for layer, norms in mistakes.norms.items()},
    }
    texts = {name: getattr(mistakes, name).tolist() for name in _TEXTS}
    return arrays_to_bytes(arrays, {"format": _FORMAT, "version": _VERSION} | texts)


def _from_bytes(data: bytes, manifest: Manifest) -> Mistakes:
    """Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything that ``_to_bytes`` does not write."""
    arrays, about = arrays_from_bytes(data)
    if (about["format"], about["version"]) != (_FORMAT, _VERSION):
        raise ValueError(f"this is {about['format']!r}, version {about['version']!r}")
    n, d = len(arrays["fake"]), manifest.encoder.layers
    wanted: dict[str, tuple[Any, tuple[int, ...]]] = {
        "fake": (np.uint8, (n,)),
        "content_id": (np.uint8, (n, CONTENT_ID_BYTES)),
        "phash": (np.uint64, (n,)),
        "size": (np.int64, (n, 2)),
        **{f"{layer}.unit": (np.float16, (n, d[layer])) for layer in manifest.layers},
        **{f"{layer}.norm": (np.float32, (n,)) for layer in manifest.layers},
    }
    if {name: (array.dtype.type, array.shape) for name, array in arrays.items()} != wanted:
        raise ValueError("the arrays of mistakes do not fit together, or are of other layers")
    texts = {name: _texts(about[name], n, name) for name in _TEXTS}
    units = {layer: arrays[f"{layer}.unit"].astype(np.float32) for layer in manifest.layers}
    norms = {layer: arrays[f"{layer}.norm"] for layer in manifest.layers}
    ids = [row.tobytes() for row in arrays["content_id"]]
    _require_sound(arrays, units, norms, ids)
    return Mistakes.of(
        fake=arrays["fake"] == LABELS.index("fake"),
        vectors=units,
        norms=norms,
        content_ids=np.array([*ids, None], object)[:n],
        phash=arrays["phash"],
        sizes=arrays["size"],
        **texts,
    )


def _texts(given: Any, n: int, name: str) -> NDArray[np.str_]:
    if len(given) != n or [checked(text, name) for text in given] != given:
        raise ValueError(f"{name} holds what is no text of a mistake")
    return np.array(given, np.str_)


def _require_sound(
    arrays: Mapping[str, np.ndarray],
    units: Mapping[str, np.ndarray],
    norms: Mapping[str, np.ndarray],
    ids: Sequence[bytes],
) -> None:
    lengths = np.concatenate([np.linalg.norm(x, axis=1) for x in units.values()])
    before = np.concatenate([*norms.values()])
    if not (np.abs(lengths - 1) <= NORM_TOLERANCE).all() or not (np.isfinite(before) & (before > 0)).all():
        raise ValueError("a vector of a mistake is not finite or not unit norm")
    if len(set(ids)) != len(ids) or (arrays["fake"] > 1).any() or (arrays["size"] < 1).any():
        raise ValueError("a mistake is there twice, or has a label or a size that is none")
