"""``rd query --case`` and ``--evidence blind``: the examiner's log, and judging before a verdict is seen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.settable import was_set
from retrieval_detect.errors import UsageError
from retrieval_detect.files import sha256_file
from retrieval_detect.report.case import Case
from retrieval_detect.report.words import blind_lines
from retrieval_detect.types import Failure

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.cli.params import Run
    from retrieval_detect.verdicts import Question, Verdict

JUDGEMENTS = ("fake", "real", "undecided")

case_option = click.option(
    "--case",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Log there who asked what and the answer; rd report --verify checks it. The index keeps what "
    "answered.",
)


class Examination:
    """What an examiner wants of each verdict: evidence before it, and a line in the log.

    ``asks`` : for the examiner's own judgement, before the verdict is told.
    """

    def __init__(self, run: Run, *, case: Path | None, examiner: str | None, asks: bool) -> None:
        self._run, self._asks = run, asks
        self._case = Case(case) if case else None
        self._who = examiner or _user()
        if self._case and self._case.exists:
            self._case.read()  # a log that was changed is found before an image is looked at

    @property
    def folder(self) -> Path | None:
        """The case's folder, if there is a case."""
        return self._case.folder if self._case else None

    def attempted(self, pictures: Mapping[str, Any]) -> None:
        """Log that pictures are laid beside an image, before anything is judged: what comes of it or not."""
        if self._case:
            self._case.append({"who": self._who, "command": sys.argv, "beside": pictures})

    def of(
        self,
        results: Iterable[Verdict | Failure],
        detector: Detector,
        question: Question,
        *,
        report: Path | None,
    ) -> Iterator[Verdict | Failure]:
        """The results as they are, each logged; with a report once that is written, for its digest."""
        from retrieval_detect.report.recheck import case_entry

        entries = []
        for result in results:
            if not isinstance(result, Failure):
                judgement = self._judgement(result) if self._asks else None
                if self._case:
                    who = {"who": self._who, "command": sys.argv, "judged_before": judgement}
                    entries.append(who | case_entry(detector, result, question))
                    if report is None:
                        self._case.append(entries.pop())
            yield result
        if self._case and report is not None:
            digest = {"path": str(report.resolve()), "sha256": sha256_file(report)}
            for entry in entries:
                self._case.append(entry | {"report": digest})

    def _judgement(self, verdict: Verdict) -> str:
        """What the examiner makes of the evidence alone."""
        self._run.output.lines(blind_lines(verdict, "the verdict is shown after your own judgement"))
        question = "Your own judgement, before the verdict is shown"
        return str(click.prompt(question, type=click.Choice(JUDGEMENTS), err=True))


def examination_of(run: Run, asked: dict[str, Any]) -> Examination | None:
    """The examination that options ask for, if they do; takes them out of ``asked``."""
    case, examiner, blind = (asked.pop(name) for name in ("case", "examiner", "blind"))
    if was_set(click.get_current_context(), "examiner") and not case:
        raise UsageError("examiner means nothing without --case")
    if case or blind:
        return Examination(run, case=case, examiner=examiner, asks=blind and _somebody_sits_here())
    return None


def require_blind(run: Run, asked: Mapping[str, Any]) -> bool:
    """Whether verdicts are kept from stdout altogether: only a page, which keeps them closed, is asked for.

    Raises ``UsageError`` where judging blind could not keep its promise.
    """
    if not asked["blind"]:
        return False
    if run.output.format != "human":
        raise UsageError(
            f"--evidence blind is for people; --format {run.output.format} tells verdicts at once"
        )
    if not (asked["report"] or _somebody_sits_here()):
        raise UsageError(
            "blind judging asks for your own judgement, and here is no terminal to ask at",
            hint="Ask at a terminal, or add --report FILE.html: the page keeps the verdict closed.",
        )
    return not _somebody_sits_here()


def _somebody_sits_here() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "unknown"
