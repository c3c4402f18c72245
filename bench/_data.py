"""The shared images: which there are, which are held out, their vectors, and indexes made of them.

Vectors are read from the user's cache, where ``rd eval`` keeps them too: an image is embedded once a machine,
whatever benchmark asks first, in all layers that its encoder gives.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bench._frame import say as say_it
from retrieval_detect.encoders.base import default_layers
from retrieval_detect.encoders.canaries import canary_vectors
from retrieval_detect.encoders.registry import OFFLINE_ENCODER
from retrieval_detect.evaluate.cache import Cache, content_ids, user_folder
from retrieval_detect.images.chains import with_numbers
from retrieval_detect.images.items import file_item
from retrieval_detect.images.sources import is_image_name
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.types import ORIGINAL_VIEW, Embedded, Facts, Failure

if TYPE_CHECKING:
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.images.chains import Chain
    from retrieval_detect.types import Float32

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"
ORDER = ("stylegan2_faces", "sd1_diffusiondb", "midjourney_shoes", "dalle_mini", "latent_diffusion")
"""Its generators, oldest first."""
FOLD = 5
_HELD_OUT = 4
_TEACHING = (0, 1)


def add_data(parser: argparse.ArgumentParser) -> None:
    """``--data``, ``--encoder`` (once for each that is measured) and ``--images``."""
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="Folder with real/SOURCE and fake/GENERATOR."
    )
    parser.add_argument(
        "--encoder",
        action="append",
        dest="encoders",
        metavar="NAME",
        help=f"Measure this one (default: {OFFLINE_ENCODER}); several stand side by side in one table.",
    )
    parser.add_argument(
        "--images", type=int, metavar="N", help="The first N of each folder: to try it out; no number counts."
    )


def encoders_of(options: argparse.Namespace) -> list[str]:
    """The encoders asked for."""
    return options.encoders or [OFFLINE_ENCODER]


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder, in which rd also remembers what it would remember in the user's cache."""
    before = os.environ.get("RD_CACHE")
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        os.environ["RD_CACHE"] = str(Path(folder) / "cache")
        try:
            yield Path(folder)
        finally:
            del os.environ["RD_CACHE"]
            if before is not None:
                os.environ["RD_CACHE"] = before


# ---------------------------------------------------------------- images


@dataclass(frozen=True, slots=True)
class Listed:
    """One image with its label. ``place`` is its position in its folder, sorted by name."""

    path: Path
    facts: Facts
    place: int

    @property
    def fake(self) -> bool:
        """Whether a generator made it."""
        return self.facts.label == "fake"

    @property
    def name(self) -> str:
        """Its generator or source."""
        return self.facts.generator if self.fake else self.facts.source

    @property
    def held(self) -> bool:
        """Every fifth image of a folder: never a reference, only asked about."""
        return self.place % FOLD == _HELD_OUT

    @property
    def teaching(self) -> bool:
        """Two of every five: what a generator that was left out may be taught with."""
        return self.place % FOLD in _TEACHING


@dataclass(frozen=True, slots=True, eq=False)
class Sample(Listed):
    """``embedded`` : its vectors, as the network gave them up to the rounding of what is stored."""

    embedded: Embedded


def listed(data: Path, per_folder: int | None = None) -> list[Listed]:
    """Every image below ``data``; ``per_folder`` takes only the first of each folder."""
    found = []
    for label in ("real", "fake"):
        for folder in sorted(path for path in (data / label).glob("*") if path.is_dir()):
            facts = Facts(label, source=folder.name) if label == "real" else Facts(label, folder.name)
            files = sorted(path for path in folder.rglob("*") if is_image_name(path.name))[:per_folder]
            found += [Listed(path, facts, place) for place, path in enumerate(files)]
    if {image.facts.label for image in found} != {"real", "fake"}:
        raise SystemExit(
            f"There are no images in {data}: this benchmark needs real/SOURCE and fake/GENERATOR there.\n"
            "They are not part of the repository. Name another folder of that form with --data DIR; "
            "bench.accuracy asks an index of yours about a published set with --index."
        )
    return found


# ---------------------------------------------------------------- vectors


@dataclass(frozen=True, eq=False)
class Embeddings:
    """All images, with vectors of some ``layers`` of an encoder."""

    encoder: Encoder
    layers: tuple[str, ...]
    samples: list[Sample]

    @cached_property
    def _canaries(self) -> dict[str, Float32]:
        return canary_vectors(self.encoder, self.layers)

    def index(self, folder: Path, samples: Sequence[Sample]) -> Store:
        """A new index that holds ``samples`` and searches their vectors as stored."""
        store = Store.create(folder, self.encoder.spec, canaries=self._canaries)
        teach(store, samples)
        return store

    def after(self, samples: Sequence[Sample], chain: Chain) -> list[Sample]:
        """``samples`` after the steps of a chain, each named as its view.

        Their other facts, hash and size among them, stay those of the images as they are.
        """
        items = {sample.embedded.content_id: sample.embedded.item for sample in samples}
        rows, failures = _cache(self.encoder, self.layers).rows(items, chain)
        for failure in failures:
            _usable(failure)
        return [_viewed(sample, chain, rows[sample.embedded.content_id].vectors) for sample in samples]

    def statistics(self) -> dict[bytes, Float32]:
        """``evaluate.pixels.statistics`` by content id, float32 (18,)."""
        items = {sample.embedded.content_id: sample.embedded.item for sample in self.samples}
        return _cache(self.encoder, self.layers).statistics(items)


def embedded(
    encoder: Encoder,
    layers: Sequence[str] = (),
    *,
    data: Path = DEFAULT_DATA,
    images: int | None = None,
    say: Callable[[str], None] = say_it,
) -> Embeddings:
    """Vectors of the images below ``data`` (the first ``images`` of each folder), from the user's cache.

    ``layers`` : none is those that a new index stores. What is not there is embedded, in all layers of the
    encoder, and kept.
    """
    layers = layers or default_layers(encoder.spec)
    found = listed(data, images)
    items = [file_item(image.path, image.path.name) for image in found]
    say(f"vectors of {len(items):,} images by {encoder.spec.name}")
    identities = [_usable(identity) for identity in content_ids(items)]
    rows, failures = _cache(encoder, layers).rows(dict(zip(identities, items, strict=True)))
    for failure in failures:
        _usable(failure)
    samples = []
    for image, item, identity in zip(found, items, identities, strict=True):
        row = rows[identity]
        facts = (row.phash, row.width, row.height, row.format, row.vectors)
        samples.append(Sample(image.path, image.facts, image.place, Embedded(item, identity, *facts)))
    return Embeddings(encoder, tuple(layers), samples)


def _viewed(sample: Sample, chain: Chain, vectors: Mapping[str, Float32]) -> Sample:
    image = sample.embedded
    view = "+".join(with_numbers(chain, image.content_id, (image.width, image.height)))
    return replace(sample, embedded=replace(image, view=view or ORIGINAL_VIEW, vectors=vectors))


def _cache(encoder: Encoder, layers: Sequence[str]) -> Cache:
    return Cache(user_folder(), encoder.spec, lambda: encoder, layers, kept=tuple(encoder.spec.layers))


def _usable(found: bytes | Failure) -> bytes:
    if isinstance(found, Failure):
        raise SystemExit(f"{found.uri}: {found.message}")
    return found


# ---------------------------------------------------------------- indexes


def teach(store: Store, samples: Sequence[Sample]) -> None:
    """Commit ``samples`` as one addition: what ``rd bank add`` does once images are embedded.

    Views of an image (``Embeddings.after``) come after the image itself.
    """
    unique = {(sample.embedded.content_id, sample.embedded.view): sample for sample in samples}
    with store.writer() as writer:
        staging = writer.staging()
        staging.add(sample.embedded for sample in unique.values())
        rows = [NewRow(identity, str(s.path), s.facts, view) for (identity, view), s in unique.items()]
        writer.add(Addition(rows), staging)


def lay_out(samples: Sequence[Listed], folder: Path) -> Path:
    """Links to the images below ``folder``, as real/SOURCE and fake/GENERATOR, for commands to read."""
    for sample in samples:
        link = folder / sample.facts.label / sample.name / sample.path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(sample.path.resolve())
    return folder
