"""``rd report``: what an examiner's case holds, and whether it stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    offline_option,
)
from retrieval_detect.cli.settable import WEIGHTS, set_option

if TYPE_CHECKING:
    from retrieval_detect.cli.output import Line
    from retrieval_detect.report.case import Log
    from retrieval_detect.report.recheck import Finding

DIFFERS = 4
"""Exit code where a verdict does not stand, or a report was changed."""


@click.command(
    "report",
    cls=Command,
    examples="""
        rd report case-17/
        rd report case-17/ --verify
        rd report case-17/ --verify --image moved.jpg --index /mnt/archive/index-2026
    """,
)
@click.argument("case", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--verify", is_flag=True, help="Ask everything again, and say whether the verdicts stand.")
@click.option(
    "--image",
    "images",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --verify: where an image is that has been moved since; it is known by its bytes.",
)
@click.option(
    "--entry", "number", metavar="N", type=click.IntRange(1), help="With --verify: only this entry."
)
@offline_option
@set_option(WEIGHTS)
@click.pass_obj
def command(run: Run, case: Path, verify: bool, images: tuple[Path, ...], number: int | None) -> int | None:
    """List the verdicts of an examiner's case, or verify them.

    rd query IMAGE --case DIR keeps one. A log that was changed is refused. With --verify each report must be
    as it was written, too, and each image judged again by the generation that judged it must come to the
    same verdict. --index says where the index lies now; without it, each is looked for where it lay.

    Exit code of --verify: 0 all stand, 3 some could not be asked again, 4 some do not stand or were changed.
    """
    from retrieval_detect.errors import UsageError

    if verify:
        return _verify(run, case, images, number)
    if images or number:
        raise UsageError("--image and --entry mean nothing without --verify")
    _list(run, case)
    return None


def _list(run: Run, case: Path) -> None:
    from retrieval_detect.report.case import Case

    rows = [
        {
            "number": entry["number"],
            "at": entry["at"],
            "who": entry["who"],
            "input": entry["verdict"]["input"],
            "judged_before": entry.get("judged_before"),
            "verdict": entry["verdict"]["verdict"],
            "index": entry["index"]["name"],
            "generation": entry["index"]["generation"],
            "report": (entry.get("report") or {}).get("path"),
        }
        for entry in Case(case).read().entries
    ]
    run.output.table(rows, ["number", "at", "who", "verdict", "index", "generation", "input"])


def _verify(run: Run, case: Path, images: tuple[Path, ...], number: int | None) -> int | None:
    from retrieval_detect.cli.settings import index_path
    from retrieval_detect.errors import UsageError
    from retrieval_detect.report.case import Case
    from retrieval_detect.report.recheck import recheck

    log = Case(case).read()
    entries = [entry for entry in log.entries if number in (None, entry["number"])]
    if not entries:
        raise UsageError(f"{case} has no entry {number}", hint=f"It has {len(log.entries)}.")
    settings = run.settings
    # Only the flag: a variable or rd.toml says what is asked next, not where those of a case lie.
    index = index_path(settings) if settings.origin("index") == "--index" else None
    found = []
    for finding in recheck(
        entries, images=images, index=index, weights=settings.encoder_weights, offline=settings.offline
    ):
        found.append(finding)
        run.output.stream(_record(finding), text=_text(finding), essential=("stands", "input"))
    run.output.note(_summary(log, found))
    if any(f.stands is False or f.report_intact is False for f in found):
        return DIFFERS
    return SOME_FAILED if any(f.stands is None for f in found) else None


def _record(finding: Finding) -> dict[str, Any]:
    from retrieval_detect.report.json import verdict_json

    return {
        "number": finding.number,
        "input": finding.input,
        "verdict": finding.verdict,
        "stands": finding.stands,
        "report_intact": finding.report_intact,
        "notes": list(finding.notes),
        "again": verdict_json(finding.again) if finding.again else None,
    }


def _text(finding: Finding) -> list[Line]:
    words = {True: ("stands", "good"), False: ("DOES NOT STAND", "bad"), None: ("not asked again", "warning")}
    line: Line = [f"{finding.number:>4}  ", words[finding.stands], f"  {finding.verdict}  {finding.input}"]
    return [line, *(f"      {note}" for note in finding.notes)]


def _summary(log: Log, found: list[Finding]) -> str:
    from retrieval_detect.report.words import number

    stand = sum(f.stands is True for f in found)
    return (
        f"{stand} of {number(len(found), 'verdict')} stand. The log is whole "
        f"({number(len(log.entries), 'line')}); its last has sha256\n  {log.digest}\n"
        "  Where another was noted elsewhere, lines were cut off."
    )
