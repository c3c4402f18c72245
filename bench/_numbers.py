"""docs/numbers.md, where everything measured stands, each block between marks that name what wrote it.

No other page repeats a table of it. README.md shows some of its figures, between marks of the same kind
(``bench.summary``).
"""

from __future__ import annotations

import re
from pathlib import Path

from bench._machine import ROOT

PAGE, README = ROOT / "docs" / "numbers.md", ROOT / "README.md"
MARKED = re.compile(
    r"<!-- (?P<name>[\w-]+): (?P<command>python -m [^>]*?) -->\n(?P<text>.*?)<!-- /(?P=name) -->", re.S
)


def put(name: str, command: str, rendered: str, page: Path) -> bool:
    """Replace the block ``name`` of ``page``, whose mark then names ``command``; all else stays as it is.

    False where the page has no such block: nothing is written.
    """
    text = page.read_text(encoding="utf-8")
    block = f"<!-- {name}: {command} -->\n\n{rendered.strip()}\n\n<!-- /{name} -->"
    found = [match for match in MARKED.finditer(text) if match["name"] == name]
    if len(found) != 1:
        return False
    text = text[: found[0].start()] + block + text[found[0].end() :]
    page.write_text(text, encoding="utf-8")
    return True


def block_of(result: Path) -> str:
    """The name of the block that a result belongs in: its file's, without the date."""
    return re.sub(r"-\d{4}-\d\d-\d\d$", "", result.stem)


def from_root(path: Path) -> str:
    """As it is written in a command that is typed in the checkout."""
    full = path.resolve()
    return full.relative_to(ROOT).as_posix() if full.is_relative_to(ROOT) else str(path)
