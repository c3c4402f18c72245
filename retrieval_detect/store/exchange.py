"""Embeddings as one Parquet file, for other programs: plain columns, readable without rd."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_detect.files import write_atomically
from retrieval_detect.store.schema import CONTENT_ID_BYTES, norm_column
from retrieval_detect.store.staging import found_facts, normalise

if TYPE_CHECKING:
    from retrieval_detect.types import Embedded, EncoderSpec

_ROWS_AT_ONCE = 4096


def embeddings_schema(spec: EncoderSpec, layers: Sequence[str]) -> pa.Schema:
    """Columns of an embeddings file; the encoder's record is in the metadata under ``encoder``."""
    vectors = [pa.field(layer, pa.binary(2 * spec.layers[layer]), nullable=False) for layer in layers]
    norms = [pa.field(norm_column(layer), pa.float32(), nullable=False) for layer in layers]
    facts = [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("content_id", pa.binary(CONTENT_ID_BYTES), nullable=False),
        pa.field("phash", pa.uint64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("notes", pa.string(), nullable=False),
    ]
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
        with pq.ParquetWriter(file, schema, compression="none") as writer:
            for batch in _batches(rows):
                writer.write_table(_table(batch, schema, layers))
                count += len(batch)

    write_atomically(path, write)
    return count


def _batches(rows: Iterable[Embedded]) -> Iterator[list[Embedded]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _ROWS_AT_ONCE)):
        yield batch


def _table(batch: Sequence[Embedded], schema: pa.Schema, layers: Sequence[str]) -> pa.Table:
    columns: dict[str, object] = {"uri": [row.item.uri for row in batch], **found_facts(batch)}
    for layer in layers:
        unit, norms = normalise(np.stack([row.vectors[layer] for row in batch]))
        columns[layer] = [vector.astype("<f2").tobytes() for vector in unit]
        columns[norm_column(layer)] = norms
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
