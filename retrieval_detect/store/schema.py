"""The columns of the embedding store, and how keys are laid out for look-ups by mmap."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retrieval_detect.names import WRITTEN
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    from retrieval_detect.types import Bool, Int64, UInt64

FORMAT = "retrieval-detect/index"
VERSION = 2
"""What is written."""
PARQUET_VERSION = 1
"""Rows in Parquet: read, and what an export has."""
READ_VERSIONS = (PARQUET_VERSION, VERSION)

CONTENT_ID_BYTES = 32
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
ADDED_AT_FIELD = pa.field("added_at", pa.timestamp("s", tz="UTC"), nullable=False)

_TEXTS = (
    *("split", "view", "label", "generator", "source", "category", "format"),
    *("licence", "contributor", "batch", "tags", "notes"),
)
_COLUMNS = [
    pa.field("row_id", pa.int64(), nullable=False),
    pa.field("content_id", pa.binary(CONTENT_ID_BYTES), nullable=False),
    pa.field("group", pa.int64(), nullable=False),
    pa.field("phash", pa.uint64(), nullable=False),
    *(pa.field(name, _DICTIONARY, nullable=False) for name in _TEXTS),
    pa.field("pair_id", pa.string(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    ADDED_AT_FIELD,
]

THUMBNAIL = "thumbnail"
"""A column of those shards alone that keep pictures: a WebP file, null where there is none."""
THUMBNAIL_FIELD = pa.field(THUMBNAIL, pa.binary())

ASIDE = {field.name: field for field in (THUMBNAIL_FIELD, *(pa.field(name, pa.string()) for name in WRITTEN))}
"""Columns of those shards alone in which a row has one; null where there is none, and of views."""


def norm_column(layer: str) -> str:
    """Name of the float32 column that keeps the vectors' norms before normalisation."""
    return f"norm_{layer}"


def rows_schema(layers: Sequence[str], *, version: int = VERSION) -> pa.Schema:
    """Arrow schema of a shard's rows in an index that stores ``layers``."""
    norms = [pa.field(norm_column(layer), pa.float32(), nullable=False) for layer in layers]
    return pa.schema([*_COLUMNS, *norms], metadata={"format": FORMAT, "version": str(version)})


def rows_table(columns: Mapping[str, Sequence[object]], layers: Sequence[str]) -> pa.Table:
    """Columns of equal length → a table of ``rows_schema``; raises ``KeyError`` if one is missing."""
    schema = rows_schema(layers)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def exact_dictionaries(table: pa.Table) -> pa.Table:
    """The same rows, with dictionaries made anew: an old one outlives the rows that used its texts."""
    columns = [
        column.cast(pa.string()).dictionary_encode() if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, schema=table.schema)


# ---------------------------------------------------------------- content keys


def content_words(content_ids: Sequence[bytes]) -> UInt64:
    """Content ids as uint64 (n, 4), most significant word first, so that words sort as bytes do."""
    joined = b"".join(content_ids)
    return np.frombuffer(joined, dtype=">u8").astype(np.uint64).reshape(len(content_ids), 4)


def view_code(view: str) -> int:
    """0 for the original, else a 64-bit digest of the view's name."""
    if view == ORIGINAL_VIEW:
        return 0
    return int.from_bytes(hashlib.sha256(view.encode()).digest()[:8], "big") or 1


def key_columns(content_ids: Sequence[bytes], views: Sequence[str], row_ids: Int64, *, fake: bool) -> UInt64:
    """The sorted key file of a shard.

    Returns uint64 (6, n), C order, columns sorted by content id: rows 0-3 the content id's words,
    4 the view's code, 5 ``row_id << 1 | (label is fake)``. One contiguous row of leading words
    makes a look-up a binary search that touches a few pages.
    """
    words = content_words(content_ids)
    codes = {view: view_code(view) for view in set(views)}
    view_codes = np.array([codes[view] for view in views], dtype=np.uint64)
    tagged = (row_ids.astype(np.uint64) << np.uint64(1)) | np.uint64(fake)
    order = np.lexsort((tagged, view_codes, words[:, 3], words[:, 2], words[:, 1], words[:, 0]))
    return np.ascontiguousarray(np.vstack([words[order].T, view_codes[order], tagged[order]]))


def find_keys(keys: UInt64, words: UInt64) -> tuple[Int64, Int64]:
    """All matches of content ids in one key file.

    ``keys`` : uint64 (6, n); ``words`` : uint64 (m, 4). Returns int64 (h,) indices into ``words``
    and int64 (h,) columns of ``keys``, one pair a match (several when an image has several views).
    """
    low = np.searchsorted(keys[0], words[:, 0], side="left")
    high = np.searchsorted(keys[0], words[:, 0], side="right")
    asked, column = expand_ranges(low, high)
    same: Bool = np.all(keys[1:4, column] == words[asked, 1:4].T, axis=0)
    return asked[same], column[same]


def expand_ranges(low: Int64, high: Int64) -> tuple[Int64, Int64]:
    """Half-open ranges → pairs (range number, position): ``[2,4),[7,8)`` → ``(0,2),(0,3),(1,7)``."""
    lengths = high - low
    owner = np.repeat(np.arange(len(low)), lengths)
    offset = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owner, low[owner] + offset


def grouping_layer(layers: Sequence[str]) -> str:
    """The layer whose cosine confirms near-duplicates: ``proj`` where it is stored."""
    return "proj" if "proj" in layers else layers[0]
