"""``rd index fitted``: the projections, heads, calibrations, regions and coverage of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.params import Group, Run, dry_run_option

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import FittedKind, FittedRecord
    from retrieval_detect.store.snapshot import Snapshot

_KINDS: tuple[FittedKind, ...] = ("projection", "head", "calibration", "regions", "coverage")


@click.group("fitted", cls=Group, examples="rd index fitted list\nrd index fitted remove projection white")
def fitted() -> None:
    """List and remove what was fitted: projections, heads, calibrations, regions, coverage."""


@fitted.command("list", examples="rd index fitted list\nrd index fitted list --json")
@click.pass_obj
def list_(run: Run) -> None:
    """List what was fitted, on how many references, and the command that fits it again.

    What is stale was fitted on other references than there are now. A calibration or regions count the images
    set aside whose scores they keep. A head that was trained elsewhere has seen no reference.
    """
    from retrieval_detect.ask.anew import command

    snapshot = run.snapshot()
    stale = snapshot.stale()
    rows: list[dict[str, Any]] = [
        {
            "kind": record.kind,
            "name": record.name,
            "method": record.method,
            "rows": _n_rows(snapshot, record, stale=record in stale),
            "stale": record in stale,
            "again": command(snapshot, record),
        }
        for record in sorted(snapshot.manifest.fitted, key=lambda f: _KINDS.index(f.kind))
    ]
    run.output.table(rows, list(rows[0]) if rows else [])
    run.output.note(f"The banks are searched through {snapshot.manifest.projection}.")
    if not rows:
        run.output.note("Nothing is fitted yet: rd fit --help, rd train --help")


def _n_rows(snapshot: Snapshot, record: FittedRecord, *, stale: bool) -> int | None:
    """On how many rows something was fitted; ``None`` where an earlier rd did not keep it."""
    from retrieval_detect.ask.fitted import CALIBRATION, REGIONS, read

    if record.kind == "calibration" and (found := read(snapshot, CALIBRATION, record.name)):
        return int(found.quality["photographs"] + found.quality["fakes"])
    if record.kind == "regions" and (regions := read(snapshot, REGIONS, record.name)):
        return len(regions.photographs)
    return record.n_rows or (None if stale else snapshot.n_rows(record.strata))


@fitted.command(
    "remove",
    examples="""
        rd index fitted remove projection white --dry-run
        rd index fitted remove head ufd
        rd index fitted remove calibration density--white
    """,
)
@click.argument("kind", type=click.Choice(_KINDS), metavar="KIND")
@click.argument("name", metavar="NAME")
@dry_run_option
@click.pass_obj
def remove(run: Run, kind: FittedKind, name: str, dry_run: bool) -> None:
    """Take something fitted out of the index; rd bank rollback brings it back.

    KIND is projection, head, calibration, regions or coverage, NAME as rd index fitted list shows it. What
    rests on it goes with it: calibrations and regions through a projection, and those of a head. The
    projection that banks are searched through stays.
    """
    from retrieval_detect.teach.fitted import removable
    from retrieval_detect.teach.fitted import remove as remove_fitted

    store = run.store()
    along = [{"kind": f.kind, "name": f.name} for f in removable(store.snapshot(), kind, name)[1:]]
    record = {"index": str(store.folder), "kind": kind, "name": name, "along": along}
    with_it = f" and, with it, {', '.join(' '.join(f.values()) for f in along)}" if along else ""
    if dry_run:
        run.output.record(record, text=[f"Would remove {kind} {name}{with_it}. Nothing was written."])
        return
    manifest = remove_fitted(store, kind, name)
    run.output.record(
        record | {"generation": manifest.generation},
        text=[f"Removed {kind} {name}{with_it}.", run.committed(manifest)],
    )
