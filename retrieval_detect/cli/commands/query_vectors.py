"""``rd query --vectors``: what it accepts, and how its answers are shown."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from retrieval_detect.ask.rescore import Rescoring, Tally
    from retrieval_detect.cli.output import Output
    from retrieval_detect.cli.params import Run
    from retrieval_detect.report.words import Part

_NO_IMAGE = "--{} needs the image itself, and --vectors has none"
_REFUSED = {
    "from_file": "--from-file names images, and --vectors has none",
    "null": "-0 means nothing without --from-file",
    "evidence": "--evidence is shown of images asked about by themselves, not with --vectors",
    "fdr": "--fdr judges a batch as a whole, and --vectors judges it in pieces: give --fpr",
    "prior": "--vectors gives likelihood ratios: apply the prior to column log10_lr",
    "influence": "--influence asks many times about each image: ask about a few, without --vectors",
    **{name: _NO_IMAGE.format(name.replace("_", "-")) for name in ("stability", "stable_at", "regions")},
    **{name: _NO_IMAGE.format(name) for name in ("pool", "heatmap")},
}
_WARNED = 10
"""Failures that are named, beside the number of all."""


def judge_vectors(
    run: Run,
    source: Path,
    *,
    images: Sequence[str],
    out: Path | None,
    since: int | None,
    asked: Mapping[str, Any],
) -> Tally:
    """Judge stored embeddings, and show or write the verdicts. ``asked`` : options of ``rd query``."""
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.ask.rescore import Rescoring
    from retrieval_detect.cli.settings import index_path
    from retrieval_detect.report.words import summary
    from retrieval_detect.verdicts import Question

    _refuse_others(images)
    settings = run.settings
    detector = Detector.load(index_path(settings), device=settings.device)
    given = {name: asked[name] for name in ("fpr", "confidence", "source", "within")}
    question = Question(settings.method, settings.k, settings.projection, **given)
    rescoring = Rescoring(detector, question, source, since=since, device=settings.device)
    started = time.monotonic()
    tally = _stream(run, rescoring) if out is None else _write(run, rescoring, out, since)
    rate = tally.rows / max(time.monotonic() - started, 1e-9)
    if since is None and out is None:
        for line in summary(tally.verdicts, tally.failed, rate=rate, fpr=rescoring.fpr):
            run.output.note(line)
    for warning in rescoring.warnings:
        run.output.warning(warning)
    return tally


def _refuse_others(images: Sequence[str]) -> None:
    from retrieval_detect.errors import UsageError

    if images:
        raise UsageError("images and --vectors are both given", hint="Give one of them.")
    context = click.get_current_context()
    for name, why in _REFUSED.items():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(why)


def _write(run: Run, rescoring: Rescoring, out: Path, since: int | None) -> Tally:
    from retrieval_detect.ask.rescore import write_verdicts
    from retrieval_detect.cli.progress import progress
    from retrieval_detect.report.words import number

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
    error, content_id = row.pop("error"), row.pop("content_id")
    record = {"input": row.pop("uri"), "sha256": content_id.hex() if content_id else None}
    record |= {name: round(x, 6) if isinstance(x, float) else x for name, x in row.items()}
    record["error"] = error
    if error and named:
        output.warning(f"{record['input']}: {error}")
    if not error or output.format in ("json", "jsonl", "csv"):
        output.stream(record, text=[_line(record)], essential=("verdict", "score", "input"))


def _line(record: dict[str, Any]) -> list[Part]:
    """One image among many, for people."""
    from retrieval_detect.report.words import FITS

    if record["error"]:
        return [record["input"]]
    ratio, score = record["log10_lr"], record["score"]
    said = f"uncalibrated score {score:+.2f}" if ratio is None else f"log10 likelihood ratio {ratio:+.1f}"
    near = f"best fake {record['nearest_fake']:.3f}  best real {record['nearest_real']:.3f}"
    before = record.get("verdict_before")
    return [
        *FITS[record["verdict"]],
        f"     {said}  {near}  {record['input']}",
        f"  was {before}" * bool(before),
    ]
