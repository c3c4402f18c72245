"""Images with labels, read once to know which can be used, and again whenever their pixels are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import ImageError, LabelConflict
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.decode import decode
from retrieval_detect.types import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from retrieval_detect.types import Bool, ImageItem, Int64, UInt8


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """n images that can be read.

    ``fake`` : bool (n,). ``names`` : the generator or source of each, its first folder, ``""`` without one.
    ``groups`` : int64 (n,); equal files are one group. ``failures`` : what cannot be read.
    """

    items: tuple[ImageItem, ...]
    fake: Bool
    names: tuple[str, ...]
    groups: Int64
    failures: tuple[Failure, ...]

    def __len__(self) -> int:
        return len(self.items)

    def different(self, *, fake: bool) -> int:
        """How many images of a label are not copies of others."""
        return len(np.unique(self.groups[self.fake == fake]))


def survey(images: Sequence[tuple[ImageItem, bool]], pool: Executor) -> LabelledImages:
    """Read and decode every image once. The same file under both labels raises ``LabelConflict``."""
    results = list(pool.map(_content, [item for item, _ in images]))
    good = [
        (item, fake, content)
        for (item, fake), content in zip(images, results, strict=True)
        if isinstance(content, bytes)
    ]
    labels: dict[bytes, bool] = {}
    for item, fake, content in good:
        if labels.setdefault(content, fake) != fake:
            raise LabelConflict(
                f"'{item.uri}' was given as a photograph and as a fake",
                hint="Leave it out of one of the two.",
            )
    number = {content: i for i, content in enumerate(labels)}
    return LabelledImages(
        tuple(item for item, _, _ in good),
        np.array([fake for _, fake, _ in good], dtype=bool),
        tuple(_first_folder(item.relative) for item, _, _ in good),
        np.array([number[content] for _, _, content in good], dtype=np.int64),
        tuple(result for result in results if isinstance(result, Failure)),
    )


def pixels(item: ImageItem) -> UInt8:
    """Read and decode: uint8 (height, width, 3), or an ``ImageError`` that names the image."""
    return _decoded(item)[1]


def _decoded(item: ImageItem) -> tuple[bytes, UInt8]:
    try:
        data = item.read()
        return data, decode(data).rgb
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        raise ImageError(message, reason="unreadable", uri=item.uri) from error
    except ImageError as error:
        error.uri = item.uri
        raise


def _content(item: ImageItem) -> bytes | Failure:
    try:
        return content_id(_decoded(item)[0])
    except ImageError as error:
        return Failure(item.uri, error.reason, error.message)


def _first_folder(relative: str) -> str:
    folder, slash, _ = relative.partition("/")
    return folder if slash else ""
