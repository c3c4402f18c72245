"""Images with labels, read once to know which can be used, and again whenever their pixels are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.errors import ImageError, LabelConflict
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.decode import decode
from retrieval_detect.images.items import UNREADABLE, attempted
from retrieval_detect.names import spelling
from retrieval_detect.types import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Executor

    from retrieval_detect.types import Bool, ImageItem, Int64, Label, UInt8


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

    def decodable(data: bytes) -> bytes:
        decode(data)
        return content_id(data)

    results = list(pool.map(lambda image: attempted(image[0], decodable), images))
    good = [
        (item, fake, content)
        for (item, fake), content in zip(images, results, strict=True)
        if isinstance(content, bytes)
    ]
    given: list[tuple[bytes, Label, str]] = [
        (content, "fake" if fake else "real", item.uri) for item, fake, content in good
    ]
    refuse_both_labels(list(both_labels(given)), "nothing was trained")
    number = {content: i for i, content in enumerate(dict.fromkeys(content for _, _, content in good))}
    return LabelledImages(
        tuple(item for item, _, _ in good),
        np.array([fake for _, fake, _ in good], dtype=bool),
        tuple(_first_folder(item.relative) for item, _, _ in good),
        np.array([number[content] for _, _, content in good], dtype=np.int64),
        tuple(result for result in results if isinstance(result, Failure)),
    )


def both_labels(given: Iterable[tuple[bytes, Label, str]]) -> Iterator[str]:
    """What is given under both labels, in words. ``given`` : content id, label and uri of each image."""
    first: dict[bytes, tuple[Label, str]] = {}
    for content, label, uri in given:
        earlier, there = first.setdefault(content, (label, uri))
        if earlier != label:
            yield f"{uri} ({label}) and {there} ({earlier})"


def refuse_both_labels(conflicts: Sequence[str], outcome: str) -> None:
    """Raise ``LabelConflict`` if there are any: an image has one label. ``outcome`` : what was not done."""
    if conflicts:
        shown = "; ".join(conflicts[:3]) + ("; …" if len(conflicts) > 3 else "")
        n = f"{len(conflicts):,} images have" if len(conflicts) > 1 else "1 image has"
        raise LabelConflict(
            f"{n} both labels, {outcome}: {shown}",
            hint="Decide for one label: leave these files out of the other. A stored reference is taken out "
            "by rd bank remove --id SHA256.",
        )


def pixels(item: ImageItem) -> UInt8:
    """Read and decode: uint8 (height, width, 3), or an ``ImageError`` that names the image."""
    try:
        return decode(item.read()).rgb
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        raise ImageError(message, reason=UNREADABLE, uri=item.uri) from error
    except ImageError as error:
        error.uri = item.uri
        raise


def _first_folder(relative: str) -> str:
    folder, slash, _ = relative.partition("/")
    return spelling(folder) if slash else ""
