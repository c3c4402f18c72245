"""Where indexes lie: by name below a home, or by path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from retrieval_detect.errors import IndexNotFound, UsageError
from retrieval_detect.store.layout import CURRENT

_RESERVED_NAMES = frozenset({"recipes"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def default_home() -> Path:
    """The folder of named indexes: ``./index`` if it is there, else the user's data folder."""
    if Path("index").is_dir():
        return Path("index")
    from platformdirs import user_data_path

    return user_data_path("retrieval-detect", appauthor=False) / "index"


def resolved(value: str, home: Path) -> Path:
    """The folder of the index that ``value`` names; it need not exist.

    A value with a path separator, or naming a folder that holds an index, is a path; anything else
    is the name of an index below ``home``. A folder that merely has the same name is not taken for
    one: pictures in ``./default`` do not hide the index ``default``. Raises ``UsageError`` for what
    can be neither.
    """
    if is_path(value) or is_index(Path(value)):
        return Path(value)
    if _NAME.fullmatch(value) and value not in _RESERVED_NAMES:
        return home / value
    raise UsageError(
        f"{value!r} cannot name an index",
        hint="Names are letters, digits, '.', '_' and '-' and not 'recipes'; ./NAME means a folder here.",
    )


def located(index: str | Path) -> Path:
    """The folder of an index as callers give it: a ``Path`` is one, text is what ``resolved`` makes of it.

    Raises ``IndexNotFound`` for a name that no index has, and ``UsageError`` for what is none.
    """
    if isinstance(index, Path):
        return index
    home = default_home()
    folder = resolved(index, home)
    if folder == home / index and not is_index(folder):
        names = ", ".join(index_names(home))
        raise IndexNotFound(
            f"no index is called {index!r} in {home}",
            hint=f"There are: {names}." if names else "Build one: rd build-index --real DIR --fake DIR",
        )
    return folder


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index (a committed generation)."""
    return (folder / CURRENT).is_file()


def index_names(home: Path) -> list[str]:
    """Names of the indexes below a home, sorted; none if the home does not exist."""
    if not home.is_dir():
        return []
    return sorted(folder.name for folder in home.iterdir() if is_index(folder))


def is_path(text: str) -> bool:
    """Whether a text can only be meant as a path."""
    return text in {".", "..", "~"} or "/" in text or os.sep in text
