"""What a vote must know of the references behind row ids: image, name, group, hash, weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_detect.scoring.weights import reference_weights
from retrieval_detect.types import UNNAMED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Int64, Label, UInt64

_COLUMNS = ("row_ids", "content", "name", "group", "phash", "batch", "contributor")


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """The live bank rows of one label, ascending by row id; all arrays have shape (n,).

    ``content`` : uint64, the content id's leading word; ``name`` : int64 codes into ``names``
    (generators of fakes, sources of photographs); ``group`` : int64; ``phash`` : uint64; ``batch`` and
    ``contributor`` : int64 codes, -1 for none; ``log_weight`` : float64, design §9's log w.
    ``n_images`` : how many different content ids there are.
    """

    label: Label
    row_ids: Int64
    content: UInt64
    name: Int64
    names: tuple[str, ...]
    group: Int64
    phash: UInt64
    batch: Int64
    contributor: Int64
    log_weight: NDArray[np.float64]
    n_images: int

    @classmethod
    def load(cls, snapshot: Snapshot, label: Label, *, view_kind: str | None = None) -> References:
        """Read the columns a vote needs; no vector is touched.

        ``view_kind`` : only the views of this kind, of which there must be some.
        """
        name_column = "generator" if label == "fake" else "source"
        columns = ["row_id", "content_id", "group", "phash", "batch", "contributor", "view", name_column]
        table = snapshot.scan(columns, label=label, split="bank").sort_by("row_id")
        if view_kind is not None:
            table = table.filter(pc.starts_with(table["view"].cast(pa.string()), f"{view_kind}-"))
        name, names = _codes(table[name_column])
        columns_of = {
            "row_ids": table["row_id"].to_numpy(),
            "content": _leading_words(table["content_id"]),
            "name": name,
            "group": table["group"].to_numpy(),
            "phash": table["phash"].to_numpy(),
            "batch": _given(table["batch"]),
            "contributor": _given(table["contributor"]),
        }
        return cls._weighted(label, names, columns_of)

    @classmethod
    def _weighted(cls, label: Label, names: tuple[str, ...], columns: dict[str, Any]) -> References:
        weights = reference_weights(
            columns["name"],
            columns["content"],
            groups=columns["group"],
            batches=columns["batch"],
            contributors=columns["contributor"],
        )
        n_images = len(np.unique(columns["content"]))
        return cls(label=label, names=names, log_weight=weights, n_images=n_images, **columns)

    def without(self, gone: Bool) -> References:
        """As if the references in ``gone``, bool (n,), had been removed: the others' weights follow."""
        kept = {column: getattr(self, column)[~gone] for column in _COLUMNS}
        return self._weighted(self.label, self.names, kept)

    def up_to(self, row_id: int) -> References:
        """Those whose row id is lower, as if there were no others."""
        return self if not len(self) or self.row_ids[-1] < row_id else self.without(self.row_ids >= row_id)

    def followed_by(self, *, row_ids: Int64, content: UInt64, group: Int64, phash: UInt64) -> References:
        """As if others, of one new name, had been added; the weights follow.

        All (m,); ``row_ids`` : above those here, ascending.
        """
        none = np.full(len(row_ids), -1)
        more = {"row_ids": row_ids, "content": content, "group": group, "phash": phash}
        more |= {"name": np.full(len(row_ids), len(self.names)), "batch": none, "contributor": none}
        together = {column: np.concatenate([getattr(self, column), more[column]]) for column in _COLUMNS}
        return self._weighted(self.label, (*self.names, UNNAMED), together)

    def __len__(self) -> int:
        return len(self.row_ids)

    def positions(self, row_ids: Int64) -> Int64:
        """Positions of row ids, which must be among these references; keeps the shape."""
        return np.searchsorted(self.row_ids, row_ids)


def _leading_words(column: pa.ChunkedArray) -> UInt64:
    """The first 8 bytes of each content id, as uint64 (n,), without a Python object a row."""
    array = column.combine_chunks()
    width = array.type.byte_width
    raw = np.frombuffer(array.buffers()[1], np.uint8)[
        array.offset * width : (array.offset + len(array)) * width
    ]
    return np.ascontiguousarray(raw.reshape(-1, width)[:, :8]).view(">u8")[:, 0].astype(np.uint64)


def _codes(column: pa.ChunkedArray) -> tuple[Int64, tuple[str, ...]]:
    array = column.combine_chunks()
    return array.indices.to_numpy().astype(np.int64), tuple(array.dictionary.to_pylist())


def _given(column: pa.ChunkedArray) -> Int64:
    """Codes of a column, int64 (n,); -1 where nothing was given."""
    codes, values = _codes(column)
    return np.where(np.array([*values, ""])[codes] == "", -1, codes)
