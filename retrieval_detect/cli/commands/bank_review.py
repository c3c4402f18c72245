"""``rd bank check`` and ``rd bank discover``: what a person should look at; neither changes an index."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_detect.cli.formats import check_table_file, write_table_file
from retrieval_detect.cli.output import Column
from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    computing_options,
    device_option,
    method_option,
)
from retrieval_detect.cli.progress import progress
from retrieval_detect.cli.settable import ASKING, set_option
from retrieval_detect.images.sources import scan
from retrieval_detect.report.words import name_of
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.review.unknown import Discovery

_COLUMNS = ("input", "cluster", "rank", "verdict", "score", "sha256")
_MOST_NAMED = 20
"""Images written out in a proposed command; a shell line with hundreds helps nobody."""


@click.command(
    "check",
    cls=Command,
    examples="""
        rd bank check
        rd bank check --at-most 5000 --format csv > look-at-these.csv
    """,
)
@click.option(
    "--at-most", metavar="N", type=click.IntRange(1), help="Ask N references, evenly spread, not all."
)
@method_option
@device_option
@set_option(*ASKING)
@click.pass_obj
def check(run: Run, at_most: int | None) -> None:
    """List references whose neighbours have the other label.

    Each is asked about as an image never seen, without its near-duplicates. Listed is what disagrees
    by the vote and by its ten nearest, the strongest first; then batches and contributors of whose
    references unusually many disagree. How many would be listed by chance is read from how many
    score as far out on the right side. Nothing is changed.
    """
    from retrieval_detect.ask.fitted import PLAIN
    from retrieval_detect.report.findings import NO_PROOF, check_json, check_lines, check_rows
    from retrieval_detect.review.disagreements import check as find

    settings, output = run.settings, run.output
    snapshot = run.detector().snapshot
    total = sum(snapshot.manifest.live_rows(label, "bank") for label in LABELS)
    with progress(total if at_most is None else min(total, at_most), "Asking", output) as meter:
        found = find(
            snapshot, run.question(), at_most=at_most, device=settings.device, progress=meter.advance
        )
    if (settings.projection or snapshot.manifest.projection) != PLAIN:
        output.note("The projection was fitted on these references too, so they agree somewhat too well.")
    if output.format in ("json", "jsonl"):
        output.record(check_json(found))
        return
    columns: list[str | Column] = [
        *("row_id", "label", Column("name", show=name_of), "score"),
        *(Column("others", "of other label"), Column("of", "of nearest"), "as_far", "expected"),
        *("other_similarity", "other_uri", "uri"),
    ]
    if found.disagreements or output.format == "csv":
        output.table(check_rows(found), columns)
    output.lines(check_lines(found))
    if found.disagreements:
        output.note(NO_PROOF)
        row = found.disagreements[0].row_id
        output.note(f"  rd bank remove --row {row} --reason TEXT{run.same_index}")


# ---------------------------------------------------------------- discover


@click.command(
    "discover",
    cls=Command,
    examples="""
        rd bank discover inbox/
        rd bank discover inbox/ --include-uncertain --out candidates.csv
    """,
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--min-size",
    metavar="N",
    type=click.IntRange(2),
    default=5,
    help="Least number of different images in a candidate (default: 5).",
)
@click.option("--include-uncertain", is_flag=True, help="Also gather images that fit both banks.")
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write which image is in which candidate, as .csv or .json.",
)
@click.option(
    "--fpr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    metavar="RATE",
    help="Judge at this rate of false alarms (default: 0.05).",
)
@method_option
@computing_options(*ASKING)
@click.pass_obj
def discover(
    run: Run, images: tuple[str, ...], min_size: int, include_uncertain: bool, out: Path | None, fpr: float
) -> int | None:
    """Group images judged unknown that are like one another.

    Needs a calibration. A candidate is a group of images more like one another than like any
    reference, with its most central images and what is known next to it. It is never labelled:
    unknown is no evidence of being generated, and a new camera is as likely as a new generator.
    """
    from retrieval_detect.encoders.pipeline import embed
    from retrieval_detect.report.findings import listing
    from retrieval_detect.review.unknown import discover as gather
    from retrieval_detect.review.unknown import require_calibration

    check_table_file(out)
    detector = run.detector()
    question = require_calibration(detector, run.question(fpr=fpr))
    calibration = detector.calibration(question)
    if calibration and detector.is_stale(calibration):
        run.output.warning(detector.stale_note(calibration))
    items = list(scan(images))
    embedded = embed(items, detector.encoder, layers=detector.snapshot.manifest.layers, **run.batches)
    with progress(len(items), "Judging", run.output) as meter:
        found = gather(
            detector,
            embedded,
            question=question,
            min_size=min_size,
            include_uncertain=include_uncertain,
            progress=meter.advance,
        )
    run.warn(found.failures)
    if out is not None:
        write_table_file(out, listing(found), _COLUMNS)
    if run.output.format in ("csv", "quiet"):
        run.output.table(listing(found), _COLUMNS)
    else:
        _show_discovery(run, found, min_size)
    return SOME_FAILED if found.failures else None


def _show_discovery(run: Run, found: Discovery, min_size: int) -> None:
    """Candidates, each with the line that would add it once its reader has put a label for LABEL."""
    from retrieval_detect.report.findings import NO_EVIDENCE, candidate_lines, discovery_json, discovery_lines

    lines = discovery_lines(found, min_size=min_size)
    record = discovery_json(found)
    for candidate, data in zip(found.candidates, record["candidates"], strict=True):
        named = [shlex.quote(verdict.input) for verdict in candidate.images[:_MOST_NAMED]]
        named += ["..."] * (len(candidate.images) > _MOST_NAMED)
        asked = f"--label LABEL{run.same_index}   # LABEL: real or fake"
        data["command"] = f"rd bank add {' '.join(named)} {asked}"
        lines += [*candidate_lines(candidate), f"  {data['command']}"]
    if found.unknown:
        lines.append(NO_EVIDENCE)
    run.output.record(record, text=lines)
