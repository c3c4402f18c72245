"""The shared images: which there are, which are held out, and what is computed once for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.evaluate.pixels import statistics
from retrieval_detect.images.decode import decode
from retrieval_detect.images.items import file_item
from retrieval_detect.types import Embedded, Facts, Failure, ImageItem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retrieval_detect.encoders.base import Encoder

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"
FOLD = 5
_HELD_OUT = 4
_TEACHING = (0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image with its label. ``place`` is its position in its folder, sorted by name.

    ``embedded`` : its vectors, as the pipeline of rd gives them. ``statistics`` : float32 (18,).
    """

    path: Path
    facts: Facts
    place: int
    embedded: Embedded
    statistics: NDArray[np.float32]

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


def load(
    data: Path,
    encoder: Encoder,
    *,
    per_folder: int | None,
    say: Callable[[str], None],
    layers: Sequence[str] = ("proj",),
) -> list[Sample]:
    """Every image below ``data``, embedded once; ``per_folder`` takes only the first of each folder."""
    found = list(_listed(data, per_folder))
    items = [file_item(path, path.name) for path, _, _ in found]
    say(f"embedding {len(items):,} images")
    embedded = [_usable(result) for result in embed(items, encoder, layers=layers)]
    say("pixel statistics")
    with ThreadPoolExecutor() as pool:
        pixels = list(pool.map(_statistics, items))
    return [
        Sample(path, facts, place, vectors, values)
        for (path, facts, place), vectors, values in zip(found, embedded, pixels, strict=True)
    ]


def _listed(data: Path, per_folder: int | None) -> list[tuple[Path, Facts, int]]:
    found = []
    for label in ("real", "fake"):
        for folder in sorted(path for path in (data / label).glob("*") if path.is_dir()):
            facts = Facts(label, source=folder.name) if label == "real" else Facts(label, folder.name)
            files = sorted(folder.glob("*.jpg"))[:per_folder]
            found += [(path, facts, place) for place, path in enumerate(files)]
    if {facts.label for _, facts, _ in found} != {"real", "fake"}:
        raise SystemExit(
            f"There are no images in {data}: this benchmark needs real/SOURCE/*.jpg and fake/GENERATOR/*.jpg "
            "there.\nThey are not part of the repository. Name another folder of that form with --data DIR."
        )
    return found


def _usable(result: Embedded | Failure) -> Embedded:
    if isinstance(result, Failure):
        raise SystemExit(f"{result.uri}: {result.message}")
    return result


def _statistics(item: ImageItem) -> NDArray[np.float32]:
    return statistics(decode(item.read()).rgb)


def lay_out(samples: Sequence[Sample], folder: Path) -> Path:
    """Links to the images below ``folder``, as real/SOURCE and fake/GENERATOR, for commands to read."""
    for sample in samples:
        link = folder / sample.facts.label / sample.name / sample.path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(sample.path.resolve())
    return folder
