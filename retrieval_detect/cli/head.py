"""``rd head``: the heads an index has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from retrieval_detect.cli._params import Group, Run, dry_run_option


@click.group("head", cls=Group, examples="rd head list\nrd head import fc_weights.pth --name ufd")
def command() -> None:
    """List, import and remove trained heads."""


@command.command("list", examples="rd head list")
@click.pass_obj
def list_heads(run: Run) -> None:
    """List heads, what they read, and whether references changed since."""
    from retrieval_detect.config import index_path
    from retrieval_detect.methods import load_head
    from retrieval_detect.store.snapshot import Snapshot

    snapshot = Snapshot.open(index_path(run.settings))
    stale = snapshot.stale()
    rows: list[dict[str, Any]] = []
    for record in snapshot.manifest.fitted:
        if record.kind == "head":
            head = load_head(snapshot, record.name)
            reads = ", ".join(head.members or head.layers)
            rows.append(
                {"name": record.name, "kind": record.method, "reads": reads, "stale": record in stale}
            )
    run.output.table(rows, ["name", "kind", "reads", "stale"])
    if not rows:
        run.output.note("No heads yet: rd train --help")


@command.command("import", examples="rd head import fc_weights.pth --name ufd")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", metavar="NAME", default="ufd", help="What to call it (default: ufd).")
@click.option("--layer", metavar="LAYER", default="proj", help="The layer it reads (default: proj).")
@dry_run_option
@click.pass_obj
def import_head(run: Run, file: Path, name: str, layer: str, dry_run: bool) -> None:
    """Import the published weights of UniversalFakeDetect.

    They fit embeddings of ViT-L-14:openai@crop alone; with another encoder their scores mean nothing.
    """
    from retrieval_detect.config import index_path
    from retrieval_detect.heads.published import import_fc_weights
    from retrieval_detect.store.store import Store
    from retrieval_detect.train import check_name, commit_head, import_for

    check_name(name)
    store = Store(index_path(run.settings))
    head = import_fc_weights(file, layer=layer)
    snapshot = store.snapshot()
    for warning in import_for(snapshot, head):
        run.output.warning(warning)
    record = {"index": str(store.folder), "name": name, "kind": head.kind, "layer": layer}
    if dry_run:
        run.output.record(record, text=[f"{file} can be imported as {name}. Nothing was written."])
        return
    manifest = commit_head(store, name, head, strata=())
    run.output.record(
        record | {"generation": manifest.generation},
        text=[f"Imported {file} as {name}, generation {manifest.generation}."],
    )


@command.command("remove", examples="rd head remove ufd")
@click.argument("name")
@dry_run_option
@click.pass_obj
def remove_head(run: Run, name: str, dry_run: bool) -> None:
    """Take a head and its calibrations out of the index; rd bank rollback brings them back."""
    from retrieval_detect.config import index_path
    from retrieval_detect.store.store import Store
    from retrieval_detect.train import remove_head, require_removable

    store = Store(index_path(run.settings))
    record = {"index": str(store.folder), "name": name}
    if dry_run:
        require_removable(store.snapshot(), name)
        run.output.record(record, text=[f"Head {name} can be removed. Nothing was written."])
        return
    manifest = remove_head(store, name)
    run.output.record(
        record | {"generation": manifest.generation},
        text=[f"Removed head {name}, generation {manifest.generation}."],
    )
