"""The tour of ``rd demo``: a toy index of pictures from PyPI, and two lessons that turn its answers.

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
from retrieval_detect.encoders.base import default_layers
from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.registry import CLIP_ENCODER, OFFLINE_ENCODER, load_encoder
from retrieval_detect.encoders.remembered import RememberedEncoder
from retrieval_detect.errors import RdError, WeightsUnavailable
from retrieval_detect.images.sources import scan
from retrieval_detect.teach.build import Index
from retrieval_detect.types import FactFields, quiet
from retrieval_detect.verdicts import Verdict

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from retrieval_detect.encoders.base import Encoder

SIDE = 256
PAINTED, EVENING = "painted", "evening"
"""What is taught: the generator, for which a filter stands in, and a source of photographs."""
_QUALITY = 90
_BRUSH = 5
"""Side of the squares in which the filter takes the commonest value, in pixels."""
_TAUGHT, _ASKED = 5, 3

_PHOTOGRAPHS = ("interior_photos", "images")
_FAKES = ("comfyui_workflow_templates_media_image", "templates")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Which picture plays which part; paths of prepared files.

    ``photographs`` and ``fakes``, by family, are what the index begins with; ``asked``, of each label, were
    held back. Of each lesson, ``PAINTED`` and ``EVENING``, some are taught and others asked about.
    """

    photographs: Sequence[Path]
    fakes: Mapping[str, Sequence[Path]]
    asked: Mapping[str, Sequence[Path]]
    taught: Mapping[str, Sequence[Path]]
    lessons: Mapping[str, Sequence[Path]]

    @property
    def all(self) -> list[Path]:
        """Each once."""
        parts = (self.fakes, self.asked, self.taught, self.lessons)
        return [*self.photographs, *(path for part in parts for paths in part.values() for path in paths)]


def prepare(folder: Path) -> Pictures:
    """Write all pictures below ``folder`` as centre squares of 256 pixels, WebP at quality 90.

    In ``real`` and ``fake`` lie references, in ``ask`` what was held back, and a folder for each lesson.
    Raises ``RdError`` if the packages that ship them are not installed.
    """
    text = files("retrieval_detect").joinpath("_demo", "images.toml").read_text(encoding="utf-8")
    listed = tomllib.loads(text)
    photographs, templates = _folder(*_PHOTOGRAPHS), _folder(*_FAKES)
    kept, held, evening = (listed[part]["files"] for part in ("real", "held", EVENING))
    several = {family: of for family, of in listed["fakes"].items() if len(of) > 1}
    ask = folder / "ask"
    return Pictures(
        photographs=_written(photographs, kept, folder / "real" / "interiors"),
        fakes={
            family: _written(templates, of[:-1] if family in several else of, folder / "fake" / family)
            for family, of in listed["fakes"].items()
        },
        asked={
            "real": _written(photographs, held, ask / "photographs"),
            "fake": _written(templates, [of[-1] for of in several.values()], ask / "fakes"),
        },
        taught={
            PAINTED: _written(photographs, kept[:_TAUGHT], folder / PAINTED / "teach", painted=True),
            EVENING: _written(photographs, evening[1:], folder / EVENING / "teach"),
        },
        lessons={
            PAINTED: _written(photographs, held[:_ASKED], folder / PAINTED / "ask", painted=True),
            EVENING: _written(photographs, evening[:1], folder / EVENING / "ask"),
        },
    )


def _folder(package: str, folder: str) -> Traversable:
    try:
        return files(package).joinpath(folder)
    except ModuleNotFoundError as error:
        raise RdError(
            f"the sample pictures are not here: package {package.replace('_', '-')} is missing",
            hint="pip install 'retrieval-detect[demo]'",
        ) from error


def _written(source: Traversable, names: Sequence[str], folder: Path, *, painted: bool = False) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        path = folder / f"{Path(name).stem}.webp"
        path.write_bytes(one_form(source.joinpath(name).read_bytes(), painted=painted))
        paths.append(path)
    return paths


def one_form(data: bytes, *, painted: bool = False) -> bytes:
    """Any picture as centre square, 256 × 256, WebP q90, without colour profile or metadata.

    ``painted`` : as if painted, by a filter that stands in for a generator.
    """
    from PIL import Image, ImageFilter, ImageOps

    with Image.open(io.BytesIO(data)) as image:
        square = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
    if painted:
        square = square.filter(ImageFilter.ModeFilter(_BRUSH))
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

    index: Index

    def __init__(self, folder: Path) -> None:
        self.pictures = prepare(folder / "images")
        self._folder = folder
        self._encoder: Encoder = RememberedEncoder(_encoder())
        self.spec = self._encoder.spec

    def look(self, progress: Callable[[int], None] = quiet) -> None:
        """Embed every picture, which is what takes time; ``progress`` counts them."""
        for _ in embed(scan(self.pictures.all), self._encoder, layers=default_layers(self.spec)):
            progress(1)

    def build(self) -> None:
        """An index of the references."""
        images = self._folder / "images"
        real, fake = images / "real", images / "fake"
        self.index = Index.build(self._folder / "toy", real=real, fake=fake, encoder=self._encoder)

    def teach(self, lesson: str) -> None:
        """Add the references of a lesson."""
        facts = FactFields(label="fake", generator=lesson)
        if lesson == EVENING:
            facts = FactFields(label="real", source=lesson)
        self.index.add(list(self.pictures.taught[lesson]), encoder=self._encoder, device="cpu", **facts)

    def take_back(self, generator: str) -> None:
        """Remove the references of a generator."""
        rows = self.index.snapshot().scan(["row_id", "generator"]).to_pylist()
        self.index.remove([row["row_id"] for row in rows if row["generator"] == generator], device="cpu")

    def ask(self, paths: Sequence[Path]) -> list[Verdict]:
        """Judge pictures by the index as it is now."""
        detector = Detector.load(self.index.folder, encoder=self._encoder, device="cpu")
        return [verdict for verdict in detector.query_many(list(paths)) if isinstance(verdict, Verdict)]
