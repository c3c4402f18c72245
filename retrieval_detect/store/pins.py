"""Pins: generations that stay readable however many follow, until what they hold is purged."""

from __future__ import annotations

from pathlib import Path

from retrieval_detect.errors import IndexStateError
from retrieval_detect.files import write_bytes
from retrieval_detect.store.layout import PINS
from retrieval_detect.store.manifest import manifest_path


def pin(folder: Path, generation: int) -> None:
    """Keep a generation for ever. No lock is needed: a pin is one file, and only sweeps read it.

    Raises ``IndexStateError`` where the generation has gone meanwhile.
    """
    (folder / PINS).mkdir(exist_ok=True)
    write_bytes(folder / PINS / f"{generation:08d}", b"")
    if not manifest_path(folder, generation).exists():
        raise IndexStateError(
            f"generation {generation} of {folder} has gone while it was asked", hint="Ask again."
        )


def pinned(folder: Path) -> set[int]:
    """The generations that are pinned."""
    return {int(path.name) for path in (folder / PINS).glob("????????") if path.name.isdigit()}
