"""The options that make another command speak of the same index, for lines that readers are to type."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval_detect.cli.params import Run
    from retrieval_detect.store.manifest import Manifest


def same_index(run: Run, folder: Path) -> str:
    """Empty, or `` --index trial`` where a command without it would mean another index."""
    from retrieval_detect.cli.settings import index_home, index_path, load_settings

    plain = load_settings(file=run.flags.get("config"))
    if index_path(plain) == folder:
        return ""
    if folder.parent == index_home(plain):
        return f" --index {shlex.quote(folder.name)}"
    return f" --index {shlex.quote(str(folder))}"


def committed(run: Run, folder: Path, manifest: Manifest) -> str:
    """The line that says what was made, and how to go back."""
    undo = f"rd bank rollback {manifest.parent}{same_index(run, folder)}"
    return f"  Committed as generation {manifest.generation}. Undo: {undo}"
