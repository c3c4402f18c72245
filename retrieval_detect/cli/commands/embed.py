"""``rd embed``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    computing_options,
    dry_run_option,
    encoder_option,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from retrieval_detect.cli.output import Output
    from retrieval_detect.cli.progress import Meter
    from retrieval_detect.types import Embedded, Failure


@click.command(
    "embed",
    cls=Command,
    examples="""
        rd embed photos/ --out vectors.parquet
        rd embed photos/ --out vectors.parquet --encoder efficientnet-lite0
    """,
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write."
)
@click.option(
    "--layers", metavar="LIST", default="proj", help="Vectors to write an image: proj, pre, blockNN."
)
@encoder_option
@computing_options()
@dry_run_option
@click.pass_obj
def command(run: Run, paths: tuple[str, ...], out: Path, layers: str, dry_run: bool) -> int | None:
    """Write embeddings of images to a Parquet file.

    One row an image: uri, content id, size, and for each layer the unit vector as float16 bytes
    (little-endian) with its norm before normalisation. The encoder is written into the file.
    """
    from retrieval_detect.cli.progress import progress
    from retrieval_detect.cli.recipes import parse_layers
    from retrieval_detect.encoders.base import require_layers
    from retrieval_detect.encoders.pipeline import embed
    from retrieval_detect.encoders.registry import load_encoder
    from retrieval_detect.files import require_folder_of
    from retrieval_detect.images.sources import scan
    from retrieval_detect.report.words import number
    from retrieval_detect.store.exchange import write_embeddings

    settings = run.settings
    wanted = parse_layers(layers)
    require_folder_of(out)
    items = list(scan(paths))
    if dry_run:
        text = f"Would embed {number(len(items), 'image')} to {out}. Nothing was written."
        run.output.record({"out": str(out), "would_embed": len(items)}, text=text)
        return None
    encoder = load_encoder(
        settings.encoder,
        weights=settings.encoder_weights,
        device=settings.device,
        offline=settings.offline,
    )
    require_layers(encoder.spec, wanted)
    failures: list[Failure] = []
    with progress(len(items), "Embedding", run.output) as meter:
        results = embed(
            items, encoder, layers=wanted, batch_size=settings.batch_size, workers=settings.workers
        )
        done = _usable(results, failures, run.output, meter)
        rows = write_embeddings(out, done, spec=encoder.spec, layers=wanted)
    name = encoder.spec.name
    run.output.record(
        {"out": str(out), "rows": rows, "failures": len(failures), "encoder": name},
        text=f"{out}: {number(rows, 'embedding')} of {name}, layers {', '.join(wanted)}",
    )
    return SOME_FAILED if failures else None


def _usable(
    results: Iterable[Embedded | Failure], failures: list[Failure], output: Output, meter: Meter
) -> Iterator[Embedded]:
    """What can be written; the rest goes to ``failures``. If that is all, nothing must be overwritten."""
    from retrieval_detect.errors import ImageError
    from retrieval_detect.types import Failure

    for result in results:
        meter.advance()
        if isinstance(result, Failure):
            failures.append(result)
            output.warning(f"{result.uri}: {result.message}")
        else:
            yield result
    if failures and meter.n_done == len(failures):
        raise ImageError("none of the images could be used, so nothing was written", reason="unreadable")
