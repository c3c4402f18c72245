"""``rd head import``: heads that were trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_detect.cli.params import Group, Run, dry_run_option

if TYPE_CHECKING:
    from retrieval_detect.heads.base import Head

_TRAINED = ".safetensors"


@click.group("head", cls=Group, examples="rd head import fc_weights.pth --name ufd")
def command() -> None:
    """Import heads that were trained elsewhere."""


@command.command(
    "import",
    examples="""
        rd head import fc_weights.pth --name ufd
        rd head import resnet50.head.safetensors --name cnndetection
    """,
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", metavar="NAME", help="What to call it (default: ufd, or finetuned).")
@click.option("--layer", metavar="LAYER", help="The layer that a .pth file reads (default: proj).")
@dry_run_option
@click.pass_obj
def import_head(run: Run, file: Path, name: str | None, layer: str | None, dry_run: bool) -> None:
    """Import a head that was trained elsewhere.

    FILE is what rd finetune writes (NAME.head.safetensors, with NAME.head.json beside it), for an index
    built with the encoder trained along with it; or the published weights of UniversalFakeDetect. These fit
    embeddings of ViT-L-14:openai@crop alone; with another encoder their scores mean nothing.
    """
    from retrieval_detect.heads.imported import import_fc_weights, read_trained
    from retrieval_detect.store.training import require_layers_stored
    from retrieval_detect.teach.heads import check_name, commit_head, import_for

    trained = file.suffix == _TRAINED
    if trained and layer:
        raise click.UsageError("--layer is of .pth files: this file says which layer it reads")
    name = name or ("finetuned" if trained else "ufd")
    check_name(name)
    store = run.store()
    snapshot = store.snapshot()
    head: Head
    if trained:
        head = read_trained(file, snapshot.manifest.encoder)
        require_layers_stored(snapshot, head.layers)
    else:
        head = import_fc_weights(file, layer=layer or "proj")
        for warning in import_for(snapshot, head):
            run.output.warning(warning)
    record = {"index": str(store.folder), "name": name, "kind": head.kind, "layer": ", ".join(head.layers)}
    if dry_run:
        run.output.record(record, text=[f"{file} can be imported as {name}. Nothing was written."])
        return
    manifest = commit_head(store, name, head, strata=())
    run.output.record(
        record | {"generation": manifest.generation},
        text=[f"Imported {file} as {name}, generation {manifest.generation}."],
    )
