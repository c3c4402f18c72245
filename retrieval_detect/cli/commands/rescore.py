"""``rd rescore``: stored embeddings in, verdicts out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.output import Output
from retrieval_detect.cli.params import (
    Command,
    Run,
    device_option,
    exit_code_of,
    exit_code_option,
    method_option,
    photographs_option,
)
from retrieval_detect.cli.parts import fpr_option, settle_rates, within_option
from retrieval_detect.cli.progress import progress
from retrieval_detect.cli.settable import ASKING, set_option
from retrieval_detect.errors import UsageError
from retrieval_detect.report.words import FITS, Part, number, summary

if TYPE_CHECKING:
    from retrieval_detect.ask.rescore import Rescoring, Tally

_WARNED = 10
"""Failures that are named, beside the number of all."""


@click.command(
    "rescore",
    cls=Command,
    examples="""
        rd rescore embedded.parquet --format jsonl > verdicts.jsonl
        rd rescore embedded/ --out verdicts/ --changed-since 7
    """,
    headings={
        "How it is judged": "--method --photographs --fpr --within",
        "What is kept": "--out --changed-since --exit-code",
    },
)
@click.argument("vectors", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write verdicts as Parquet files; goes on where it was interrupted.",
)
@click.option(
    "--changed-since",
    "since",
    metavar="GENERATION",
    type=int,
    help="Only the verdicts that differ from that generation's.",
)
@exit_code_option
@method_option
@photographs_option
@fpr_option
@within_option
@device_option
@set_option(*ASKING)
@click.pass_obj
def command(
    run: Run, /, vectors: Path, out: Path | None, since: int | None, exit_code: bool, **asked: Any
) -> int | None:
    """Judge stored embeddings, without opening an image.

    VECTORS is what rd embed writes: a Parquet file, or a folder of them. Verdicts are those of rd query; what
    needs the image itself, or many questions about each, is left to it.
    """
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.ask.rescore import Rescoring

    if asked.pop("fdr") is not None:
        raise UsageError("fdr judges a batch as a whole, and rd rescore judges it in pieces: give --fpr RATE")
    settle_rates(asked)
    device = run.settings.device
    detector = Detector.load(run.folder, device=device)
    rescoring = Rescoring(detector, run.question(**asked), vectors, since=since, device=device)
    started = time.monotonic()
    tally = _stream(run, rescoring) if out is None else _write(run, rescoring, out, since)
    rate = tally.rows / max(time.monotonic() - started, 1e-9)
    if since is None and out is None:
        fpr, risk = rescoring.would_flag
        for line in summary(tally.verdicts, tally.failed, rate=rate, fpr=fpr, risk=risk):
            run.output.note(line)
    for warning in rescoring.warnings:
        run.output.warning(warning)
    return exit_code_of(tally.verdicts, tally.failed, asked=exit_code)


def _write(run: Run, rescoring: Rescoring, out: Path, since: int | None) -> Tally:
    from retrieval_detect.ask.rescore import write_verdicts

    with progress(rescoring.n_rows, "Judging", run.output, unit="rows") as meter:
        tally, n_kept = write_verdicts(rescoring, out, progress=meter.advance)
    generation = rescoring.generation
    record = {"out": str(out), "generation": generation, "changed_since": since, **tally.to_json()}
    said = f"{out}: {number(tally.shown, 'row')} of {tally.rows:,}, by generation {generation}"
    if since is not None:
        said = f"{out}: {tally.shown:,} of {tally.rows:,} changed from generation {since} to {generation}"
    named = ", ".join(f"{n:,} {name}" for name, n in sorted(tally.verdicts.items()))
    run.output.record(record | {"shards_kept": n_kept}, text=f"{said}: {named or 'none'}")
    if n_kept:
        run.output.note(f"{number(n_kept, 'shard')} had been finished before")
    if tally.failed:
        run.output.warning(f"{number(tally.failed, 'row')} could not be judged: see column error")
    return tally


def _stream(run: Run, rescoring: Rescoring) -> Tally:
    from retrieval_detect.ask.rescore import Tally

    total = Tally()
    for piece in rescoring.pieces():
        for table, tally in rescoring.tables(piece):
            for row in table.to_pylist():
                _show(run.output, row, named=total.failed < _WARNED)
            total += tally
    if total.failed > _WARNED:
        run.output.warning(f"{total.failed:,} rows could not be judged")
    return total


def _show(output: Output, row: dict[str, Any], *, named: bool) -> None:
    """One image among many; ``named`` : whether a failure is said by name."""
    error, content_id = row.pop("error"), row.pop("content_id")
    record = {"input": row.pop("uri"), "sha256": content_id.hex() if content_id else None}
    record |= {name: round(x, 6) if isinstance(x, float) else x for name, x in row.items()}
    record["error"] = error
    line: list[Part] = [record["input"]]
    if not error:
        ratio, score = record["log10_lr"], record["score"]
        said = f"score {score:+.2f}" if ratio is None else f"log10 likelihood ratio {ratio:+.1f}"
        near = f"best fake {record['nearest_fake']:.3f}  best real {record['nearest_real']:.3f}"
        before = record.get("verdict_before")
        was = f"  was {before}" * bool(before)
        line = [*FITS[record["reason"]], f"     {said}  {near}  {record['input']}", was]
    elif named:
        output.warning(f"{record['input']}: {error}")
    if not error or output.format in ("json", "jsonl", "csv"):
        output.stream(record, text=[line], essential=("verdict", "score", "input"))
