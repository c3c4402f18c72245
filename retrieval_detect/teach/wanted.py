"""Which views of which images an addition wants: what is stored, what is staged, what is to be embedded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from retrieval_detect.store.append import NewRow
from retrieval_detect.store.originals import stored_images
from retrieval_detect.types import ORIGINAL_VIEW, Facts

if TYPE_CHECKING:
    from retrieval_detect.images.laundering import Chooser
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.staging import Staging


class Wanted:
    """The views that ``choose`` names for some images.

    How many views an image has may depend on its size, which is known of stored and of staged images.
    ``staging=None`` : nothing is staged.
    """

    def __init__(
        self,
        content_ids: Sequence[bytes],
        choose: Chooser,
        *,
        snapshot: Snapshot,
        staging: Staging | None = None,
    ) -> None:
        self.stored = stored_images(snapshot, content_ids)
        self._snapshot = snapshot
        self._content_ids = content_ids
        self._choose = choose
        self._staging = staging
        rows = snapshot.take([image.row_id for image in self.stored.values()], ["width", "height"])
        self._stored_sizes = {
            image: (row["width"], row["height"]) for image, row in zip(self.stored, rows, strict=True)
        }

    def missing(self, content_id: bytes, width: int, height: int) -> list[str]:
        """The views of one image that are neither stored nor staged: a ``Chooser``."""
        return [
            view for view in self._absent(content_id, width, height) if not self._is_staged(content_id, view)
        ]

    def to_embed(self) -> dict[bytes, int]:
        """Images of which something is missing → how many views; 1 where the size is not known yet."""
        sizes = self._sizes()
        counts = {
            image: len(self.missing(image, *sizes[image])) if image in sizes else 1
            for image in self._content_ids
        }
        return {image: count for image, count in counts.items() if count}

    def rows(self, given: Mapping[bytes, tuple[str, Facts]]) -> list[NewRow]:
        """What is staged and not stored, an image's original first.

        ``given`` : uri and facts of each image; a stored image keeps its own.
        """
        staged = {
            image: [view for view in self._absent(image, *size) if self._is_staged(image, view)]
            for image, size in self._sizes().items()
        }
        called = {**given, **self._called([i for i in self.stored if staged[i]])}
        return [NewRow(image, *called[image], view) for image, views in staged.items() for view in views]

    # ------------------------------------------------------------ parts

    def _called(self, images: Sequence[bytes]) -> dict[bytes, tuple[str, Facts]]:
        """Uri and facts of stored images."""
        names = [field.name for field in fields(Facts)]
        rows = self._snapshot.take([self.stored[image].row_id for image in images], ["uri", *names])
        return {
            image: (row["uri"], Facts(**{name: row[name] for name in names}))
            for image, row in zip(images, rows, strict=True)
        }

    def _absent(self, content_id: bytes, width: int, height: int) -> Iterator[str]:
        stored = self.stored.get(content_id)
        return (view for view in self._choose(content_id, width, height) if not (stored and stored.has(view)))

    def _is_staged(self, content_id: bytes, view: str) -> bool:
        return self._staging is not None and (content_id, view) in self._staging

    def _sizes(self) -> dict[bytes, tuple[int, int]]:
        """Width and height of the images that are stored or staged, in the order given."""
        staged = [
            (image, ORIGINAL_VIEW) for image in self._content_ids if self._is_staged(image, ORIGINAL_VIEW)
        ]
        facts = self._staging.facts(staged).to_pylist() if self._staging is not None and staged else []
        sizes = {row["content_id"]: (row["width"], row["height"]) for row in facts} | self._stored_sizes
        return {image: sizes[image] for image in self._content_ids if image in sizes}
