"""Where images come from: files, folders, patterns, lists, tar and ZIP archives, Parquet and Arrow tables.

``scan`` looks at every given path at once, so that a wrong one is known before the first image is
worked on; folders and archives are then listed as the items are taken, and no pixel is read.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from retrieval_detect.errors import UsageError
from retrieval_detect.images.archives import packed_tar_items, tar_items
from retrieval_detect.images.folders import ANY_DEPTH, walk
from retrieval_detect.images.items import (
    IMAGE_SUFFIXES,
    failed_item,
    file_item,
    from_bytes,
    is_image_name,
    suffix_of,
)
from retrieval_detect.images.passed import counted, sentence
from retrieval_detect.images.tables import table_items
from retrieval_detect.images.zips import zip_items
from retrieval_detect.names import printable
from retrieval_detect.texts import decoded
from retrieval_detect.types import ImageItem

__all__ = ["IMAGE_SUFFIXES", "from_bytes", "is_image_name", "read_list", "scan"]

_CONTAINERS = {
    ".tar": tar_items,
    ".tar.gz": packed_tar_items,
    ".tgz": packed_tar_items,
    ".zip": zip_items,
    ".parquet": table_items,
    ".arrow": table_items,
    ".feather": table_items,
}
_COMPRESSED = frozenset({".7z", ".bz2", ".gz", ".rar", ".tbz2", ".txz", ".xz", ".zst"})
_WHAT_TO_GIVE = (
    "Give image files, folders of them, .tar, .tar.gz or .zip archives, .parquet or .arrow tables."
)


def scan(
    specs: Sequence[str | Path], *, recursive: bool = True, skipped: Counter[str] | None = None
) -> Iterator[ImageItem]:
    """Every image that ``specs`` name, in a fixed order.

    A spec is a file, a folder, a pattern with ``*``, ``?``, ``[…]`` or ``**``, an archive
    (``.tar``, ``.tar.gz``, ``.zip``), a table (``.parquet``, ``.arrow``, ``.feather``), or the ``uri`` of an
    item in one of these. In folders only names with an image suffix count (``is_image_name``), hidden ones
    and those of ``passed.left_out`` never; a folder's own files come first, then its sub-folders, each by
    name; a folder reached twice through links is taken once.

    ``recursive`` : whether sub-folders, and folders that a pattern matches, are listed as well.
    ``skipped`` : receives, as the items are taken, how many files of each suffix were passed over, and
    how many names left out, those of folders with a ``/`` at their end; else ``passed.counting`` does.

    Raises ``UsageError`` at the call for a path that does not exist or cannot be read, and for a
    folder, pattern, archive or table without images. Later troubles (a sub-folder without permission,
    a broken archive) are items whose ``read`` raises ``ImageError``.
    """
    if not specs:
        raise UsageError("no image was given", hint=_WHAT_TO_GIVE)
    passed = counted() if skipped is None else skipped
    prepared = [_prepare(os.fspath(spec), recursive, passed) for spec in specs]
    return chain.from_iterable(
        _items_in(source, source.name, passed) if isinstance(source, Path) else source for source in prepared
    )


def read_list(stream: BinaryIO, *, null_separated: bool = False) -> list[str]:
    """The paths of a list, one a line or each ended by NUL; empty ones are left out."""
    text = decoded(stream.read(), "the list of paths", file_names=True)
    if null_separated:
        return [path for path in text.split("\0") if path]
    if "\0" in text:
        raise UsageError(
            "the list of paths holds NUL bytes", hint="If they separate the paths: --from-file LIST,null"
        )
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


# ---------------------------------------------------------------- one spec


def _prepare(spec: str, recursive: bool, skipped: Counter[str]) -> Path | Iterator[ImageItem]:
    """A path that was seen to be a file, or the images of anything else."""
    path, mode = Path(spec), _mode_of(spec)
    if mode is None:
        return _not_on_disk(spec, recursive, skipped)
    if stat.S_ISDIR(mode):
        items = _items_below(path, (ANY_DEPTH,) if recursive else ("*",), skipped)
        return _not_empty(items, f"folder {_quoted(spec)} holds no image", skipped)
    if not stat.S_ISREG(mode):
        raise UsageError(f"{_quoted(spec)} is neither a file nor a folder", hint=_WHAT_TO_GIVE)
    list_items = _lister(path.name)
    if list_items is None and suffix_of(spec) in _COMPRESSED:
        hint = "Unpack it, or repack it as .tar, .tar.gz or .zip."
        raise UsageError(f"{_quoted(spec)} is a compressed archive", hint=hint)
    if list_items:
        # Looked into and closed again: of a thousand archives not one stays open until it is its turn.
        inside = Counter[str]()
        _not_empty(list_items(path, "", inside), f"{_quoted(spec)} holds no image", inside)
    return path


def _lister(name: str) -> Callable[[Path, str, Counter[str]], Iterator[ImageItem]] | None:
    """What lists the images of an archive or a table; ``None`` for the name of any other file."""
    return next((found for suffix, found in _CONTAINERS.items() if name.lower().endswith(suffix)), None)


def _mode_of(spec: str) -> int | None:
    """The file mode of ``spec``, ``None`` if there is no such path."""
    if not spec:
        raise UsageError("an empty path was given", hint=_WHAT_TO_GIVE)
    try:
        return Path(spec).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{_quoted(spec)} cannot be read: {_why(error)}", hint=_WHAT_TO_GIVE) from error


def _not_on_disk(spec: str, recursive: bool, skipped: Counter[str]) -> Iterator[ImageItem]:
    """What is no path itself: one image of an archive or table, or a pattern."""
    container, separator, inside = spec.partition("::")
    if separator and _lister(container) and Path(container).is_file():
        uri = printable(f"{Path(container)}::{inside}")
        items = _items_in(Path(container), "", Counter())
        found = next((item for item in items if item.uri == uri), None)
        if found is None:
            raise UsageError(f"{_quoted(container)} holds no image {_quoted(inside)}")
        return iter([found])
    parts = Path(spec).parts
    fixed = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), None)
    if fixed is None:
        raise UsageError(f"{_quoted(spec)} does not exist", hint=_WHAT_TO_GIVE)
    pattern = parts[fixed:] + ((ANY_DEPTH,) if recursive else ())
    items = _items_below(Path(*parts[:fixed]), pattern, skipped)
    return _not_empty(items, f"pattern {_quoted(spec)} matches no image", skipped)


def _not_empty(items: Iterator[ImageItem], complaint: str, skipped: Counter[str]) -> Iterator[ImageItem]:
    """The same items, once it is known that there is one."""
    before = Counter(skipped)
    first = next(items, None)
    if first is None:
        found = sentence(skipped - before)
        skipped.clear()  # said here, and not a second time
        skipped.update(before)
        raise UsageError(printable(f"{complaint}; {found}" if found else complaint), hint=_WHAT_TO_GIVE)
    return chain([first], items)


# ---------------------------------------------------------------- files


def _items_below(root: Path, pattern: tuple[str, ...], skipped: Counter[str]) -> Iterator[ImageItem]:
    for path, relative, error in walk(root, pattern, skipped):
        suffix = suffix_of(path.name)
        if error is not None and not relative:
            raise UsageError(f"folder {_quoted(str(path))} cannot be listed: {_why(error)}") from error
        if error is not None:
            yield failed_item(str(path), f"the folder cannot be listed: {_why(error)}")
        elif is_image_name(path.name) or _lister(path.name):
            yield from _items_in(path, relative, skipped)
        else:
            skipped[suffix or "no suffix"] += 1


def _items_in(path: Path, relative: str, skipped: Counter[str]) -> Iterator[ImageItem]:
    """A file itself, or the images an archive or table holds: to those it is no folder of its own."""
    list_items = _lister(path.name)
    if list_items is None:
        yield file_item(path, relative)
        return
    empty = True
    for item in list_items(path, relative.rpartition("/")[0], skipped):
        empty = False
        yield item
    if empty:
        yield failed_item(str(path), "it holds no image")


# ---------------------------------------------------------------- words


def _quoted(spec: str) -> str:
    return f"'{printable(spec)}'"


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
