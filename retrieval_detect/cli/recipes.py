"""Recipes: what an index is made of, as TOML that can be reviewed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from retrieval_detect.cli.settings import unknown_key
from retrieval_detect.errors import BadName, ConfigError
from retrieval_detect.images.lists import Columns
from retrieval_detect.names import NAMED, checked, named
from retrieval_detect.texts import read_toml
from retrieval_detect.types import LABELS, VIEW_KINDS, Facts

_LAYER = re.compile(r"proj|pre|block\d{2}|heads\d{2}")
_FACTS = frozenset({"label", *NAMED})
_GENERATOR_FACTS = frozenset({"family", "released_at"})


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """Images of one label. Names that ``facts`` leaves open come from sub-folders.

    With ``category_folders`` the folders below these (the first, where the name is given) say what images
    show.
    With ``columns`` the paths are lists that say it row by row (``images.lists``); ``facts`` are what else is
    known of all, but for their label. Else ``paths`` are whatever ``images.sources.scan`` takes.
    ``family`` and ``released_at`` (YYYY-MM-DD) describe the generator.
    """

    paths: tuple[str, ...]
    facts: Facts
    family: str = ""
    released_at: str = ""
    category_folders: bool = False
    columns: Columns | None = None

    def __post_init__(self) -> None:
        if self.category_folders and self.facts.category:
            raise ConfigError(
                f"all images show {self.facts.category!r}, and folders are to say what they show",
                hint="Give the category, or leave it to the folders.",
            )


@dataclass(frozen=True, slots=True)
class Recipe:
    """An index to be built: its name, its encoder's, the layers and views to keep, the references.

    Without ``layers`` it keeps those that are the encoder's default.
    """

    references: tuple[ReferenceSet, ...]
    name: str = ""
    encoder: str = ""
    layers: tuple[str, ...] = ()
    views: tuple[str, ...] = ()


def parts_of(text: str | None) -> tuple[str, ...]:
    """``"a, b,a"`` → ``("a", "b")``; nothing is no parts."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, (text or "").split(",")))))


def parse_layers(text: str, *, where: str = "--layers") -> tuple[str, ...]:
    """``"proj,block12"`` → ``("proj", "block12")``.

    Raises ``ConfigError`` naming ``where`` for names that no layer can have.
    """
    layers = parts_of(text)
    wrong = [layer for layer in layers if not _LAYER.fullmatch(layer)]
    if wrong or not layers:
        raise ConfigError(
            f"{where}: {wrong[0] if wrong else text!r} is not the name of a layer",
            hint="Layers are proj, pre, and blockNN for the CLS token after block NN, joined by commas.",
        )
    return layers


def parse_views(text: str, *, where: str = "--views") -> tuple[str, ...]:
    """``"jpeg,crops"`` → ``("jpeg", "crops")``; empty text is no views.

    Raises ``ConfigError`` naming ``where`` for kinds of view that there are not.
    """
    kinds = parts_of(text)
    for kind in kinds:
        if kind not in VIEW_KINDS:
            raise ConfigError(
                f"{where}: {kind!r} is not a kind of view",
                hint=f"Views are {', '.join(VIEW_KINDS)}, joined by commas.",
            )
    return kinds


def check_date(text: str, *, where: str = "released_at") -> str:
    """A date as YYYY-MM-DD, or empty; raises ``ConfigError`` naming ``where`` for anything else."""
    try:
        if text and date.fromisoformat(text).isoformat() != text:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is not a date", hint="Write it as YYYY-MM-DD.") from None
    return text


def find_recipe(name: str) -> Path:
    """A recipe by path, or by name from ``index/recipes`` here or as shipped with rd."""
    tracked = Path("index") / "recipes"
    shipped = Path(str(files("retrieval_detect"))) / "_recipes"
    candidates = [Path(name), tracked / f"{name}.toml", shipped / f"{name}.toml"]
    for path in candidates:
        if path.is_file():
            return path
    if Path(name).is_dir():
        raise ConfigError(
            f"{name} is a folder, not a recipe",
            hint=f"Say what its images are: --real {name} or --fake {name}",
        )
    known = sorted({path.stem for folder in (tracked, shipped) for path in folder.glob("*.toml")})
    raise ConfigError(
        f"there is no recipe {name!r}", hint=f"Known: {', '.join(known) or 'none'}; or give a file."
    )


def read_recipe(path: Path, *, root: Path = Path()) -> Recipe:
    """Read and check a recipe; its relative paths are taken below ``root``.

    Raises ``ConfigError`` naming the file and the key.
    """
    document = read_toml(path)
    known = {f.name for f in fields(Recipe)}
    for key in document:
        if key not in known:
            raise unknown_key(key, known, where=str(path))
    sets = document.get("references")
    if not isinstance(sets, list) or not sets:
        raise ConfigError(
            f"{path}: it names no references", hint="Add a [[references]] table with label and paths."
        )
    where = str(path)
    layers = _texts(document["layers"], "layers", where) if "layers" in document else ()
    views = _texts(document["views"], "views", where) if "views" in document else ()
    return Recipe(
        tuple(
            _reference_set(table, root, f"{path}, references {n}") for n, table in enumerate(sets, start=1)
        ),
        _text(document, "name", where),
        _text(document, "encoder", where),
        parse_layers(",".join(layers), where=where) if layers else (),
        parse_views(",".join(views), where=where),
    )


def _reference_set(table: Any, root: Path, where: str) -> ReferenceSet:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: this must be a table")
    known = _FACTS | _GENERATOR_FACTS | {"paths", "category_folders", "columns"}
    for key in table:
        if key not in known:
            raise unknown_key(key, known, where=where)
    if "columns" in table:
        return _listed_set(table, root, where)
    if table.get("label") not in LABELS:
        raise ConfigError(f"{where}: label must be real or fake, not {table.get('label')!r}")
    paths = _texts(table.get("paths"), "paths", where)
    texts = {key: _text(table, key, where) for key in _FACTS if key in table}
    try:
        facts, family = named(Facts(**texts)), checked(_text(table, "family", where), "family")  # type: ignore[arg-type]
    except BadName as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    if facts.label == "real" and (facts.generator or family or table.get("released_at")):
        raise ConfigError(f"{where}: a photograph has no generator, family or released_at")
    released = check_date(_text(table, "released_at", where), where=f"{where}, released_at")
    by_folder = table.get("category_folders", False)
    if not isinstance(by_folder, bool):
        raise ConfigError(f"{where}: category_folders must be true or false, not {by_folder!r}")
    if by_folder and facts.category:
        raise ConfigError(f"{where}: give category, or category_folders, not both")
    return ReferenceSet(tuple(str(root / path) for path in paths), facts, family, released, by_folder)


def _listed_set(table: Mapping[str, Any], root: Path, where: str) -> ReferenceSet:
    """References of lists that say themselves what each is."""
    known, columns = {f.name for f in fields(Columns)}, table["columns"]
    if not isinstance(columns, dict):
        raise ConfigError(f"{where}: columns must be a table: columns = {{ label = 'label' }}")
    for key in columns:
        if key not in known:
            raise unknown_key(key, known, where=f"{where}, columns")
    if beside := sorted(table.keys() - {"paths", "columns"}):
        raise ConfigError(f"{where}: {beside[0]} is said by the list itself, row by row")
    paths = tuple(str(root / path) for path in _texts(table.get("paths"), "paths", where))
    said = {key: _text(columns, key, where) for key in columns}
    return ReferenceSet(paths, Facts("real"), columns=Columns(**said))


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {key} must be text, not {value!r}")
    return value


def _texts(value: Any, key: str, where: str) -> Sequence[str]:
    if not isinstance(value, list) or not value or not all(isinstance(part, str) and part for part in value):
        raise ConfigError(f"{where}: {key} must be a list of texts, not {value!r}")
    return value
