"""``rd embed``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    computing_options,
    dry_run_option,
    encoder_option,
)
from retrieval_detect.cli.progress import progress
from retrieval_detect.cli.recipes import parse_layers
from retrieval_detect.errors import ImageError
from retrieval_detect.files import require_folder_of
from retrieval_detect.images.shares import Share, share_of
from retrieval_detect.images.sources import scan
from retrieval_detect.report.words import number
from retrieval_detect.types import Embedded, Failure


@click.command(
    "embed",
    cls=Command,
    examples="""
        rd embed photos/ --out vectors.parquet
        rd embed photos/ --out vectors.parquet --encoder efficientnet-lite0
        rd embed photos/ --out part-2.parquet --shard 2/8
    """,
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write."
)
@click.option(
    "--layers", metavar="LIST", default="proj", help="Vectors to write an image: proj, pre, blockNN."
)
@click.option(
    "--shard",
    metavar="I/N",
    callback=lambda _context, _option, text: text and Share.of(text),
    help="Only one of N parts, 1/N to N/N: the same images wherever the folder lies and whoever asks.",
)
@encoder_option
@computing_options()
@dry_run_option
@click.pass_obj
def command(
    run: Run, paths: tuple[str, ...], out: Path, layers: str, shard: Share | None, dry_run: bool
) -> int | None:
    """Write embeddings of images to a Parquet file.

    One row an image: uri, content id, size, and for each layer the unit vector, a list of float16, which
    DuckDB, Lance, pandas and Polars open as a vector, with its norm before normalisation. The encoder is
    written into the file.

    --shard divides the work between machines: an image's part follows from its path below the folder, archive
    or table given, whatever else lies there. A part may be empty, and has no rows then.
    """
    wanted = parse_layers(layers)
    require_folder_of(out)
    items = list(share_of(scan(paths), shard) if shard else scan(paths))
    if dry_run:
        text = f"Would embed {number(len(items), 'image')} to {out}. Nothing was written."
        run.output.record({"out": str(out), "would_embed": len(items)}, text=text)
        return None
    from retrieval_detect.encoders.base import require_layers
    from retrieval_detect.encoders.pipeline import embed
    from retrieval_detect.store.exchange import write_embeddings

    encoder = run.encoder()
    require_layers(encoder.spec, wanted)
    failures: list[Failure] = []

    def usable(results: Iterable[Embedded | Failure]) -> Iterator[Embedded]:
        for result in results:
            meter.advance()
            if isinstance(result, Failure):
                failures.append(result)
                run.warn([result])
            else:
                yield result
        if failures and meter.n_done == len(failures):  # what lies at ``out`` must not be overwritten
            raise ImageError("none of the images could be used, so nothing was written", reason="unreadable")

    with progress(len(items), "Embedding", run.output) as meter:
        done = usable(embed(items, encoder, layers=wanted, **run.batches))
        rows = write_embeddings(out, done, spec=encoder.spec, layers=wanted)
    name = encoder.spec.name
    run.output.record(
        {"out": str(out), "rows": rows, "failures": len(failures), "encoder": name},
        text=f"{out}: {number(rows, 'embedding')} of {name}, layers {', '.join(wanted)}",
    )
    return SOME_FAILED if failures else None
