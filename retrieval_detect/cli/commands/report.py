"""``rd report``: what an examiner's case holds, and whether it stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.output import Line
from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    offline_option,
)
from retrieval_detect.cli.settable import WEIGHTS, set_option
from retrieval_detect.errors import UsageError
from retrieval_detect.report.case import Case, Log
from retrieval_detect.report.words import number

if TYPE_CHECKING:
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
@click.option("--entry", metavar="N", type=click.IntRange(1), help="With --verify: only this entry.")
@offline_option
@set_option(WEIGHTS)
@click.pass_obj
def command(run: Run, case: Path, verify: bool, images: tuple[Path, ...], entry: int | None) -> int | None:
    """List the verdicts of an examiner's case, or verify them.

    rd query IMAGE --case DIR keeps one. A log that was changed is refused. With --verify each report must be
    as it was written, too, and each image judged again by the generation that judged it must come to the
    same verdict. --index says where the index lies now; without it, each is looked for where it lay.

    Exit code of --verify: 0 all stand, 3 some could not be asked again, 4 some do not stand or were changed.
    """
    if verify:
        return _verify(run, case, images, entry)
    if images or entry:
        raise UsageError("--image and --entry mean nothing without --verify")
    rows = [_row(said) for said in Case(case).read().entries]
    run.output.table(rows, ["number", "at", "who", "verdict", "index", "generation", "input"])
    return None


def _row(said: Mapping[str, Any]) -> dict[str, Any]:
    """An entry in the list; one of pictures that were laid beside an image has no verdict."""
    row = {"number": said["number"], "at": said["at"], "who": said["who"]}
    if "verdict" not in said:
        laid = number(len(said["beside"]["pictures"]), "picture")
        none = dict.fromkeys(("judged_before", "verdict", "index", "generation", "report", "beside"))
        return {**row, "input": f"{laid} laid beside", **none}
    verdict, index = said["verdict"], said["index"]
    return {
        **row,
        "input": verdict["input"],
        "judged_before": said.get("judged_before"),
        "verdict": verdict["verdict"],
        "beside": (verdict.get("beside") or {}).get("verdict"),
        "index": index["name"],
        "generation": index["generation"],
        "report": (said.get("report") or {}).get("path"),
    }


def _verify(run: Run, case: Path, images: tuple[Path, ...], entry: int | None) -> int | None:
    from retrieval_detect.report.recheck import recheck

    log = Case(case).read()
    entries = [found for found in log.entries if entry in (None, found["number"])]
    if not entries:
        raise UsageError(f"{case} has no entry {entry}", hint=f"It has {len(log.entries)}.")
    settings = run.settings
    # Only the flag: a variable or rd.toml says what is asked next, not where those of a case lie.
    index = run.folder if settings.origin("index") == "--index" else None
    found = []
    for finding in recheck(
        entries, images=images, index=index, weights=settings.encoder_weights, offline=settings.offline
    ):
        found.append(finding)
        run.output.stream(_record(finding), text=_text(finding), essential=("stands", "input"))
    run.output.note(_summary(log, found))
    if any(f.stands is False or f.report_intact is False for f in found):
        return DIFFERS
    return SOME_FAILED if any(f.stands is None and not f.earlier for f in found) else None


def _record(finding: Finding) -> dict[str, Any]:
    return {
        "number": finding.number,
        "input": finding.input,
        "verdict": finding.verdict,
        "stands": finding.stands,
        "earlier_definition": finding.earlier,
        "report_intact": finding.report_intact,
        "notes": list(finding.notes),
        "again": finding.again.to_dict() if finding.again else None,
    }


def _text(finding: Finding) -> list[Line]:
    words = {True: ("stands", "good"), False: ("DOES NOT STAND", "bad"), None: ("not asked again", "warning")}
    said = words[finding.stands]
    if finding.earlier and finding.stands is None:
        said = ("judged by an earlier definition", "warning")
    line: Line = [f"{finding.number:>4}  ", said, f"  {finding.verdict}  {finding.input}"]
    return [line, *(f"      {note}" for note in finding.notes)]


def _summary(log: Log, found: list[Finding]) -> str:
    stand = sum(f.stands is True for f in found)
    earlier = sum(f.earlier and f.stands is None for f in found)
    of_old = (
        f" {number(earlier, 'verdict')} judged by an earlier definition: scores alone were compared."
        * bool(earlier)
    )
    return (
        f"{stand} of {number(len(found), 'verdict')} stand.{of_old} The log is whole "
        f"({number(len(log.entries), 'line')}); its last has sha256\n  {log.digest}\n"
        "  Where another was noted elsewhere, lines were cut off."
    )
