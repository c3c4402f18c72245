"""Settings: a flag wins over an ``RD_*`` variable, that over ``rd.toml``, that over the default.

``rd.toml`` (or the table ``[tool.retrieval-detect]`` of ``pyproject.toml``) is looked for in the
working folder and those above it; the first one found counts alone. Every value remembers where it
came from, so that ``rd doctor`` can say why rd behaves as it does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from retrieval_detect.errors import ConfigError
from retrieval_detect.store.indexes import default_home, is_path, resolved
from retrieval_detect.texts import read_toml
from retrieval_detect.verdicts import PHOTOGRAPHS, Photographs

FORMATS = ("human", "json", "jsonl", "csv", "quiet")
DEFAULT = "default"
"""Name of the index that is used when none is named; also the origin of a value nobody set."""

_TABLE = "retrieval-detect"
_SET = "set"
_LARGEST_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What commands can be told from outside. ``None`` = whoever uses the value chooses.

    ``index`` is a name below the home or a path (see ``index_path``). ``origins`` says for each
    value that was set where: a flag, a variable or a file. ``set`` : table ``[set]`` of the file, for names
    of ``--set`` that are no settings of every command.
    """

    index: str = DEFAULT
    home: Path | None = None
    device: str = "auto"
    encoder: str = "ViT-L-14:openai"
    encoder_weights: Path | None = None
    offline: bool = False
    method: str = "density"
    projection: str | None = None
    k: int | None = None
    photographs: Photographs = "new"
    batch_size: int | None = None
    workers: int | None = None
    format: str = "human"
    origins: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """Where the value of ``key`` was set, or ``"default"``."""
        return self.origins.get(key, DEFAULT)


# ---------------------------------------------------------------- reading single values


def _text(value: Any, _base: Path) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("text")


def _index(value: Any, base: Path) -> str:
    text = _text(value, base)
    return str(_path(text, base).absolute()) if is_path(text) else text


def _path(value: Any, base: Path) -> Path:
    return base / Path(_text(value, base)).expanduser()


def _count(value: Any, _base: Path) -> int:
    if not isinstance(value, bool) and re.fullmatch(r"0*[1-9][0-9]*", str(value)):
        return int(value)
    raise ValueError("a whole number above 0")


def _size(value: Any, base: Path) -> int:
    size = _count(value, base)
    if size > _LARGEST_SIZE:
        raise ValueError(f"at most {_LARGEST_SIZE:,}")
    return size


def _switch(value: Any, _base: Path) -> bool:
    word = str(value).lower()
    if word in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        return word in ("1", "true", "yes", "on")
    raise ValueError("true or false")


def _device(value: Any, _base: Path) -> str:
    if isinstance(value, str) and re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        return value
    raise ValueError("auto, cpu, cuda or cuda:N")


def _photographs(value: Any, _base: Path) -> Photographs:
    for known in PHOTOGRAPHS:
        if value == known:
            return known
    raise ValueError(" or ".join(PHOTOGRAPHS))


def _format(value: Any, _base: Path) -> str:
    if value in FORMATS:
        return str(value)
    raise ValueError(f"one of {', '.join(FORMATS)}")


_READERS: Mapping[str, Callable[[Any, Path], Any]] = {
    "index": _index,
    "home": _path,
    "device": _device,
    "encoder": _text,
    "encoder_weights": _path,
    "offline": _switch,
    "method": _text,
    "projection": _text,
    "k": _count,
    "photographs": _photographs,
    "batch_size": _size,
    "workers": _size,
    "format": _format,
}

SETTING_NAMES = tuple(f.name for f in fields(Settings) if f.name not in ("origins", "set"))
BY_SET = frozenset({"projection", "k", "encoder_weights", "batch_size", "workers"})
"""Settings that have no flag of their own: ``--set NAME=VALUE``."""


# ---------------------------------------------------------------- the sources, weakest first


class _Given(NamedTuple):
    key: str
    value: Any
    origin: str
    base: Path = Path()


def load_settings(flags: Mapping[str, Any] | None = None, *, file: Path | None = None) -> Settings:
    """Gather the settings of one run.

    Parameters
    ----------
    flags : what the command line said, by the names of ``Settings``; other names are ignored.
    file : the file given by ``--config``; without it the nearest ``rd.toml`` is used, if any.

    Raises
    ------
    ConfigError
        A file cannot be read, a key is unknown, or a value is of the wrong kind.
    """
    values: dict[str, Any] = {}
    named: dict[str, Any] = {}
    origins: dict[str, str] = {}
    flagged = [
        _Given(key, value, f"--set {_spelt(key)}" if key in BY_SET else f"--{_spelt(key)}")
        for key in SETTING_NAMES
        if (value := (flags or {}).get(key)) is not None
    ]
    environment = [
        _Given(key, text, variable(key)) for key in SETTING_NAMES if (text := os.environ.get(variable(key)))
    ]
    for key, value, origin, base in (*_from_file(file), *environment, *flagged):
        if key not in SETTING_NAMES:
            named[key] = value
            continue
        try:
            values[key] = _READERS[key](value, base)
        except ValueError as error:
            raise ConfigError(f"{origin}: {_spelt(key)} must be {error}, not {value!r}") from error
        origins[key] = origin
    return Settings(**values, origins=origins, set=named)


def variable(key: str) -> str:
    """The environment variable of a setting: ``batch_size`` → ``RD_BATCH_SIZE``."""
    return f"RD_{key.upper()}"


def _spelt(key: str) -> str:
    return key.replace("_", "-")


def _from_file(file: Path | None) -> Iterator[_Given]:
    path, table = (file, _table_of(file) or {}) if file else _nearest_table()
    for name, value in _flat(table, where=str(path)):
        key = name.replace("-", "_")
        if key not in SETTING_NAMES and name not in table.get(_SET, {}):
            raise unknown_key(name, map(_spelt, SETTING_NAMES), where=str(path))
        yield _Given(key, value, str(path), path.parent)


def _flat(table: Mapping[str, Any], *, where: str) -> Iterator[tuple[str, Any]]:
    """Keys and values of a file, those of its table ``[set]`` among them."""
    for name, value in table.items():
        if name != _SET:
            yield name, value
        elif isinstance(value, Mapping):
            yield from value.items()
        else:
            raise ConfigError(f"{where}: set must be a table", hint="Write [set], and NAME = VALUE below it.")


def _nearest_table() -> tuple[Path, Mapping[str, Any]]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        for path in (folder / "rd.toml", folder / "pyproject.toml"):
            if path.is_file() and (table := _table_of(path)) is not None:
                return path, table
    return here, {}


def _table_of(path: Path) -> Mapping[str, Any] | None:
    document = read_toml(path)
    if path.name != "pyproject.toml":
        return document
    tools = document.get("tool")
    return tools.get(_TABLE) if isinstance(tools, dict) else None


def unknown_key(key: str, known: Iterable[str], *, where: str) -> ConfigError:
    """The error for a key that nobody reads, with the likely one meant or all there are."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(key, names, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(names)}"
    return ConfigError(f"{where}: unknown key {key!r}", hint=hint)


# ---------------------------------------------------------------- where indexes live


def index_home(settings: Settings) -> Path:
    """The folder of named indexes: as set, else ``default_home``."""
    return default_home() if settings.home is None else settings.home


def index_path(settings: Settings) -> Path:
    """The folder of the index in use; it need not exist. See ``store.indexes.resolved``."""
    return resolved(settings.index, index_home(settings))
