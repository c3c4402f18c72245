"""``rd index map``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.params import Command, Run, computing_options
from retrieval_detect.cli.report_files import check_report_file
from retrieval_detect.errors import ImageError
from retrieval_detect.images.items import file_item
from retrieval_detect.types import Failure

if TYPE_CHECKING:
    from retrieval_detect.review.map import Atlas
    from retrieval_detect.store.snapshot import Snapshot

_METHODS = ("pca", "tsne", "umap")


@click.command(
    "map",
    cls=Command,
    examples="""
        rd index map banks.html
        rd index map banks.html --colour generator --method tsne
        rd index map where.html --query photo.jpg
    """,
)
@click.argument("out", metavar="OUT.html", type=click.Path(path_type=Path))
@click.option(
    "--method", "how", type=click.Choice(_METHODS), default="pca", help="How to flatten (default: pca)."
)
@click.option(
    "--colour",
    type=click.Choice(["label", "generator", "source"]),
    default="label",
    help="What colours tell apart (default: label).",
)
@click.option(
    "--query", metavar="IMAGE", type=click.Path(exists=True, path_type=Path), help="Show where IMAGE lies."
)
@computing_options()
@click.pass_obj
def map_(run: Run, out: Path, how: Any, colour: Any, query: Path | None) -> None:
    """Draw the references of both banks in two dimensions, as one page.

    Each dot is a reference and says on hover what it is. Of more than 5,000 references a part is drawn,
    evenly from every generator and source. A map distorts distances; it shows what is in an index and is
    no evidence about an image.
    """
    from retrieval_detect.report.html.map import map_view
    from retrieval_detect.report.html.write import write_map
    from retrieval_detect.review.map import draw

    check_report_file(out)
    snapshot = run.snapshot()
    atlas = draw(snapshot, method=how)
    place = _place(run, snapshot, atlas, query) if query else None
    write_map(out, map_view(atlas, index=snapshot.folder.resolve().name, colour=colour, place=place))
    record = {"out": str(out), "method": how, "references": len(atlas.row_ids), "of": atlas.total}
    run.output.record(record, text=[f"{out}: {len(atlas.row_ids):,} of {atlas.total:,} references"])


def _place(run: Run, snapshot: Snapshot, atlas: Atlas, query: Path) -> tuple[float, float]:
    """Where an image lies on the map; ``ImageError`` if it cannot be used."""
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.encoders.pipeline import embed

    detector = Detector(snapshot, **run.running)
    (found,) = embed([file_item(query, query.name)], detector.encoder, layers=atlas.projection.layers)
    if isinstance(found, Failure):
        raise ImageError(f"{found.uri}: {found.message}", reason=found.reason, uri=found.uri)
    return atlas.place(found.vectors)
