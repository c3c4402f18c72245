"""``rd embed``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_detect.cli._params import (
    Command,
    Run,
    batch_size_option,
    device_option,
    encoder_option,
    encoder_weights_option,
    offline_option,
    workers_option,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retrieval_detect.types import Embedded

SOME_FAILED = 3


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
@encoder_weights_option
@offline_option
@device_option
@workers_option
@batch_size_option
@click.pass_obj
def command(run: Run, paths: tuple[str, ...], out: Path, layers: str) -> int | None:
    """Write embeddings of images to a Parquet file.

    One row an image: uri, content id, size, and for each layer the unit vector as float16 bytes
    (little-endian) with its norm before normalisation. The encoder is written into the file.
    """
    from retrieval_detect.cli._progress import progress
    from retrieval_detect.encoders.pipeline import embed
    from retrieval_detect.encoders.registry import load_encoder
    from retrieval_detect.images.sources import scan
    from retrieval_detect.recipes import parse_layers
    from retrieval_detect.store.exchange import write_embeddings
    from retrieval_detect.types import Failure

    settings = run.settings
    wanted = parse_layers(layers)
    items = list(scan(paths))
    encoder = load_encoder(
        settings.encoder,
        weights=settings.encoder_weights,
        device=settings.device,
        offline=settings.offline,
    )
    failed = 0
    with progress(len(items), "Embedding", run.output) as meter:

        def succeeded() -> Iterator[Embedded]:
            nonlocal failed
            for result in embed(
                items,
                encoder,
                layers=wanted,
                batch_size=settings.batch_size,
                workers=settings.workers,
            ):
                meter.advance()
                if isinstance(result, Failure):
                    failed += 1
                    run.output.warning(f"{result.uri}: {result.message}")
                else:
                    yield result

        rows = write_embeddings(out, succeeded(), spec=encoder.spec, layers=wanted)
    name = encoder.spec.name
    run.output.record(
        {"out": str(out), "rows": rows, "failures": failed, "encoder": name},
        text=f"{out}: {rows:,} embeddings of {name}, layers {', '.join(wanted)}",
    )
    return SOME_FAILED if failed else None
