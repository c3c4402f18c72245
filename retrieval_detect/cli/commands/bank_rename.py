"""``rd bank rename``: names that are one, and names that were wrong."""

from __future__ import annotations

import click

from retrieval_detect.cli.params import Command, Run, device_option, dry_run_option
from retrieval_detect.names import NAMED


@click.command(
    "rename",
    cls=Command,
    examples="""
        rd bank rename
        rd bank rename generator "sd xl" sdxl
    """,
)
@click.argument("column", required=False, type=click.Choice(NAMED), metavar="[COLUMN]")
@click.argument("old", required=False, metavar="[OLD]")
@click.argument("new", required=False, metavar="[NEW]")
@device_option
@dry_run_option
@click.pass_obj
def rename(run: Run, column: str | None, old: str | None, new: str | None, dry_run: bool) -> None:
    """Call references otherwise: what gets the name of others is one with them.

    COLUMN is generator, source, category, licence, contributor, batch, tags or pair_id. Without it every
    name that rd index verify reports as spelt in several ways gets the one that rd would give it. What was
    fitted by the old names is fitted anew.
    """
    from retrieval_detect.cli.commands.bank import committed, opened
    from retrieval_detect.names import shown
    from retrieval_detect.store.renaming import misspelt
    from retrieval_detect.teach.renaming import new_name
    from retrieval_detect.teach.renaming import rename as commit

    if column is not None and (old is None or new is None):
        raise click.UsageError("give the old name and the new one, or nothing.")
    index = opened(run)
    snapshot = index.snapshot()
    names = misspelt(snapshot) if column is None else new_name(snapshot, column, old or "", new or "")
    record = {"names": names}
    changes = [f"{c} {shown(a)} → {shown(b)}" for c, found in names.items() for a, b in sorted(found.items())]
    if dry_run or not names:
        lines = [f"Would call {change}." for change in changes] or ["All names are spelt as rd spells them."]
        run.output.record(record, text=[*lines, "Nothing was written."])
        return
    manifest = commit(index.store, names, detail={"command": "bank rename"}, device=run.settings.device)
    images = manifest.operation.detail["references"]
    text = f"Renamed {images} reference{'s' * (images != 1)}: {'; '.join(changes)}."
    committed(run, manifest, record | {"references": images}, text)
