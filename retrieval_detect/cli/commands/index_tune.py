"""``rd index tune``: exact search, or an approximate one that finds enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.formats import Column, Rows, aligned, human
from retrieval_detect.cli.params import Command, Run, device_option, dry_run_option
from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from retrieval_detect.teach.tune import Tuning


@click.command(
    "tune",
    cls=Command,
    examples="rd index tune --dry-run\nrd index tune --recall 0.99 --kinds hnsw\nrd index tune --exact",
)
@click.option(
    "--recall", "target", metavar="SHARE", type=float, help="Of the nearest, to be found (default: 0.98)."
)
@click.option("--kinds", metavar="LIST", help="ivf-sq8, ivf-rabitq, hnsw, cagra (default: all at hand).")
@click.option("--exact", is_flag=True, help="Search exactly again; nothing is measured.")
@device_option
@dry_run_option
@click.pass_obj
def tune(run: Run, target: float | None, kinds: str | None, exact: bool, dry_run: bool) -> None:
    """Measure approximate search beside exact search, and choose what is worth it.

    Chosen is the fastest kind that finds the stated share of the nearest references in both banks, if it
    saves a fifth of the time; else banks stay exact, as they are by default. Missed neighbours can move a
    vote: calibrations are fitted again along with it, and every verdict says how much is found.
    """
    from retrieval_detect.teach.tune import TARGET, commit_tuning, try_kinds

    if exact and (target is not None or kinds is not None):
        raise UsageError("--exact tries nothing", hint="Leave out --recall and --kinds.")
    store = run.store()
    before = store.snapshot()
    tuning = None
    if not exact:
        tuning = try_kinds(
            before,
            target=TARGET if target is None else target,
            kinds=[name.strip() for name in kinds.split(",")] if kinds is not None else None,
            device=run.settings.device,
            progress=run.output.note,
        )
    kind = tuning.tuned.kind if tuning and tuning.tuned else "exact"
    record: dict[str, Any] = {"search": kind, "index": str(store.folder)}
    lines: list[str] = []
    if tuning:
        record |= {"reason": tuning.reason, "recall": tuning.target, "queries": tuning.n_queries}
        record |= {"split": tuning.split, "tried": [asdict(measured) for measured in tuning.tried]}
        lines = [*_lines(tuning), f"Best: {kind} ({tuning.reason})"]
    if dry_run:
        run.output.record(record, text=[*lines, "Nothing was written."])
        return
    manifest = commit_tuning(store, tuning, device=run.settings.device)
    if manifest.generation == before.manifest.generation:
        lines.append(f"Banks are searched exactly, as before: generation {manifest.generation}.")
    else:
        undo = f"rd bank rollback {manifest.parent}" if kind == "exact" else "rd index tune --exact"
        said = f"Banks are searched so from generation {manifest.generation} on."
        lines.append(f"{said} Undo: {undo}{run.same_index}")
    run.output.record(record | {"generation": manifest.generation}, text=lines)


def _lines(tuning: Tuning) -> list[str]:
    """A table of what was tried."""
    if not tuning.tried:
        return []
    rows = [
        {
            "bank": m.label,
            "search": f"{m.kind}, effort {m.effort}" if m.effort else m.kind,
            **{f"of {k}": share for k, share in m.recall.items()},
            "by itself": m.alone_s,
            "in a batch": m.in_batch_s,
        }
        for m in tuning.tried
    ]
    shown = {"bank": human, "search": human, "by itself": _ms, "in a batch": _ms}
    columns = [Column(name, show=shown.get(name, "{:.1%}".format)) for name in rows[0]]
    whose = "set aside" if tuning.split == "calib" else "of the banks"
    return [
        f"Shares of the nearest that are found, and times a query, by {tuning.n_queries} references {whose}",
        *(f"  {line}" for line in aligned(Rows(rows, columns))),
    ]


def _ms(time_s: float | None) -> str:
    return "-" if time_s is None else f"{time_s * 1000:.2f} ms"


def search_line(search: Mapping[str, Any] | None) -> str:
    """What ``rd index info`` says of how banks are searched."""
    if search is None:
        return "exact"
    if not search["in_use"]:
        return f"exact; it was tuned ({search['kind']}) for another projection: rd index tune"
    shares = [
        f"{label} bank {', '.join(f'{share:.1%} of {k}' for k, share in bank['recall'].items())}"
        for label, bank in search["banks"].items()
    ]
    line = f"approximate ({search['kind']}); found of the nearest: {'; '.join(shares)}"
    if search["stale"]:
        share = max(bank["compared"] for bank in search["banks"].values())
        line += f"; {share:.0%} came since and are all compared, which is slow: rd index tune"
    return line
