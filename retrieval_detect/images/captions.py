"""What is written beside an image: a caption, and the address it came from.

In columns of a list or a table, or in files of the image's name: ``1.txt`` and ``1.json`` beside ``1.jpg``,
as WebDataset and img2dataset write them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

COLUMNS = {"caption": ("caption", "text", "prompt"), "url": ("url", "image_url")}
"""What is kept → columns of tables, or keys of JSON; the first that says something does."""
MOST_BYTES = 1 << 20
"""A file beside an image that is larger is no caption."""


def written(row: Mapping[str, Any]) -> dict[str, str]:
    """What a row says: ``caption`` and ``url``, those that are there."""
    found = {
        kept: next((text for name in names if isinstance(text := row.get(name), str) and text.strip()), "")
        for kept, names in COLUMNS.items()
    }
    return {kept: text for kept, text in found.items() if text}


def written_beside(name: str, read: Callable[[str], bytes | None]) -> dict[str, str]:
    """The same of the files beside an image called ``name``; ``read`` : their bytes, ``None`` without one.

    What cannot be read says nothing: an image is good without it.
    """
    stem = os.path.splitext(name)[0]  # noqa: PTH122 - of members of archives, too
    row: Any = None
    try:
        row = json.loads(read(f"{stem}.json") or "{}")
    except (ValueError, RecursionError):
        row = {}
    text = (read(f"{stem}.txt") or b"").decode("utf-8", "replace")
    return written(row if isinstance(row, dict) else {}) | written({"caption": text})


def file_beside(name: str) -> bytes | None:
    """The bytes of a file, if it may be a caption."""
    try:
        return Path(name).read_bytes() if Path(name).stat().st_size <= MOST_BYTES else None
    except (OSError, ValueError):
        return None
