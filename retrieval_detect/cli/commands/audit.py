"""``rd audit``: can the label be told without looking for traces of generation?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_detect.cli.formats import check_table_file, write_table_file
from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    encoder_option,
    offline_option,
)
from retrieval_detect.cli.progress import progress
from retrieval_detect.cli.settable import WEIGHTS, set_option
from retrieval_detect.errors import UsageError
from retrieval_detect.images.sources import scan

if TYPE_CHECKING:
    from retrieval_detect.evaluate.material import Material
    from retrieval_detect.evaluate.shortcuts import Level

EXIT_CODES: dict[Level, int] = {"usable": 0, "care": 4, "unusable": 5}
"""What the verdict makes of the exit code."""


@click.command(
    "audit",
    cls=Command,
    examples="""
        rd audit
        rd audit photos-and-fakes/ --encoder efficientnet-lite0
        rd audit --against test-set/ --out drop.csv
    """,
)
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--against",
    metavar="DIR",
    multiple=True,
    help="A test set, or any images, that must not be among the references.",
)
@click.option(
    "--at-most",
    metavar="N",
    type=click.IntRange(1),
    help="Look at so many images of each label, not more (default: 2000).",
)
@click.option("--rebalance", is_flag=True, help="Also list what to drop so that both labels show the same.")
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write which images are better left out, and why, as .csv or .json.",
)
@encoder_option
@set_option(WEIGHTS)
@offline_option
@click.pass_obj
def command(
    run: Run,
    folder: Path | None,
    against: tuple[str, ...],
    at_most: int | None,
    rebalance: bool,
    out: Path | None,
) -> int | None:
    """Say whether an index, or a set of images, is evidence.

    Small models try to tell the label from files alone, from traces of earlier compression, from
    trivial statistics of pixels, and from the subject; near-duplicates and test images among the
    references are counted. Nothing is changed. A folder's subjects are audited if an encoder is named.

    Exit code: 0 usable as evidence, 4 usable with care, 5 not usable; 3 if it is usable but some
    images could not be read.
    """
    from retrieval_detect.evaluate.audit import audit
    from retrieval_detect.report.audit import NO_PROOF, audit_json, audit_lines, drop_preview, drop_rows

    check_table_file(out)
    test = list(scan(against)) if against else []
    material = _material(run, folder, at_most)
    with progress(len(test), "Test images", run.output) as meter:
        found = audit(material, against=test, rebalance=rebalance, progress=meter.advance)
    leaked = found.leak.failures if found.leak else ()
    if out is not None:
        write_table_file(out, drop_rows(found), ["row_id", "uri", "label", "reason"])
    run.warn(leaked)
    lines = audit_lines(found)
    if found.drop and out is None:
        lines += drop_preview(drop_rows(found))
    run.output.record(audit_json(found), text=lines, essential=("verdict",))
    run.output.note(NO_PROOF)
    if out is not None:
        run.output.success(f"{out}: {len(found.drop):,} images better left out")
    return EXIT_CODES[found.level] or (SOME_FAILED if found.failures or leaked else 0)


def _material(run: Run, folder: Path | None, at_most: int | None) -> Material:
    """What is looked at; with vectors where the index has them, or an encoder is named."""
    from retrieval_detect.evaluate.material import AT_MOST, look_through, of_folder, of_index, with_vectors

    if folder is not None and run.flags.get("index"):
        raise UsageError("a folder and an index were named", hint="Audit one of them at a time.")
    n = at_most or AT_MOST
    listing = of_index(run.snapshot(), at_most=n) if folder is None else of_folder(folder, at_most=n)
    with progress(len(listing), "Looking", run.output) as meter:
        material = look_through(listing, progress=meter.advance)
    run.warn(material.failures)
    if folder is None or run.settings.origin("encoder") == "default" or not len(material):
        return material
    encoder = run.encoder()
    with progress(len(material), "Embedding", run.output) as meter:
        return with_vectors(material, encoder, progress=meter.advance)
