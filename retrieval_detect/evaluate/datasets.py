"""Sets of labelled images to be measured on: folders, manifests, and the published layouts by name.

A set has columns, as the papers' tables have: of each a generator's fakes, and the photographs they are
held against. Photographs of no column in particular are held against every one. What a layout should
have and the folder lacks is listed in ``Dataset.missing``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_detect.errors import UsageError
from retrieval_detect.images.items import suffix_of
from retrieval_detect.images.lists import SUFFIXES, Columns, list_rows, listed, require_columns
from retrieval_detect.images.passed import left_out
from retrieval_detect.images.sources import is_image_name, scan
from retrieval_detect.names import spelling
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.types import ImageItem, Label

EVERY = ""
"""Column of photographs that all columns share."""
REAL_FOLDERS = frozenset({"0_real", "real", "nature", "n01440764"})
FAKE_FOLDERS = frozenset({"1_fake", "fake", "ai", "n01443537"})
"""Names that tell the label in the published sets; the last of each is CLIPping the Deception's."""
WINDOW = 4
"""Generators in one period of AI-GenBench."""
_DEPTHS = ("", "*/", "*/*/")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a set. ``name`` : generator of a fake, source of a photograph; empty = not known.

    ``column`` : the column it belongs to. ``released_at`` : of its generator, YYYY-MM-DD. ``quality`` :
    mean opinion of its quality.
    """

    item: ImageItem
    label: Label
    name: str = ""
    column: str = EVERY
    family: str = ""
    released_at: str = ""
    quality: float | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """``columns`` in the order of the paper's table. ``joint`` : group → columns that are one in the paper's
    mean. ``missing`` : columns that the layout has and the folder has not, or of which a label is absent.
    ``published`` : whether it is a paper's set, in which an image counts as often as it is listed.
    """

    name: str
    samples: tuple[Sample, ...]
    columns: tuple[str, ...]
    missing: tuple[str, ...] = ()
    joint: Mapping[str, tuple[str, ...]] | None = None
    published: bool = False

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True, slots=True)
class Column:
    """Where a published column lies. ``real`` : folder of its photographs where they lie apart."""

    name: str
    folder: str
    real: str = ""
    apart: bool = False
    """Whether it is shown but not in the paper's mean."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A published set: its columns, and a folder all images lie below (``val``), if any."""

    columns: tuple[Column, ...]
    within: str = ""
    joint: Mapping[str, tuple[str, ...]] | None = None


def _same(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, name) for name in names)


_DIFFUSION = ("ldm_200", "ldm_200_cfg", "ldm_100", "glide_100_27", "glide_50_27", "glide_100_10", "dalle")
_GLIDE, _LDM = ("glide_50_27", "glide_100_10", "glide_100_27"), ("ldm_100", "ldm_200", "ldm_200_cfg")
LAYOUTS: Mapping[str, Layout] = {
    # Ojha et al. 2023, dataset_paths.py; the photographs of seven columns are one folder.
    "ufd": Layout(
        (
            *_same("progan", "cyclegan", "biggan", "stylegan", "gaugan", "stargan", "deepfake"),
            Column("sitd", "seeingdark"),
            *_same("san", "crn", "imle"),
            Column("guided", "guided", "imagenet"),
            *(Column(name, name, "laion") for name in _DIFFUSION),
            Column("stylegan2", "stylegan2", apart=True),
        )
    ),
    "clipping": Layout(
        (
            *_same("progan", "biggan", "cyclegan", "eg3d", "gaugan", "stargan", "stylegan", "stylegan2"),
            *_same("stylegan3", "dalle2", *_GLIDE, "guided", *_LDM, "sd_512x512", "sdxl", "taming"),
            *_same("deepfake", "firefly", "midjourney_v5", "dalle3", "faceswap"),
        ),
        joint={"glide": _GLIDE, "ldm": _LDM},
    ),
    "genimage": Layout(
        (
            Column("midjourney", "Midjourney"),
            Column("sd_v1.4", "stable_diffusion_v_1_4"),
            Column("sd_v1.5", "stable_diffusion_v_1_5"),
            *(Column(name.lower(), name) for name in ("ADM", "glide", "wukong", "VQDM", "BigGAN")),
        ),
        within="val",
    ),
    "aigcdetectbenchmark": Layout(
        (
            *_same("progan", "stylegan", "biggan", "cyclegan", "stargan", "gaugan", "stylegan2"),
            *_same("whichfaceisreal"),
            *(Column(name.lower(), name) for name in ("ADM", "Glide", "Midjourney")),
            Column("sd_v1.4", "stable_diffusion_v_1_4"),
            Column("sd_v1.5", "stable_diffusion_v_1_5"),
            *(Column(name.lower(), name) for name in ("VQDM", "wukong", "DALLE2")),
            Column("sd_xl", "sd_xl", apart=True),
        )
    ),
}
NAMES = ("auto", *LAYOUTS, "ai-genbench", "agiqa")
"""What ``load`` can be told a folder is."""


def load(data: Path, layout: str = "auto") -> Dataset:
    """The images of ``data``: a folder, or a manifest (``images.lists``). No image is read.

    ``layout`` : of ``NAMES``; ``auto`` takes a file for a manifest, and a folder for ``real/`` and ``fake/``.
    Raises ``UsageError`` for what is neither.
    """
    if layout not in NAMES:
        raise UsageError(f"there is no layout {layout!r}", hint=f"Layouts: {', '.join(NAMES)}")
    if not data.exists():
        raise UsageError(f"'{data}' does not exist")
    if layout in LAYOUTS:
        found = _published(data, layout)
    elif layout == "agiqa":
        found = _opinions(data)
    elif layout == "ai-genbench":
        found = _by_window(_manifest(_manifest_in(data)))
    else:
        found = _tree(data) if data.is_dir() else _manifest(data)
    if not found.samples:
        raise UsageError(f"'{data}' has no image of layout {layout}", hint=_WHAT_TO_GIVE)
    return found


_WHAT_TO_GIVE = (
    "Give a folder with real/SOURCE/… and fake/GENERATOR/…, or a list (.csv, .jsonl, .parquet) with columns "
    f"path and label, or name the layout: --layout {'|'.join(LAYOUTS)}"
)


# ---------------------------------------------------------------- folders


def _tree(folder: Path) -> Dataset:
    samples = []
    for label in LABELS:
        if not (folder / label).is_dir():
            raise UsageError(f"'{folder}' has no folder {label}/", hint=_WHAT_TO_GIVE)
        for item in scan([folder / label]):
            name = spelling(item.relative.partition("/")[0]) if "/" in item.relative else ""
            samples.append(Sample(item, label, name, (name or "fake") if label == "fake" else EVERY))
    return _complete(folder.resolve().name, samples, _columns_of(samples))


def _published(folder: Path, name: str) -> Dataset:
    layout, samples = LAYOUTS[name], []
    shared: dict[str, list[ImageItem]] = {}
    for column in layout.columns:
        own = _below(folder, column.folder, layout.within)
        samples += [
            Sample(item, label, column.name if label == "fake" else column.folder, column.name)
            for label in LABELS
            for item in _of_label(own, label, alone="fake" if column.real else None)
        ]
        if column.real and own:
            if column.real not in shared:
                photographs = _below(folder, column.real, layout.within)
                shared[column.real] = list(_of_label(photographs, "real", alone="real"))
            samples += [Sample(item, "real", column.real, column.name) for item in shared[column.real]]
    found = _complete(name, samples, tuple(c.name for c in layout.columns), layout.joint)
    return replace(found, published=True)


def _below(folder: Path, name: str, within: str) -> list[ImageItem]:
    """Images of the folder called ``name``, wherever it lies up to three levels down."""
    found = (p for depth in _DEPTHS for p in sorted(folder.glob(depth + name)) if p.is_dir())
    place = next(found, None)
    if place is None or not any(is_image_name(path.name) for path in place.rglob("*")):
        return []
    items = list(scan([place]))
    return [item for item in items if not within or within in item.relative.split("/")]


def _of_label(items: Iterable[ImageItem], label: Label, *, alone: Label | None) -> Iterator[ImageItem]:
    """Images below a folder that says the label; without such folders all are of the label ``alone``."""
    parts = [(item, set(item.relative.split("/")[:-1])) for item in items]
    names = REAL_FOLDERS if label == "real" else FAKE_FOLDERS
    if alone == label and not any(folders & (REAL_FOLDERS | FAKE_FOLDERS) for _, folders in parts):
        yield from (item for item, _ in parts)
        return
    yield from (item for item, folders in parts if folders & names)


def apart(name: str) -> frozenset[str]:
    """Columns of a layout that the paper's mean leaves out."""
    return frozenset(c.name for c in LAYOUTS[name].columns if c.apart) if name in LAYOUTS else frozenset()


def _columns_of(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Columns of the fakes: by release where it is known, then by name."""
    released = {s.column: s.released_at for s in samples if s.label == "fake"}
    return tuple(sorted(released, key=lambda name: (released[name] or "9999", name)))


def _complete(
    name: str,
    samples: Sequence[Sample],
    columns: tuple[str, ...],
    joint: Mapping[str, tuple[str, ...]] | None = None,
) -> Dataset:
    """Leave out, and list, columns that lack a label."""
    counts = Counter((s.column, s.label) for s in samples)
    missing = tuple(
        column
        for column in columns
        if not counts[column, "fake"] or not (counts[column, "real"] or counts[EVERY, "real"])
    )
    kept = tuple(s for s in samples if s.column not in missing)
    return Dataset(name, kept, tuple(c for c in columns if c not in missing), missing, joint)


# ---------------------------------------------------------------- manifests


def _manifest_in(data: Path) -> Path:
    if data.is_file():
        return data
    found = sorted(p for p in data.iterdir() if suffix_of(p.name) in SUFFIXES and not left_out(p.name))
    if len(found) != 1:
        raise UsageError(
            f"'{data}' holds {len(found)} lists ({', '.join(SUFFIXES)})", hint="Name the manifest itself."
        )
    return found[0]


def _manifest(path: Path) -> Dataset:
    if suffix_of(path.name) not in SUFFIXES:
        raise UsageError(f"'{path}' is neither a folder nor a manifest", hint=_WHAT_TO_GIVE)
    rows, columns = listed(path), Columns()
    require_columns(path, rows[0][2], columns)
    samples = [_listed(item, where, row) for item, where, row in rows]
    return _complete(path.stem, samples, _columns_of(samples))


def _listed(item: ImageItem, where: str, row: dict[str, str]) -> Sample:
    label = Columns().label_of(row, where)
    released = row.get("released_at", "").strip()[:10]
    if released:
        _check_date(where, released)
    fake = label == "fake"
    name = spelling(row.get("generator" if fake else "source", ""))
    family = spelling(row.get("family", "")) if fake else ""
    return Sample(item, label, name, (name or "fake") if fake else EVERY, family, released if fake else "")


def _check_date(where: str, text: str) -> None:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{where}: released_at is {text!r}, not YYYY-MM-DD") from None


def _by_window(dataset: Dataset) -> Dataset:
    """Columns are periods: ``WINDOW`` generators each, in the order they were released.

    Pellegrini et al. 2025, "AI-GenBench", which trains and tests by such periods.
    """
    undated = {s.column for s in dataset.samples if s.label == "fake" and not s.released_at}
    if undated:
        raise UsageError(
            f"released_at is not known of {', '.join(sorted(undated)[:3])}",
            hint="AI-GenBench goes by date: give released_at of every generator in the manifest.",
        )
    place = {name: i // WINDOW for i, name in enumerate(dataset.columns)}
    dates = {s.column: s.released_at for s in dataset.samples if s.label == "fake"}
    first = {place[name]: dates[name] for name in reversed(dataset.columns)}
    title = {number: f"{number + 1}: from {first[number][:7]}" for number in first}
    samples = [
        s
        if s.label == "real"
        else Sample(s.item, s.label, s.name, title[place[s.column]], s.family, s.released_at)
        for s in dataset.samples
    ]
    return _complete("ai-genbench", samples, tuple(title[i] for i in sorted(title)))


# ---------------------------------------------------------------- quality

_OPINIONS = ("mos_quality", "mos", "score", "quality")
_PATHS = ("name", "path", "image", "filename")


def _opinions(data: Path) -> Dataset:
    """AGIQA-3K and its like: a CSV of file names with mean opinion scores, images beside or below it."""
    path = _manifest_in(data)
    rows = list_rows(path)
    names = [name for name in _PATHS if rows and name in rows[0]]
    scores = [name for name in _OPINIONS if rows and name in rows[0]]
    if not (names and scores):
        raise UsageError(
            f"{path} does not give opinions",
            hint="Columns wanted: name (or path), and mos_quality (or score).",
        )
    below = {item.relative.rpartition("/")[2]: item for item in scan([path.parent], skipped=Counter())}
    samples, missing = [], []
    for row in rows:
        item = below.get(row[names[0]].replace("\\", "/").rpartition("/")[2])
        if item is None:
            missing.append(row[names[0]])
        else:
            samples.append(Sample(item, "fake", "agiqa", "agiqa", quality=_number(path, row[scores[0]])))
    return Dataset(path.stem, tuple(samples), ("agiqa",), tuple(missing), published=True)


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{path}: {text!r} is no score") from None
