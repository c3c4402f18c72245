"""Writing what was fitted: one way for projections, heads, calibrations and regions."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

from retrieval_detect.ask.calibrations import calibration_name
from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from retrieval_detect.ask.fitted import Kind
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.scoring.highest_crops import HighestCrops
    from retrieval_detect.store.manifest import FittedRecord, Manifest, RowStratum
    from retrieval_detect.store.store import Store
    from retrieval_detect.store.writer import Writer

    Rows: TypeAlias = tuple[str, tuple[RowStratum, ...]]

T = TypeVar("T")
Rates = TypeVar("Rates", "Calibration", "HighestCrops")
"""What says how often something happens among rows set aside: it holds for those very rows alone."""


def write(writer: Writer, kind: Kind[T], name: str, found: T, *, method: str, rows: Rows) -> FittedRecord:
    """Something fitted as files of the index; it counts once it is committed.

    ``method`` : how it was fitted; ``rows`` : see ``Writer.write_fitted``.
    """
    files = kind.to_files(found, writer.snapshot.manifest.encoder)
    return writer.write_fitted(kind.name, name, method=method, files=files, rows=rows)


def write_rates(writer: Writer, kind: Kind[Rates], found: Rates) -> FittedRecord:
    """The same of a calibration or of regions, which have their name by what was asked."""
    name = calibration_name(found.method, found.projection)
    return write(writer, kind, name, found, method="conformal", rows=(found.rows_digest, kind.strata))


def commit_rates(store: Store, kind: Kind[Rates], found: Rates) -> Manifest:
    """Make it the one in force for its method; refuses if the references have changed since it was fitted."""
    with store.writer() as writer:
        if writer.snapshot.rows_digest(kind.strata) != found.rows_digest:
            raise UsageError(
                f"the references changed while the {kind.name} {_was(kind.name)} fitted",
                hint=f"Run rd fit {kind.name} again.",
            )
        return writer.fit([write_rates(writer, kind, found)])


def _was(name: str) -> str:
    return "were" if name.endswith("s") else "was"
