"""Writing what was fitted, and taking it out: one way for all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

from retrieval_detect.ask.calibrations import calibration_name, method_of, projection_of
from retrieval_detect.ask.fitted import PLAIN, Rates, load_head
from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from retrieval_detect.ask.fitted import Kind
    from retrieval_detect.store.manifest import FittedKind, FittedRecord, Manifest, RowStratum
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.store.writer import Writer

    Rows: TypeAlias = tuple[str, tuple[RowStratum, ...]]

T = TypeVar("T")


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


def commit_rates(
    store: Store,
    kind: Kind[Rates],
    found: Rates,
    *,
    along: Callable[[Writer, Snapshot], Iterable[Callable[[], FittedRecord]]] = lambda *_: (),
) -> Manifest:
    """Make it the one in force for its method; refuses if the references have changed since it was fitted.

    ``along`` : gives what else to fit in the same generation.
    """
    with store.writer() as writer:
        if writer.snapshot.rows_digest(kind.strata) != found.rows_digest:
            was = "were" if kind.name.endswith("s") else "was"
            raise UsageError(
                f"the references changed while the {kind.name} {was} fitted",
                hint="Run the same command again.",
            )
        others: list[FittedRecord] = [fit() for fit in along(writer, writer.snapshot)]
        return writer.fit([write_rates(writer, kind, found), *others])


# ---------------------------------------------------------------- removing


def remove(store: Store, kind: FittedKind, name: str) -> Manifest:
    """Take something fitted and what rests on it out of an index, in one generation; see ``removable``."""
    with store.writer() as writer:
        return writer.forget(kind, name, along=removable(writer.snapshot, kind, name)[1:])


def removable(snapshot: Snapshot, kind: FittedKind, name: str) -> list[FittedRecord]:
    """What is called so, and what goes with it: rates through a projection, or by the scores of a head.

    Raises ``UsageError`` for what is not there, for the projection in force, and for a head that an ensemble
    is made of.
    """
    record = snapshot.fitted(kind, name)
    if record is None:
        raise UsageError(f"there is no {kind} {name!r} that was fitted", hint="See: rd index fitted list")
    if kind == "projection" and snapshot.manifest.projection == name:
        raise UsageError(
            f"the banks are searched through projection {name!r}",
            hint=f"Search them through another first: rd fit projection {PLAIN}",
        )
    for other in snapshot.manifest.fitted if kind == "head" else ():
        ensemble = other.kind == "head" and other.method == "ensemble"
        if ensemble and name in load_head(snapshot, other.name).members:
            raise UsageError(
                f"ensemble {other.name!r} is made of {name!r}",
                hint=f"Remove it first: rd index fitted remove head {other.name}",
            )
    owner: Callable[[str], str] | None = {"projection": projection_of, "head": method_of}.get(kind)
    rates = [f for f in snapshot.manifest.fitted if f.kind in ("calibration", "regions")]
    return [record, *(f for f in rates if owner and owner(f.name) == name)]
