"""What folders and archives hold besides images: passed over, counted, and said once at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_LEFT_OUT = frozenset(
    # Synology and QNAP; macOS; Windows; Linux: pictures of pictures, what was thrown away, notes of programs
    {"@eadir", "#recycle", "#snapshot", "@recycle", "@__thumb", "@recently-snapshot"}
    | {"__macosx", ".ds_store", ".trashes", ".spotlight-v100", ".fseventsd", ".appledouble"}
    | {"$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"}
    | {"lost+found", ".thumbnails", ".directory"}
)
_APPLE_DOUBLE, _HIDDEN = "._*", "hidden"
_MOST_KINDS = 6

_counts: ContextVar[Counter[str] | None] = ContextVar("passed_over", default=None)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count what every ``sources.scan`` within passes over, whoever calls it; see there."""
    counts = Counter[str]()
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def counted() -> Counter[str]:
    """The counts that ``counting`` gives; outside of it some that nobody sees."""
    counts = _counts.get()
    return Counter() if counts is None else counts


def left_out(name: str) -> str:
    """As what a file or folder is left out by its name alone, whatever it holds; ``""`` if it is not."""
    if name.startswith("._"):
        return _APPLE_DOUBLE
    if name.casefold() in _LEFT_OUT:
        return name
    return _HIDDEN if name.startswith(".") else ""


def sentence(counts: Mapping[str, int]) -> str:
    """``passed over 5 files that are no images: 3 .dng, 2 .txt; left out by name: 2 @eaDir/``; or nothing."""
    named = Counter({kind: n for kind, n in counts.items() if _is_name(kind)})
    others = Counter(counts) - named
    total = sum(others.values())
    what = "files that are no images" if total > 1 else "file that is no image"
    parts = [f"passed over {total:,} {what}: {_kinds(others)}"] if others else []
    parts += [f"left out by name: {_kinds(named)}"] if named else []
    return "; ".join(parts)


def _is_name(kind: str) -> bool:
    name = kind.removesuffix("/")
    return name in (_APPLE_DOUBLE, _HIDDEN) or name.casefold() in _LEFT_OUT


def _kinds(counts: Counter[str]) -> str:
    shown = [f"{n:,} {kind}" for kind, n in counts.most_common(_MOST_KINDS)]
    return ", ".join(shown + ["…"] * (len(counts) > _MOST_KINDS))
