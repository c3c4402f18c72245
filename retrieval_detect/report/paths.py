"""Paths in lists: as much of the end of each as tells it from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def shortened(paths: Iterable[str]) -> dict[str, str]:
    """Each path → the shortest end of it, by whole parts, that no other of them has; at least its last part.

    ``a/x/1.jpg, a/y/1.jpg, a/y/2.jpg`` → ``x/1.jpg, y/1.jpg, 2.jpg``. A path that is itself the end of
    another stays whole.
    """
    found: dict[str, str] = {}
    left, n_parts = set(paths), 1
    while left:
        ends = {path: "/".join(path.rstrip("/").split("/")[-n_parts:]) for path in left}
        shared = Counter(ends.values())
        told = {path for path, end in ends.items() if shared[end] == 1 or end == path.rstrip("/")}
        found |= {path: ends[path] or path for path in told}
        left -= told
        n_parts += 1
    return found
