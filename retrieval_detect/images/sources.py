"""Where images come from: files, folders, patterns, lists, tar archives, Parquet tables.

``scan`` looks at every given path at once, so that a wrong one is known before the first image is
worked on; folders and archives are then listed as the items are taken, and no pixel is read.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from retrieval_detect.errors import UsageError
from retrieval_detect.images.archives import table_items, tar_items
from retrieval_detect.images.items import failed_item, file_item, is_image_name, printable, suffix_of
from retrieval_detect.types import ImageItem

_CONTAINERS = {".tar": tar_items, ".parquet": table_items}
_COMPRESSED = frozenset(".7z .bz2 .gz .rar .tbz2 .tgz .txz .xz .zip .zst".split())
_WHAT_TO_GIVE = "Give image files, folders of them, .tar archives or .parquet tables."


def scan(
    specs: Sequence[str | Path], *, recursive: bool = True, skipped: Counter[str] | None = None
) -> Iterator[ImageItem]:
    """Every image that ``specs`` name, in a fixed order.

    A spec is a file, a folder, a pattern with ``*``, ``?``, ``[…]`` or ``**``, a ``.tar`` archive, a
    ``.parquet`` table, or the ``uri`` of an item in one of these. In folders only names with an image
    suffix count (``is_image_name``), hidden ones never; a folder's own files come first, then its
    sub-folders, each by name; a folder reached twice through links is taken once.

    ``skipped`` : receives, as the items are taken, how many files of each suffix were passed over.

    Raises ``UsageError`` at the call for a path that does not exist or cannot be read, and for a
    folder or pattern without images. Later troubles (a sub-folder without permission, a broken
    archive) are items whose ``read`` raises ``ImageError``.
    """
    if not specs:
        raise UsageError("no image was given", hint=_WHAT_TO_GIVE)
    passed = Counter[str]() if skipped is None else skipped
    prepared = [_prepare(os.fspath(spec), recursive, passed) for spec in specs]
    return chain.from_iterable(
        _items_of(source, source.name) if isinstance(source, Path) else source for source in prepared
    )


def read_list(stream: BinaryIO, *, null_separated: bool = False) -> list[str]:
    """The paths of a list, one a line or ended by NUL; empty ones are left out."""
    data = stream.read().removeprefix(b"\xef\xbb\xbf")
    if null_separated:
        return [os.fsdecode(path) for path in data.split(b"\0") if path]
    if b"\0" in data:
        raise UsageError("the list of paths holds NUL bytes", hint="Is it separated by NUL? Then add -0.")
    return [os.fsdecode(line) for line in data.replace(b"\r\n", b"\n").split(b"\n") if line.strip()]


# ---------------------------------------------------------------- one spec


def _prepare(spec: str, recursive: bool, skipped: Counter[str]) -> Path | Iterator[ImageItem]:
    """A checked file, or the images of anything else."""
    path = Path(spec)
    mode = _mode(path, spec)
    if mode is None:
        return _indirect(spec, recursive, skipped)
    if stat.S_ISDIR(mode):
        items = _walk(path, "" if recursive else None, lambda _: True, skipped)
        return _checked(items, f"folder {_quoted(spec)} holds no image", skipped)
    if not stat.S_ISREG(mode):
        raise UsageError(f"{_quoted(spec)} is neither a file nor a folder", hint=_WHAT_TO_GIVE)
    if suffix_of(spec) in _COMPRESSED:
        raise UsageError(f"{_quoted(spec)} is a compressed archive", hint="Unpack it, or repack it as a plain .tar.")
    return path


def _mode(path: Path, spec: str) -> int | None:
    if not spec:
        raise UsageError("an empty path was given", hint=_WHAT_TO_GIVE)
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{_quoted(spec)} cannot be read: {why}", hint=_WHAT_TO_GIVE) from error
