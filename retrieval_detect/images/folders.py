"""Listing folders: in a fixed order, through links but never in circles, only where a pattern leads.

A pattern is a tuple of names; each may hold ``*``, ``?`` and ``[…]``, and ``**`` stands for any
number of folders. ``("**",)`` is everything below a folder, ``("*",)`` only its own files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from retrieval_detect.images.passed import left_out

ANY_DEPTH = "**"


def walk(
    root: Path, pattern: tuple[str, ...], passed: Counter[str]
) -> Iterator[tuple[Path, str, OSError | None]]:
    """Files below ``root`` that match: path, path below the root with ``/``, ``None``.

    A folder that cannot be listed comes as its own path and the error. A folder's files come before
    its sub-folders, each sorted by name. Special files are left out, and hidden names and those of
    ``passed.left_out``, which ``passed`` counts, folders with a ``/``; a link that leads nowhere counts
    as a file, so that reading it says what is wrong.
    """
    seen: set[tuple[int, int]] = set()
    folders: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    while folders:
        folder, parts = folders.pop()
        try:
            info = folder.stat()
            files, subfolders, names = _list(folder)
        except OSError as error:
            yield folder, "/".join(parts), error
            continue
        if (info.st_dev, info.st_ino) in seen:
            continue
        seen.add((info.st_dev, info.st_ino))
        passed.update(_left_out(names, parts, pattern))
        for name in files:
            if _matches((*parts, name), pattern):
                yield folder / name, "/".join((*parts, name)), None
        inside = [(folder / name, (*parts, name)) for name in subfolders]
        folders += reversed([entry for entry in inside if _leads_on(entry[1], pattern)])


def _list(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Files, folders, and what is left out by its name, of that folders with a ``/``."""
    files, subfolders, names = [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if left_out(entry.name):
                names.append(entry.name + "/" * _is_folder(entry))
            elif _is_folder(entry):
                subfolders.append(entry.name)
            elif _is_file(entry):
                files.append(entry.name)
    return sorted(files), sorted(subfolders), names


def _left_out(names: list[str], parts: tuple[str, ...], pattern: tuple[str, ...]) -> Iterator[str]:
    """As what each of the names is left out that the pattern would have reached."""
    for entry in names:
        name = entry.removesuffix("/")
        reached = _leads_on if entry != name else _matches
        if reached((*parts, name), pattern):
            yield left_out(name) + "/" * (entry != name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    first, *rest = pattern
    if first == ANY_DEPTH:
        return any(_matches(parts[skip:], tuple(rest)) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], first) and _matches(parts[1:], tuple(rest))


def _leads_on(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether something below the folder ``parts`` may match."""
    if ANY_DEPTH not in pattern and len(parts) >= len(pattern):
        return False
    for part, wanted in zip(parts, pattern, strict=False):
        if wanted == ANY_DEPTH:
            return True
        if not fnmatch(part, wanted):
            return False
    return True
