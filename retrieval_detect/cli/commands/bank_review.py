"""``rd bank check`` and ``rd bank discover``: what a person should look at; neither changes an index."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    computing_options,
    device_option,
    method_option,
)
from retrieval_detect.cli.settable import ASKING, set_option
from retrieval_detect.cli.table_file import check_table_file, write_table_file

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.review.disagreements import Check
    from retrieval_detect.review.unknown import Candidate, Discovery

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
    "--at-most", metavar="N", type=click.IntRange(1), help="Ask so many references, evenly spread, not all."
)
@method_option
@device_option
@set_option(*ASKING)
@click.pass_obj
def check(run: Run, at_most: int | None) -> None:
    """List references whose neighbours have the other label.

    Each is asked about as an image never seen, without its near-duplicates. Listed is what disagrees
    by the vote and by its ten nearest, the strongest first; then batches and contributors of whose
    references unusually many disagree. How many are expected anyway is how many score as far from
    the middle of their label to its own side. Nothing is changed.
    """
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.ask.fitted import PLAIN
    from retrieval_detect.cli.progress import progress
    from retrieval_detect.cli.settings import index_path
    from retrieval_detect.review.disagreements import check as find
    from retrieval_detect.types import LABELS
    from retrieval_detect.verdicts import Question

    settings = run.settings
    snapshot = Detector.load(index_path(settings)).snapshot
    total = sum(snapshot.manifest.live_rows(label, "bank") for label in LABELS)
    with progress(total if at_most is None else min(total, at_most), "Asking", run.output) as meter:
        found = find(
            snapshot,
            Question(settings.method, settings.k, settings.projection),
            at_most=at_most,
            device=settings.device,
            progress=meter.advance,
        )
    if (settings.projection or snapshot.manifest.projection) != PLAIN:
        run.output.note("The projection was fitted on these references too, so they agree somewhat too well.")
    _show_check(run, found)


def _show_check(run: Run, found: Check) -> None:
    from retrieval_detect.cli.again import same_index
    from retrieval_detect.cli.output import Column
    from retrieval_detect.cli.settings import index_path
    from retrieval_detect.report.findings import NO_PROOF, check_json, check_lines, check_rows
    from retrieval_detect.report.words import name_of

    output = run.output
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
        flag = same_index(run, index_path(run.settings))
        output.note(f"  rd bank remove --row {found.disagreements[0].row_id} --reason TEXT{flag}")


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
    """Gather images judged unknown into candidates for a new name.

    Needs a calibration. A candidate is a group of images more like one another than like any
    reference, with its most central images and what is known next to it. It is never labelled:
    unknown is no evidence of being generated, and a new camera is as likely as a new generator.
    """
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.cli.settings import index_path
    from retrieval_detect.review.unknown import require_calibration
    from retrieval_detect.verdicts import Question

    settings = run.settings
    check_table_file(out)
    detector = Detector.load(
        index_path(settings),
        weights=settings.encoder_weights,
        device=settings.device,
        offline=settings.offline,
    )
    question = require_calibration(
        detector, Question(settings.method, settings.k, settings.projection, fpr=fpr)
    )
    calibration = detector.calibration(question)
    if calibration and detector.is_stale(calibration):
        run.output.warning(detector.stale_note(calibration))
    found = _discover(
        run, detector, images, question=question, min_size=min_size, include_uncertain=include_uncertain
    )
    for failure in found.failures:
        run.output.warning(f"{failure.uri}: {failure.message}")
    if out is not None:
        from retrieval_detect.report.findings import listing

        write_table_file(out, listing(found), _COLUMNS)
    _show_discovery(run, found, min_size)
    return SOME_FAILED if found.failures else None


def _discover(run: Run, detector: Detector, images: Sequence[str], **how: Any) -> Discovery:
    from retrieval_detect.cli.progress import progress
    from retrieval_detect.encoders.pipeline import embed
    from retrieval_detect.images.sources import scan
    from retrieval_detect.review.unknown import discover as gather

    items = list(scan(images))
    embedded = embed(
        items,
        detector.encoder,
        layers=detector.snapshot.manifest.layers,
        batch_size=run.settings.batch_size,
        workers=run.settings.workers,
    )
    with progress(len(items), "Judging", run.output) as meter:
        return gather(detector, embedded, progress=meter.advance, **how)


def _show_discovery(run: Run, found: Discovery, min_size: int) -> None:
    from retrieval_detect.report.findings import (
        NO_EVIDENCE,
        candidate_lines,
        discovery_json,
        discovery_lines,
        listing,
    )

    output = run.output
    if output.format in ("csv", "quiet"):
        output.table(listing(found), _COLUMNS)
        return
    lines = discovery_lines(found, min_size=min_size)
    record = discovery_json(found)
    for candidate, data in zip(found.candidates, record["candidates"], strict=True):
        data["command"] = _command(run, candidate)
        lines += [*candidate_lines(candidate), f"  {data['command']}"]
    if found.unknown:
        lines.append(NO_EVIDENCE)
    output.record(record, text=lines)


def _command(run: Run, candidate: Candidate) -> str:
    """The line that would add a candidate, once its reader has put a label in place of LABEL."""
    from retrieval_detect.cli.again import same_index
    from retrieval_detect.cli.settings import index_path

    named = [shlex.quote(verdict.input) for verdict in candidate.images[:_MOST_NAMED]]
    more = ["..."] * (len(candidate.images) > _MOST_NAMED)
    flag = same_index(run, index_path(run.settings))
    return f"rd bank add {' '.join([*named, *more])} --label LABEL{flag}   # LABEL: real or fake"
