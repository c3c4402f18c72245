"""Parts of a listing, one a machine: which part an image is of follows from its name alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from retrieval_detect.errors import UsageError
from retrieval_detect.types import ImageItem


@dataclass(frozen=True, slots=True)
class Share:
    """Part ``number`` of ``total``, counted from 1."""

    number: int
    total: int

    @classmethod
    def of(cls, text: str) -> Share:
        """``"2/8"`` → the second of eight parts; ``UsageError`` for anything else."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, total = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= total:
            raise UsageError(f"{text!r} is no part of a whole", hint="Write it as 2/8, from 1/8 to 8/8.")
        return cls(number, total)


def share_of(items: Iterable[ImageItem], share: Share) -> Iterator[ImageItem]:
    """The items of one part: every item is in exactly one, whatever the others are and in whatever order.

    By the sha256 of its path below what was scanned, so that parts are the same where a folder is mounted
    elsewhere, and stay so when images come or go.
    """
    for item in items:
        digest = hashlib.sha256((item.relative or item.uri).encode("utf-8", "surrogatepass")).digest()
        if int.from_bytes(digest[:8], "big") % share.total == share.number - 1:
            yield item
