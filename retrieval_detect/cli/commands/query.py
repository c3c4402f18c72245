"""``rd query``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from heapq import nlargest
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from retrieval_detect.cli.beside import beside_option, laid_beside
from retrieval_detect.cli.case import case_option, examination_of, require_blind
from retrieval_detect.cli.out_files import out_of, out_option, written
from retrieval_detect.cli.output import Output
from retrieval_detect.cli.params import (
    EVERYWHERE,
    SOME_FAILED,
    Command,
    Run,
    computing_options,
    exit_code_of,
    exit_code_option,
    method_option,
    photographs_option,
)
from retrieval_detect.cli.parts import WORD, fpr_option, option_with_parts, settle_rates, within_option
from retrieval_detect.cli.report_files import report_of, report_option
from retrieval_detect.cli.settable import ASKING, ENCODING, Settable, set_names, was_set
from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.items import failed_item
from retrieval_detect.images.sources import from_bytes, read_list, scan
from retrieval_detect.names import printable
from retrieval_detect.report.words import blind_lines, evidence_lines, full, one_line, summary
from retrieval_detect.types import Failure, ImageItem
from retrieval_detect.verdicts import Question, Verdict

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector

NO_VERDICT = "Predicted quality says nothing about fakes; low quality is where false alarms are."
_OF_QUALITY = ("images", "from_file_parts", "method", "offline", "device", "settings")
"""Parameters that mean something for a quality head, too."""
_QUALITY_COLUMNS = ("input", "quality", "sha256", "index", "generation", "warnings", "error")
_ESSENTIAL = ("verdict", "score", "input")
_HELD_AGAINST = ("rare-among-photographs", "fake-like-if-known-source")
_VIEWS = 16
_MORE = ["  --report FILE.html shows the nearest references, --evidence 10 names them"]


class _Query(Command):
    """Lets ``--stability`` stand alone, before an image, too: only a number can be its number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give a lone ``--stability`` its number."""
        given = [
            f"{arg}={_VIEWS}" if arg == "--stability" and not after.isdecimal() else arg
            for arg, after in pairwise([*args, ""])
        ]
        return super().parse_args(ctx, given)


_SETTABLE = (
    Settable(
        "pool",
        "How the scores of regions become one: max, mean or top, the mean of the 3 highest.",
        click.Choice(["max", "mean", "top"]),
        "max",
    ),
    Settable(
        "prior",
        "Share of fakes among such images; only with it a probability is stated.",
        click.FloatRange(0, 1, min_open=True, max_open=True),
    ),
    Settable("examiner", "Who asks, in the log of --case (default: the user's name).", click.STRING),
)


@click.command(
    "query",
    cls=_Query,
    examples="""
        rd query photo.jpg
        rd query photo.jpg --report photo.html --case case-17/
        rd query photo.jpg --stability --regions --out where.png
        rd query inbox/ --out verdicts.parquet
        rd query inbox/ --format jsonl > verdicts.jsonl
        curl -s https://example.org/a.jpg | rd query -
        rd query suspect.jpg --beside authentic/,supplier=agency --case case-17/
        find . -name '*.png' -print0 | rd query --from-file -,null
    """,
    headings={
        "What is asked": "--from-file --beside --stability --regions",
        "How it is judged": "--method --photographs --fpr --within",
        "What is shown and kept": "--evidence --report --out --case --exit-code",
    },
)
@click.argument("images", nargs=-1, metavar="IMAGE...")
@option_with_parts(
    "--from-file",
    ("from_file", click.Path(exists=True, dir_okay=False, allow_dash=True)),
    {"null": ("null", WORD)},
    metavar="FILE[,null]",
    help="Paths to judge, one a line; - reads them from stdin. With ,null they end in NUL.",
)
@beside_option
@option_with_parts(
    "--evidence",
    ("evidence", click.IntRange(0, 10)),
    {"influence": ("influence", WORD), "blind": ("blind", WORD)},
    default=0,
    metavar="N[,influence]",
    help="Show the N nearest; with influence, for a few images, how the score would change without a "
    "generator, source or reference. blind: show the evidence, ask for your own judgement, and only then "
    "tell the "
    "verdict; a page keeps it closed.",
)
@exit_code_option
@method_option
@photographs_option
@fpr_option
@within_option
@click.option(
    "--stability",
    type=click.IntRange(1),
    metavar="[N]",
    help=f"Judge N re-encoded copies of each image, too (default: {_VIEWS}); each takes the time of an "
    "image.",
)
@click.option(
    "--regions", is_flag=True, help="Judge parts of each image, too (banks built with --views crops)."
)
@out_option
@report_option
@case_option
@computing_options(*_SETTABLE, *ASKING)
@click.pass_obj
def command(
    run: Run,
    /,
    images: tuple[str, ...],
    from_file: str | None,
    null: bool,
    evidence: int,
    exit_code: bool,
    **asked: Any,
) -> int | None:
    """Judge images by their nearest references.

    IMAGE is a file, a folder, a quoted glob, an archive or a table of images; - reads
    one image from stdin. The answer says which bank is nearer, with the references that say so; it
    is evidence to weigh, not a finding that an image is fake or authentic. With --method of a quality
    head it is the quality that the head predicts, and nothing else.
    """
    from retrieval_detect.ask.ratings import is_quality

    report = report_of(asked)
    shown_to = {"blind": asked["blind"], "report": report}
    out = out_of(asked, blind=asked["blind"])
    examination = examination_of(run, asked)
    settle_rates(asked)
    _settle_views(asked)
    items = _items(images, from_file, null)
    ahead = list(islice(items, 2))
    if not ahead:
        raise UsageError(f"the list {from_file} names no image")
    # One image was named, not a folder or list that happens to hold one: its failure is that of the run.
    single = len(images) == len(ahead) == 1 and ahead[0].uri == printable(str(Path(images[0])))
    brief = len(ahead) > 1
    items = chain(ahead, items)
    beside, detector = laid_beside(asked), run.detector()
    if is_quality(detector.snapshot, run.settings.method):
        return _rate(run, detector, items, single=single)
    withheld = require_blind(run, shown_to)
    started = time.monotonic()
    question = run.question(**asked)
    items, detector = beside.of(run, items, detector, question, examination)
    results = detector.stream(report.overheard(items) if report else items, **run.batches, **asdict(question))
    if report:
        results = report.written(results, detector, question)
    if examination:
        results = examination.of(results, detector, question, report=report.path if report else None)
    if out:
        results = written(results, out, ahead)
    shown = None if withheld else evidence
    first: list[tuple[float, str]] = []
    results = _highest(results, first)
    counts, failed = _show(run.output, results, single=single, brief=brief, evidence=shown, hint=not report)
    page = report.path if report and counts else None
    _say_what_was_written(run.output, page, out, examination.folder if examination else None)
    if brief and not withheld:
        rate = (sum(counts.values()) + failed) / max(time.monotonic() - started, 1e-9)
        _sum_up(run, detector, question, counts, failed, rate=rate, first=first)
    return exit_code_of(counts, failed, asked=exit_code)


def _say_what_was_written(output: Output, *paths: Path | None) -> None:
    if written_to := [printable(str(path)) for path in paths if path]:
        output.note(f"Written to {', '.join(written_to)}.")


def _settle_views(asked: dict[str, Any]) -> None:
    """What is asked of regions is how they are pooled; options that say how need the one that says what."""
    context = click.get_current_context()
    if was_set(context, "pool") and not asked["regions"]:
        raise UsageError("pool means nothing without --regions")
    pool = asked.pop("pool")
    asked["regions"] = pool if asked["regions"] else None


def _items(images: tuple[str, ...], from_file: str | None, null: bool) -> Iterator[ImageItem]:
    if images and from_file:
        raise UsageError("images and --from-file are both given", hint="Give one of them.")
    if from_file == "-":
        yield from _listed(sys.stdin.buffer, null)
    elif from_file:
        with Path(from_file).open("rb") as stream:
            yield from _listed(stream, null)
    elif images == ("-",):
        yield from_bytes(sys.stdin.buffer.read(), "-")
    elif "-" in images:
        raise UsageError("- stands for one image on stdin and goes alone", hint="A file called -: ./-")
    elif images:
        yield from scan(images)
    else:
        raise UsageError("there is nothing to judge", hint="Give images, a folder, -, or --from-file LIST.")


def _listed(stream: BinaryIO, null: bool) -> Iterator[ImageItem]:
    """Images of a list; a path that is not there fails alone and does not end the run."""
    for path in read_list(stream, null_separated=null):
        try:
            yield from scan([path])
        except UsageError as error:
            yield failed_item(path, error.message)


def _highest(
    results: Iterator[Verdict | Failure], first: list[tuple[float, str]], *, most: int = 3
) -> Iterator[Verdict | Failure]:
    """The results as they are; ``first`` becomes the highest scores of images with something against them."""
    for result in results:
        if isinstance(result, Verdict) and result.reason in _HELD_AGAINST:
            first[:] = nlargest(most, [*first, (result.score, result.input)])
        yield result


def _show(
    output: Output,
    results: Iterator[Verdict | Failure],
    *,
    single: bool,
    brief: bool,
    evidence: int | None,
    hint: bool,
) -> tuple[Counter[str], int]:
    """Print verdicts as they come, one image or many alike; returns how many of each, and how many failed.

    ``single`` : one image was named, so that its failure is that of the run.
    ``evidence`` : how many references are shown; ``None`` = all that a page shows before its verdict.
    ``hint`` : whether to say how to see them.
    """
    counts: Counter[str] = Counter()
    failed = 0
    for result in results:
        if isinstance(result, Failure):
            if output.format in ("json", "jsonl", "csv"):
                output.stream(_record(result, output.format))
            if single:
                raise ImageError(f"{result.uri}: {result.message}", reason=result.reason, uri=result.uri)
            failed += 1
            output.warning(f"{result.uri}: {result.message}")
            continue
        counts[result.beside.verdict if result.beside else result.verdict] += 1
        if evidence is None:
            output.lines(blind_lines(result, "the verdict is on the page, behind the evidence"))
            continue
        lines = [one_line(result)] if brief else full(result)
        more = evidence_lines(result, evidence) if evidence or brief or not hint else [_MORE]
        output.stream(_record(result, output.format), text=[*lines, *more], essential=_ESSENTIAL)
    return counts, failed


def _record(result: Verdict | Failure, format_: str) -> dict[str, Any]:
    from retrieval_detect.ask.table import row_of

    return row_of(result) if format_ == "csv" else result.to_dict()


def _sum_up(
    run: Run,
    detector: Detector,
    asked: Question,
    counts: Counter[str],
    failed: int,
    *,
    rate: float,
    first: list[tuple[float, str]],
) -> None:
    """What a series amounts to. ``first`` : what to look at first, with its score."""
    question = detector.checked(asked)
    calibrated = detector.calibration(question)
    fpr, risk = calibrated.would_flag(asked) if calibrated else (None, None)
    for line in summary(counts, failed, rate=rate, fpr=fpr, fdr=asked.fdr, risk=risk):
        run.output.note(line)
    for why in detector.methods.uncalibrated(question):
        run.output.note(why)
    if calibrated and detector.is_stale(calibrated):
        run.output.warning(detector.stale_note(calibrated))
    if first:
        names = ", ".join(f"{name} ({score:+.2f})" for score, name in first)
        run.output.note(f"Look first at {names}.")


# ---------------------------------------------------------------- quality heads, beside no verdict


def _rate(run: Run, detector: Detector, items: Iterator[ImageItem], *, single: bool) -> int | None:
    """Show the quality that the head asked for predicts of each image; returns the exit code."""
    from retrieval_detect.ask.ratings import rate

    method, output = run.settings.method, run.output
    _refuse_what_is_of_verdicts(method)
    failed = 0
    for rating in rate(detector, items, method, **run.batches):
        row: dict[str, Any] = dict.fromkeys(_QUALITY_COLUMNS)
        if isinstance(rating, Failure):
            if output.format == "csv":
                output.stream(row | {"input": rating.uri, "error": f"{rating.reason}: {rating.message}"})
            elif output.format in ("json", "jsonl"):
                output.stream(rating.to_dict())
            if single:
                raise ImageError(f"{rating.uri}: {rating.message}", reason=rating.reason, uri=rating.uri)
            failed += 1
            run.warn([rating])
            continue
        record = rating.to_json()
        if output.format == "csv":
            index = {"index": rating.index.name, "generation": rating.index.generation}
            told = {key: record[key] for key in ("input", "quality", "sha256")}
            record = row | told | index | {"warnings": "; ".join(rating.warnings)}
        text = f"quality {rating.quality:8.3f}  {rating.input}"
        output.stream(record, text=[text], essential=("quality", "input"))
    output.note(NO_VERDICT)
    return SOME_FAILED if failed else None


def _refuse_what_is_of_verdicts(method: str) -> None:
    context = click.get_current_context()
    given = [
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name not in _OF_QUALITY
        and parameter not in EVERYWHERE
        and context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    given += sorted(set_names(context) - {settable.name for settable in ENCODING})
    if given:
        raise UsageError(
            f"{given[0]} means nothing for {method}, which tells how good an image looks",
            hint="Leave it out, or ask another method.",
        )
