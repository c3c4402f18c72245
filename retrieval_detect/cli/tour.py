"""The tour of ``rd demo``: a toy index of pictures from PyPI, taught one generator family more.

Both classes are brought to one form first, so that the codec does not give the label away. What is
left, subject above all, still does: the numbers prove nothing.
"""

from __future__ import annotations

import io
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.registry import CLIP_ENCODER, OFFLINE_ENCODER, load_encoder
from retrieval_detect.encoders.remembered import RememberedEncoder
from retrieval_detect.errors import RdError, WeightsUnavailable
from retrieval_detect.images.sources import scan
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.plans import plan
from retrieval_detect.types import Facts, quiet
from retrieval_detect.verdicts import Verdict

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from retrieval_detect.encoders.base import Encoder

SIDE = 256
_QUALITY = 90
_HELD_ONE_IN = 3
_TAUGHT = 5

_PHOTOGRAPHS = ("interior_photos", "images")
_FAKES = ("comfyui_workflow_templates_media_image", "templates")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Which picture plays which part; paths of prepared files."""

    real: Sequence[Path]
    real_queries: Sequence[Path]
    fakes: Mapping[str, Sequence[Path]]
    fake_queries: Sequence[Path]
    newcomer: str
    taught: Sequence[Path]
    newcomer_queries: Sequence[Path]

    @property
    def all(self) -> list[Path]:
        """Each once."""
        references = [*self.real, *(path for paths in self.fakes.values() for path in paths), *self.taught]
        return [*references, *self.real_queries, *self.fake_queries, *self.newcomer_queries]


def prepare(folder: Path) -> Pictures:
    """Write all pictures below ``folder`` as centre squares of 256 pixels, WebP at quality 90.

    Raises ``RdError`` if the packages that ship them are not installed.
    """
    listed = tomllib.loads(
        files("retrieval_detect").joinpath("_demo", "images.toml").read_text(encoding="utf-8")
    )
    newcomer: str = listed["held_back_family"]
    photographs, templates = _folder(*_PHOTOGRAPHS), _folder(*_FAKES)
    real = _written(photographs, listed["real"]["files"], folder / "real" / "interiors")
    fakes = {
        family: _written(templates, names, folder / "fake" / family)
        for family, names in listed["fakes"].items()
    }
    new = fakes.pop(newcomer)
    return Pictures(
        real=[path for n, path in enumerate(real) if n % _HELD_ONE_IN],
        real_queries=real[::_HELD_ONE_IN],
        fakes={family: paths[:-1] if len(paths) > 1 else paths for family, paths in fakes.items()},
        fake_queries=[paths[-1] for paths in fakes.values() if len(paths) > 1],
        newcomer=newcomer,
        taught=[path for n, path in enumerate(new) if n % _HELD_ONE_IN][:_TAUGHT],
        newcomer_queries=new[::_HELD_ONE_IN],
    )


def _folder(package: str, folder: str) -> Traversable:
    try:
        return files(package).joinpath(folder)
    except ModuleNotFoundError as error:
        raise RdError(
            f"the sample pictures are not here: package {package.replace('_', '-')} is missing",
            hint="pip install 'retrieval-detect[demo]'",
        ) from error


def _written(source: Traversable, names: Sequence[str], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        path = folder / f"{Path(name).stem}.webp"
        path.write_bytes(one_form(source.joinpath(name).read_bytes()))
        paths.append(path)
    return paths


def one_form(data: bytes) -> bytes:
    """Any picture as centre square, 256 × 256, WebP q90, without colour profile or metadata."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as image:
        square = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    square.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def _encoder() -> Encoder:
    try:
        return load_encoder(CLIP_ENCODER, device="cpu")
    except WeightsUnavailable:
        return load_encoder(OFFLINE_ENCODER, device="cpu")


class Tour:
    """An index of the demo's references and what it says about the pictures held back.

    It sees with CLIP where its weights are in the user's cache, and else with an ImageNet classifier. What it
    has seen is remembered there, so that a second tour takes seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.pictures = prepare(folder / "images")
        self._encoder: Encoder = RememberedEncoder(_encoder())
        self.index = Index.create(folder / "toy", encoder=self._encoder)

    def look(self, progress: Callable[[int], None] = quiet) -> None:
        """Embed every picture, which is what takes time; ``progress`` counts them."""
        for _ in embed(scan(self.pictures.all), self._encoder, layers=self.index.snapshot().manifest.layers):
            progress(1)

    def build(self) -> None:
        """Store the references, all but the newcomer's."""
        references = [(self.pictures.real, Facts("real", source="interiors"))]
        references += [(paths, Facts("fake", generator=name)) for name, paths in self.pictures.fakes.items()]
        self._add(references)

    def teach(self) -> None:
        """Add some references of the family that was left out."""
        self._add([(self.pictures.taught, Facts("fake", generator=self.pictures.newcomer))])

    def ask(self, paths: Sequence[Path]) -> list[Verdict]:
        """Judge pictures by the index as it is now."""
        detector = Detector.load(self.index.folder, encoder=self._encoder, device="cpu")
        return [verdict for verdict in detector.query_many(paths) if isinstance(verdict, Verdict)]

    def _add(self, references: Sequence[tuple[Sequence[Path], Facts]]) -> None:
        inputs = ((item, facts) for paths, facts in references for item in scan(paths))
        self.index.apply(plan(inputs, self.index.snapshot()), encoder=self._encoder)
