"""The least that looks at every file below some folders: ``python -m bench.speed._walk stat|hash FOLDER...``.

Nothing of rd is imported, so that what its commands take beyond this is theirs.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator


def files(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from files(entry.path)
            else:
                yield entry


def look(entry: os.DirEntry[str], *, content: bool) -> int:
    if content:
        with open(entry.path, "rb") as file:  # noqa: PTH123 - pathlib alone costs as much as a small hash
            hashlib.sha256(file.read()).digest()
    return entry.stat().st_size


def main(how: str, *folders: str) -> None:
    print(sum(look(entry, content=how == "hash") for folder in folders for entry in files(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
