"""Images of a set as vectors and as pixel statistics: computed once, kept on disk, by content.

Vectors lie in the exchange format (``rd embed`` writes it too), a folder for each encoder, set of layers and
chain of changes; a layer is found in every set that holds it. An interrupted run loses at most one file
of ``_AT_ONCE`` images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain as chained
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from retrieval_detect.encoders.pipeline import embed_views
from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.evaluate.pixels import statistics
from retrieval_detect.files import sha256_bytes, user_cache, write_atomically
from retrieval_detect.images.chains import rendered, with_numbers
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.items import attempted
from retrieval_detect.images.labelled import pixels
from retrieval_detect.store.exchange import EmbeddingsFile, write_embeddings
from retrieval_detect.types import ORIGINAL_VIEW, Embedded, Failure, quiet

if TYPE_CHECKING:
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.images.chains import Chain
    from retrieval_detect.types import EncoderSpec, Float32, ImageItem

_AT_ONCE = 256
_SMALLEST = 6
"""Pixels a side that statistics need."""

T = TypeVar("T")
Progress: TypeAlias = Callable[[int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One image of the cache. ``vectors`` : layer → float32 (d,), as the network gave them."""

    phash: int
    width: int
    height: int
    format: str
    vectors: Mapping[str, Float32]


def user_folder() -> Path:
    """Where embeddings are kept, if no other place is named."""
    return user_cache() / "embeddings"


def content_ids(items: Sequence[ImageItem], *, progress: Progress = quiet) -> list[bytes | Failure]:
    """The content id of each file, or why it cannot be read."""
    found = []
    with ThreadPoolExecutor() as pool:
        for result in pool.map(lambda item: attempted(item, content_id), items):
            progress(1)
            found.append(result)
    return found


class Cache:
    """What is known of images, by content id. ``encoder`` is asked for only if something is missing.

    ``layers`` : those that are given. ``kept`` : those that are embedded and kept, the same if empty.
    """

    def __init__(
        self,
        folder: Path,
        spec: EncoderSpec,
        encoder: Callable[[], Encoder],
        layers: Sequence[str],
        *,
        kept: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._encoder = encoder
        self._layers = tuple(layers)
        self._kept = tuple(kept) or self._layers

    # ------------------------------------------------------------ vectors

    def rows(
        self, items: Mapping[bytes, ImageItem], chain: Chain = (), *, progress: Progress = quiet
    ) -> tuple[dict[bytes, Row], list[Failure]]:
        """Embed what is not there yet; content id → row, and what could not be used.

        ``items`` : content id → where the image is, each once.
        """
        known = self._stored(chain, set(items))
        progress(len(known))
        missing = [identity for identity in items if identity not in known]
        failures: list[Failure] = []
        if missing:
            folder = self._of_encoder / sha256_bytes("\0".join(self._kept).encode())[:8] / _named(chain)
            folder.mkdir(parents=True, exist_ok=True)
            results = embed_views(
                (items[identity] for identity in missing),
                self._encoder(),
                layers=self._kept,
                views=partial(_after, chain),
            )
            for batch in _batches(chained.from_iterable(results)):
                failures += [result for result in batch if isinstance(result, Failure)]
                good = [result for result in batch if isinstance(result, Embedded)]
                known |= self._keep(folder, good)
                progress(len(batch))
        return {identity: row for identity, row in known.items() if identity in items}, failures

    @property
    def _of_encoder(self) -> Path:
        return self._folder / self._spec.fingerprint[:16]

    def _keep(self, folder: Path, good: Sequence[Embedded]) -> dict[bytes, Row]:
        """Write, and read back: so that a second run sees the very numbers of the first."""
        if not good:
            return {}
        name = sha256_bytes(b"".join(row.content_id for row in good))[:16]
        path = folder / f"{name}.parquet"
        write_embeddings(path, good, spec=self._spec, layers=self._kept)
        return dict(self._read(path))

    def _stored(self, chain: Chain, wanted: set[bytes]) -> dict[bytes, Row]:
        found: dict[bytes, Row] = {}
        for path in sorted(self._of_encoder.glob(f"*/{_named(chain)}/*.parquet")):
            if not wanted <= found.keys():
                found |= {identity: row for identity, row in self._read(path) if identity in wanted}
        return found

    def _read(self, path: Path) -> Iterator[tuple[bytes, Row]]:
        file = EmbeddingsFile(path)
        if not set(self._layers) <= file.layers:
            return
        file.require(self._spec, self._layers)
        for rows in file.rows(range(len(file.row_groups)), self._layers, at_once=4096):
            sizes = zip(rows.phash.tolist(), rows.width.tolist(), rows.height.tolist(), strict=True)
            for i, (identity, facts) in enumerate(zip(rows.content_ids.to_pylist(), sizes, strict=True)):
                if i not in rows.wrong:
                    vectors = {layer: x[i] for layer, x in rows.vectors.items()}
                    yield identity, Row(*facts, rows.formats[i], vectors)

    # ------------------------------------------------------------ statistics

    def statistics(
        self, items: Mapping[bytes, ImageItem], chain: Chain = (), *, progress: Progress = quiet
    ) -> dict[bytes, Float32]:
        """``pixels.statistics`` of the images that can be read, by content id: float32 (18,) each."""
        folder = self._folder / "pixels" / _named(chain)
        known: dict[bytes, Float32] = {}
        for path in sorted(folder.glob("*.npz")):
            known |= {i: x for i, x in _read_statistics(path) if i in items}
        progress(len(known))
        missing = [identity for identity in items if identity not in known]
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:
            for batch in _batches(iter(missing)):
                seen = pool.map(lambda identity: _statistics(items[identity], chain), batch)
                found = {i: x for i, x in zip(batch, seen, strict=True) if x is not None}
                _write_statistics(folder, found)
                known |= found
                progress(len(batch))
        return known


def _after(chain: Chain, identity: bytes, width: int, height: int) -> list[str]:
    """The view that a chain makes of an image: a ``Chooser`` of one."""
    return ["+".join(with_numbers(chain, identity, (width, height))) or ORIGINAL_VIEW]


def _named(chain: Chain) -> str:
    return "+".join(chain) or "original"


def _batches(values: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(values, _AT_ONCE)):
        yield batch


def _statistics(item: ImageItem, chain: Chain) -> Float32 | None:
    try:
        rgb = rendered(pixels(item), chain)
    except ImageError:
        return None
    return statistics(rgb) if min(rgb.shape[:2]) >= _SMALLEST else None


def _write_statistics(folder: Path, found: Mapping[bytes, Float32]) -> None:
    if not found:
        return
    identities = np.frombuffer(b"".join(found), np.uint8).reshape(len(found), -1)
    path = folder / f"{sha256_bytes(b''.join(found))[:16]}.npz"
    write_atomically(path, lambda file: np.savez(file, identities=identities, values=[*found.values()]))


def _read_statistics(path: Path) -> Iterator[tuple[bytes, Float32]]:
    try:
        with np.load(path, allow_pickle=False) as data:
            identities, values = data["identities"], data["values"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{path} is no file of pixel statistics", hint="Delete it; it is made anew."
        ) from error
    yield from ((row.tobytes(), x) for row, x in zip(identities, values, strict=True))
