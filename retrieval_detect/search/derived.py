"""Derived files: one FAISS index per (shard, projection), deleted or damaged = rebuilt.

``<shard>.<projection>.faiss`` holds float16 codes, ``.json`` beside it the facts that vouch for them.
FAISS reads a file with a flipped bit without complaint, so nothing is read whose sha256 is not the
recorded one, and the record carries its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect import files
from retrieval_detect.errors import SearchError, VectorError
from retrieval_detect.search._faiss import faiss, faiss_errors
from retrieval_detect.search.exact import BLOCK_ROWS, ShardVectors
from retrieval_detect.search.projection import row_codes

if TYPE_CHECKING:
    from retrieval_detect.search.projection import Projection
    from retrieval_detect.types import Float16, Int64

_log = logging.getLogger(__name__)

_FOURCC = b"IxSQ"
_LARGEST_SPREAD = 2.0**-8
"""Rounding to float16 moves a unit norm by 2^-11 at most; beyond this the rows were never unit."""


@dataclass(frozen=True, slots=True, eq=False)
class ShardCodes:
    """One shard, ready to search.

    ``shard_id`` : see ``ShardVectors``. ``row_ids`` : int64 (n,), strictly increasing. ``codes`` : float16
    (n, d), a view into ``index``, the FAISS index over them. ``spread`` : max of |1/norm - 1| over the
    rows of ``codes``.
    """

    shard_id: str
    row_ids: Int64
    codes: Float16
    index: Any
    spread: float


class BankFiles:
    """Builds and opens the derived files of one projection.

    Parameters
    ----------
    folder : where they live; ``None`` keeps everything in memory.
    projection : what lies between stored vectors and codes.
    digests : remembers the sha256 of file versions; without it every opening rereads the file.
    """

    def __init__(
        self, folder: Path | None, projection: Projection, *, digests: files.DigestCache | None = None
    ) -> None:
        self.folder = folder
        self.projection = projection
        self.sha256 = digests.sha256 if digests else files.sha256_file

    def open(self, shard: ShardVectors) -> ShardCodes:
        """Codes of ``shard`` from its derived file, which is rebuilt if it cannot be trusted.

        Where the folder cannot be written, the codes are kept in memory.
        """
        d_in = sum(self.projection.widths)
        if shard.vectors.shape[1] != d_in:
            raise VectorError(
                f"shard {shard.shard_id} has vectors of {shard.vectors.shape[1]} dimensions, "
                f"the projection takes {d_in}"
            )
        if self.folder is None:
            return self._build(shard)
        path = self.folder / f"{shard.shard_id}.{self.projection.id}.faiss"
        try:
            return self._read(path, shard)
        except FileNotFoundError:
            _log.info("%s is not there yet: building it", path.name)
        except (SearchError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be trusted (%s): rebuilding it", path.name, error)
        built = self._build(shard)
        try:
            write_index(path, built.index, self._identity(shard) | {"spread": built.spread})
            forget_swept(path, [shard])
            return self._read(path, shard)
        except (SearchError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be kept (%s): searching from memory", path.name, error)
            return built

    def _read(self, path: Path, shard: ShardVectors) -> ShardCodes:
        expected = self._identity(shard)
        facts = vouched(path, expected, self.sha256)
        index = mapped(path, [_FOURCC])
        if (index.ntotal, index.d) != (expected["rows"], expected["d"]):
            raise ValueError("its shape differs")
        return ShardCodes(shard.shard_id, shard.row_ids, _view(index), index, float(facts["spread"]))

    def _identity(self, shard: ShardVectors) -> dict[str, Any]:
        return {
            "format": "retrieval-detect/bank",
            "version": 1,
            "shard": shard.shard_id,
            "projection": self.projection.id,
            "rows": len(shard.row_ids),
            "d": self.projection.d_out,
        }

    def _build(self, shard: ShardVectors) -> ShardCodes:
        library = faiss()
        quantizer = library.ScalarQuantizer.QT_fp16
        index = library.IndexScalarQuantizer(self.projection.d_out, quantizer, library.METRIC_INNER_PRODUCT)
        spread = 0.0
        for start in range(0, len(shard.row_ids), BLOCK_ROWS):
            codes = row_codes(shard.vectors[start : start + BLOCK_ROWS], self.projection)
            spread = max(spread, _spread(codes, shard, start))
            with faiss_errors(f"add shard {shard.shard_id}"):
                index.add_sa_codes(np.ascontiguousarray(codes).view(np.uint8))
        return ShardCodes(shard.shard_id, shard.row_ids, _view(index), index, spread)


def vouched(path: Path, expected: dict[str, Any], sha256: Callable[[Path], str]) -> dict[str, Any]:
    """What the record beside a derived file says of it, if both are what they were written as.

    ``expected`` : what the record must say. Raises ``OSError``, ``KeyError``, ``TypeError``, ``ValueError``.
    """
    record = json.loads(path.with_suffix(".json").read_bytes())
    facts: dict[str, Any] = record["facts"]
    if record["sha256"] != _digest(facts):
        raise ValueError("its record is damaged")
    if {key: facts[key] for key in expected} != expected:
        raise ValueError("it was made for another shard or projection")
    if sha256(path) != facts["sha256"]:
        raise ValueError("its checksum differs")
    return facts


def write_index(path: Path, index: Any, facts: dict[str, Any]) -> None:
    """Write a FAISS index, and beside it the record that vouches for it."""
    path.parent.mkdir(exist_ok=True)
    with faiss_errors(f"serialise {path.name}"):
        data = faiss().serialize_index(index)
    facts = facts | {"faiss": faiss().__version__, "sha256": hashlib.sha256(data).hexdigest()}
    files.write_bytes(path, data)
    files.write_json(path.with_suffix(".json"), {"facts": facts, "sha256": _digest(facts)})


def forget_swept(path: Path, shards: Sequence[ShardVectors]) -> None:
    """Delete a derived file again if a shard behind it has been swept: what was erased must not come back.

    Whoever sweeps deletes shards before derived files, so that one of the two is seen to.
    """
    if not all(shard.source is None or shard.source.exists() for shard in shards):
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)


def _spread(codes: Float16, shard: ShardVectors, start: int) -> float:
    wide = codes.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.abs(1 / np.sqrt((wide * wide).sum(axis=1)) - 1)
    bad = np.flatnonzero(~(deviation <= _LARGEST_SPREAD))
    if bad.size:
        row_id = shard.row_ids[start + bad[0]]
        raise VectorError(
            f"row {row_id} of shard {shard.shard_id} is not a unit vector",
            hint="check the index: rd index verify",
        )
    return float(deviation.max())


def mapped(path: Path, fourcc: Sequence[bytes]) -> Any:
    """A FAISS index mapped from its file, which must begin with one of the ``fourcc``."""
    with path.open("rb") as file:
        if file.read(4) not in fourcc:
            raise ValueError("it is a FAISS index of another kind, or none")
    library = faiss()
    with faiss_errors(f"read {path.name}"):
        return library.read_index(str(path), library.IO_FLAG_MMAP_IFC)


class _CodesOf:
    """The memory of a FAISS index for numpy, read-only; an array made of it keeps the index alive."""

    def __init__(self, index: Any) -> None:
        self.index = index
        shape = (int(index.ntotal), int(index.d))
        raw = faiss().rev_swig_ptr(index.codes.data(), index.codes.size())
        if raw.nbytes != 2 * shape[0] * shape[1]:
            raise ValueError("its size differs")
        address = raw.__array_interface__["data"][0]
        self.__array_interface__ = {"version": 3, "typestr": "<f2", "shape": shape, "data": (address, True)}


def _view(index: Any) -> Float16:
    codes: Float16 = np.asarray(_CodesOf(index))
    return codes


def _digest(facts: dict[str, Any]) -> str:
    return files.sha256_bytes(json.dumps(facts, sort_keys=True).encode())
