"""What an index has fitted, by kind and name: what each kind is as files, and the one reader of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from retrieval_detect.errors import EncoderMismatch, UsageError
from retrieval_detect.heads.registry import read_head
from retrieval_detect.scoring.calibration import Calibration
from retrieval_detect.scoring.coverage import Coverage
from retrieval_detect.scoring.highest_crops import HighestCrops
from retrieval_detect.search.projection import Affine, Identity
from retrieval_detect.store.manifest import ALL_ROWS, BANK_ROWS
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.shards import damaged
from retrieval_detect.store.training import require_layers_stored

if TYPE_CHECKING:
    from retrieval_detect.heads.base import Head
    from retrieval_detect.search.projection import Projection
    from retrieval_detect.store.manifest import FittedKind, FittedRecord, RowStratum
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import EncoderSpec

Files: TypeAlias = Mapping[str, bytes]
"""Suffix → bytes."""
T = TypeVar("T")
Rates = TypeVar("Rates", Calibration, HighestCrops)
"""What says how often something happens among rows set aside: it holds for those very rows alone."""

PLAIN = "identity"
"""The projection every index has: the stored vectors of the layer that tells near-duplicates."""


def _of_any_encoder(files: Files) -> str:  # noqa: ARG001
    return ""


def _of_any_index(snapshot: Snapshot, found: Any) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of what is fitted.

    ``to_files`` : of a thing and the encoder whose vectors it is for; ``from_files`` : its inverse, raises
    ``KeyError``, ``TypeError``, ``ValueError`` or ``AttributeError`` on foreign data, and so does
    ``encoder``, the fingerprint that files were fitted for (``""``: they do not say). ``require`` raises
    where a thing cannot be used with an index. ``strata`` : the classes of rows it is fitted on.
    """

    name: FittedKind
    to_files: Callable[[T, EncoderSpec], Files]
    from_files: Callable[[Files], T]
    encoder: Callable[[Files], str] = _of_any_encoder
    require: Callable[[Snapshot, T], None] = _of_any_index
    strata: tuple[RowStratum, ...] = BANK_ROWS


def _as_json(found: Calibration | HighestCrops | Coverage, encoder: EncoderSpec) -> Files:  # noqa: ARG001
    return {"json": json.dumps(found.to_json(), sort_keys=True).encode()}


PROJECTION: Kind[Affine] = Kind(
    "projection",
    to_files=lambda found, _: {"safetensors": found.to_bytes()},
    from_files=lambda files: Affine.from_bytes(files["safetensors"]),
    require=lambda snapshot, found: require_layers_stored(snapshot, found.layers),
)
HEAD: Kind[Head] = Kind(
    "head",
    to_files=lambda found, encoder: found.to_files(fingerprint=encoder.fingerprint),
    from_files=read_head,
    encoder=lambda files: json.loads(files["json"])["about"].get("fingerprint", ""),
)
CALIBRATION: Kind[Calibration] = Kind(
    "calibration",
    to_files=_as_json,
    from_files=lambda files: Calibration.from_json(json.loads(files["json"])),
    strata=ALL_ROWS,
)
REGIONS: Kind[HighestCrops] = Kind(
    "regions",
    to_files=_as_json,
    from_files=lambda files: HighestCrops.from_json(json.loads(files["json"])),
    strata=(*BANK_ROWS, ("real", "calib")),
)
COVERAGE: Kind[Coverage] = Kind(
    "coverage",
    to_files=_as_json,
    from_files=lambda files: Coverage.from_json(json.loads(files["json"])),
    require=lambda snapshot, found: require_layers_stored(snapshot, (found.layer,)),
    strata=(("real", "bank"), ("real", "calib")),
)
KINDS: Mapping[FittedKind, Kind[Any]] = {
    "projection": PROJECTION,
    "head": HEAD,
    "calibration": CALIBRATION,
    "regions": REGIONS,
    "coverage": COVERAGE,
}


def files_of(snapshot: Snapshot, record: FittedRecord) -> dict[str, bytes]:
    """The files of something fitted; raises ``IndexCorrupt`` for one that cannot be read."""
    return {suffix: snapshot.read(snapshot.fitted_path(record, suffix)) for suffix in record.files}


def read(snapshot: Snapshot, kind: Kind[T], name: str) -> T | None:
    """What of a kind is called ``name``, if anything is.

    Raises ``IndexCorrupt`` if its files are none, ``EncoderMismatch`` if it is of another encoder's vectors.
    """
    record = snapshot.fitted(kind.name, name)
    if record is None:
        return None
    files = files_of(snapshot, record)
    try:
        found, encoder = kind.from_files(files), kind.encoder(files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(snapshot.fitted_path(record, next(iter(files)))) from error
    if encoder and encoder != snapshot.manifest.encoder.fingerprint:
        raise EncoderMismatch(
            f"{kind.name} {name!r} was trained for another encoder", hint="Train it: rd train"
        )
    kind.require(snapshot, found)
    return found


def read_projection(snapshot: Snapshot, name: str | None = None) -> Projection:
    """The projection called ``name``; ``None`` is the index's default.

    Raises ``UsageError`` if there is none; see ``read``.
    """
    name = snapshot.manifest.projection if name is None else name
    if name == PLAIN:
        layer = grouping_layer(snapshot.manifest.layers)
        return Identity(layer, snapshot.manifest.encoder.layers[layer])
    return read_fitted(snapshot, name)


def read_fitted(snapshot: Snapshot, name: str) -> Affine:
    """The same of one that was fitted, ``PLAIN`` being none."""
    found = read(snapshot, PROJECTION, name)
    if found is None:
        known = [PLAIN, *(f.name for f in snapshot.manifest.fitted if f.kind == "projection")]
        raise UsageError(
            f"there is no projection {name!r}",
            hint=f"There are: {', '.join(known)}. Fit one: rd fit projection {name} --kind whiten",
        )
    return found


def load_head(snapshot: Snapshot, name: str) -> Head:
    """The head called ``name``; raises ``UsageError`` if there is none; see ``read``."""
    found = read(snapshot, HEAD, name)
    if found is None:
        raise UsageError(f"there is no head {name!r}", hint="See: rd index fitted list")
    return found
