"""The file of a stored reference, if it is what was stored: loose, in a tar archive, or a row of a table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.items import file_item
from retrieval_detect.images.sources import scan
from retrieval_detect.types import ImageItem

GONE, CHANGED = "gone", "changed"
"""Reasons of the errors: no file can be read there, or one with other bytes."""


def stored_items(references: Iterable[tuple[str, bytes]]) -> list[ImageItem]:
    """Items of references, by uri and content id: ``read`` gives the bytes that were stored.

    Else it raises ``ImageError`` with reason ``GONE`` or ``CHANGED``. What an archive or a table holds is
    listed once, now, however many of the references lie there.
    """
    wanted = list(references)
    found: dict[str, list[ImageItem]] = defaultdict(list)
    inside: dict[str, set[str]] = defaultdict(set)
    for uri in {uri for uri, _ in wanted}:
        container, separator, _ = uri.partition("::")
        if Path(uri).is_file():
            found[uri].append(file_item(Path(uri), ""))
        elif separator and Path(container).is_file():
            inside[container].add(uri)
    for container, uris in inside.items():
        for item in _held_by(container):
            if item.uri in uris:  # an archive may hold several files of one name
                found[item.uri].append(item)
    return [ImageItem(uri, partial(_unchanged, found[uri], identity)) for uri, identity in wanted]


def _held_by(container: str) -> Iterator[ImageItem]:
    try:
        yield from scan([container], skipped=Counter())
    except UsageError:  # it holds no image any more
        return


def _unchanged(items: Sequence[ImageItem], identity: bytes) -> bytes:
    why = ImageError("the file is not there any more", reason=GONE)
    for item in items:
        try:
            data = item.read()
        except (ImageError, OSError):
            continue
        if content_id(data) == identity:
            return data
        why = ImageError("the file has changed since: its bytes differ", reason=CHANGED)
    raise why
