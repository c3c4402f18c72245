"""Files to be listed, and what a scan lists."""

from __future__ import annotations

from pathlib import Path

from retrieval_detect.images.sources import scan


def fill(root, *names):
    for name in names:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def uris(*specs, **options):
    return [item.uri for item in scan(specs, **options)]


def relatives(*specs, **options):
    return [item.relative for item in scan(specs, **options)]
