"""Embeddings as Parquet files, for other programs and to ask again: plain columns, readable without rd."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_detect.errors import EncoderMismatch, UsageError, VectorError
from retrieval_detect.files import write_atomically
from retrieval_detect.store.schema import norm_column
from retrieval_detect.store.staging import FOUND, found_facts
from retrieval_detect.vectors import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Embedded, EncoderSpec, Float16, Float32, UInt64

_ROWS_AT_ONCE = 4096
_FACTS = ("uri", "content_id", "phash", "width", "height", "format")


def _vectors(d: int) -> pa.DataType:
    """What other programs open as vectors: DuckDB, Lance, pandas and Polars do."""
    return pa.list_(pa.field("item", pa.float16(), nullable=False), d)


def embeddings_schema(spec: EncoderSpec, layers: Sequence[str]) -> pa.Schema:
    """Columns of an embeddings file; the encoder's record is in the metadata under ``encoder``."""
    vectors = [pa.field(layer, _vectors(spec.layers[layer]), nullable=False) for layer in layers]
    norms = [pa.field(norm_column(layer), pa.float32(), nullable=False) for layer in layers]
    found = {"uri": pa.string()} | {name: kind for name, kind in FOUND.items() if name != "view"}
    facts = [pa.field(name, kind, nullable=False) for name, kind in found.items()]
    metadata = {"encoder": json.dumps(spec.to_json(), sort_keys=True), "fingerprint": spec.fingerprint}
    return pa.schema([*facts, *vectors, *norms], metadata=metadata)


def write_embeddings(
    path: Path, rows: Iterable[Embedded], *, spec: EncoderSpec, layers: Sequence[str]
) -> int:
    """Write rows as they come, in bounded memory, all or nothing; returns how many."""
    schema = embeddings_schema(spec, layers)
    count = 0

    def write(file: BinaryIO) -> None:
        nonlocal count
        # Values of vectors hardly ever repeat: to look for those that do takes longer than to write them.
        texts = [name for name in schema.names if name not in layers]
        plain = {"compression": "none", "use_dictionary": texts, "write_statistics": texts}
        with pq.ParquetWriter(file, schema, **plain) as writer:
            iterator = iter(rows)
            while batch := list(islice(iterator, _ROWS_AT_ONCE)):
                writer.write_table(_table(batch, schema, layers))
                count += len(batch)

    write_atomically(path, write)
    return count


def _table(batch: Sequence[Embedded], schema: pa.Schema, layers: Sequence[str]) -> pa.Table:
    columns: dict[str, object] = {"uri": [row.item.uri for row in batch], **found_facts(batch)}
    for layer in layers:
        unit, norms = normalise(np.stack([row.vectors[layer] for row in batch]))
        columns[layer] = pa.FixedSizeListArray.from_arrays(
            unit.astype(np.float16).ravel(), type=schema.field(layer).type
        )
        columns[norm_column(layer)] = norms
    arrays = [
        columns[field.name] if field.name in layers else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedRows:
    """Rows of an embeddings file, n of them.

    ``uris``, ``content_ids`` : Arrow arrays. ``phash`` : uint64 (n,). ``width``, ``height`` : int32 (n,).
    ``vectors`` : layer → float32 (n, d), as the network gave them, up to the rounding to float16.
    ``wrong`` : position → what is wrong with a row whose vectors, or facts, cannot be used.
    """

    uris: pa.StringArray
    content_ids: pa.FixedSizeBinaryArray
    phash: UInt64
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    formats: list[str]
    vectors: Mapping[str, Float32]
    wrong: Mapping[int, str]


class EmbeddingsFile:
    """A file that ``write_embeddings`` wrote. Opening reads its footer; no handle is kept.

    Raises ``UsageError`` where it is none. ``row_groups`` : how many rows each has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self._schema = file.schema_arrow
            groups = range(file.metadata.num_row_groups)
            self.row_groups = tuple(file.metadata.row_group(i).num_rows for i in groups)
        facts = self._schema.metadata or {}
        try:
            self._fingerprint = facts[b"fingerprint"].decode()
            self._encoder = str(json.loads(facts[b"encoder"])["name"])
        except (KeyError, ValueError, TypeError) as error:
            raise UsageError(
                f"{path} does not say which encoder its vectors are of", hint="Write it with: rd embed"
            ) from error

    @property
    def layers(self) -> frozenset[str]:
        """Layers whose vectors it holds."""
        names = self._schema.names
        return frozenset(name for name in names if norm_column(name) in names)

    def require(self, spec: EncoderSpec, layers: Sequence[str]) -> None:
        """Raise what is wrong unless it holds vectors of ``layers`` by this encoder.

        ``EncoderMismatch`` for another encoder, ``UsageError`` for columns that are not there,
        ``VectorError`` for columns of another type or dimension.
        """
        if self._fingerprint != spec.fingerprint:
            raise EncoderMismatch(
                f"{self.path} holds vectors of {self._encoder}, the index those of {spec.name}, or of other "
                "weights or another preprocessing of it",
                hint=f"Embed the images again: rd embed --encoder {spec.name}",
            )
        again = f"Embed the images again: rd embed --layers {','.join(layers)}"
        for field in embeddings_schema(spec, layers):
            if field.name not in self._schema.names:
                raise UsageError(f"{self.path} lacks column {field.name}", hint=again)
            found = self._schema.field(field.name).type
            if found != field.type and not (field.name in layers and _holds(found, spec.layers[field.name])):
                raise VectorError(
                    f"{self.path}: column {field.name} is {found}, not {field.type}", hint=again
                )

    def rows(
        self, row_groups: Sequence[int], layers: Sequence[str], *, at_once: int
    ) -> Iterator[EmbeddedRows]:
        """The rows of some row groups, in order, in bounded memory, once ``require`` has passed."""
        columns = [*_FACTS, *layers, *map(norm_column, layers)]
        with self._opened() as file:
            for batch in file.iter_batches(at_once, row_groups=row_groups, columns=columns):
                yield _read(batch, layers)

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        try:
            # Else it reads ahead, and holds every row group asked for until the last is done.
            with pq.ParquetFile(self.path, pre_buffer=False) as file:
                yield file
        except (OSError, pa.ArrowInvalid) as error:
            raise UsageError(
                f"{self.path} cannot be read as Parquet", hint="Write it with: rd embed DIR --out FILE"
            ) from error


def _read(batch: pa.RecordBatch, layers: Sequence[str]) -> EmbeddedRows:
    whole = np.ones(len(batch), bool)
    for column in batch.columns:
        if column.null_count:
            whole &= column.is_valid().to_numpy(zero_copy_only=False)
    usable, vectors = whole.copy(), {}
    for layer in layers:
        codes = _codes(batch[layer]).astype(np.float32)
        norms = batch[norm_column(layer)].fill_null(np.nan).to_numpy()
        lengths = np.linalg.norm(codes, axis=1)
        usable &= np.isfinite(lengths) & (lengths > 0) & np.isfinite(norms) & (norms > 0)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            # Of length one first: so it becomes what was stored, and not that rounded once more.
            vectors[layer] = codes / lengths[:, None] * norms[:, None]
    wrong = {
        i: "a vector is zero or not finite" if whole[i] else "a value is missing"
        for i in np.flatnonzero(~usable).tolist()
    }
    phash, width, height = (
        batch[name].fill_null(0).to_numpy(zero_copy_only=False) for name in ("phash", "width", "height")
    )
    uris, formats = batch["uri"].fill_null(""), batch["format"].fill_null("").to_pylist()
    return EmbeddedRows(uris, batch["content_id"], phash, width, height, formats, vectors, wrong)


def _holds(kind: pa.DataType, d: int) -> bool:
    """Whether a column holds float16 vectors: as other programs write them, or as bytes, as rd once did."""
    as_bytes: bool = kind == pa.binary(2 * d)
    lists = pa.types.is_fixed_size_list(kind)
    return as_bytes or (lists and kind.list_size == d and pa.types.is_float16(kind.value_type))


def _codes(column: pa.FixedSizeListArray | pa.FixedSizeBinaryArray) -> Float16:
    """A column of vectors, float16 (n, d), without an object a row; NaN where a value is missing."""
    if pa.types.is_fixed_size_list(column.type):
        d = column.type.list_size
        values = column.values.slice(column.offset * d, len(column) * d)
        found: Float16 = values.to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
        return found.reshape(-1, d)
    width = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * width :][: len(column) * width]
    return raw.view("<f2").reshape(len(column), -1)
