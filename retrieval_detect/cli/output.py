"""The one sink: data to stdout in the format asked for, talk to stderr.

A command says what it has, never how it looks:

=======  =======================  ===========================  ===================
format   ``record``: one thing    ``stream``, ``table``: many  ``line``, ``lines``
=======  =======================  ===========================  ===================
human    its text, or key: value  its text; aligned columns    shown
json     one object               one array, always            left out
jsonl    one line                 one line each                left out
csv      a header and a row       a header and a row each      left out
quiet    the essential values     the same, a line each        left out
=======  =======================  ===========================  ===================

``json`` prints an array for a series of any length, one included: the shape of the answer depends
on what was asked, not on how many files matched. A run prints one document: one ``record``, one
``table`` or one series of ``stream``.

File names are hostile until shown otherwise: whatever a terminal would obey is escaped.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO, TypeAlias

import click

from retrieval_detect.cli.formats import WRITERS, Column, Item, Record, Rows, escape, human, human_bytes
from retrieval_detect.errors import UsageError

__all__ = ["Column", "Line", "Output", "Part", "Record", "escape", "human", "human_bytes"]

Part: TypeAlias = str | tuple[str, str]
"""Some text of a line, or (text, name of a style)."""
Line: TypeAlias = str | Sequence[Part]

_STYLES: Mapping[str, Mapping[str, Any]] = {
    "fake": {"fg": "red", "bold": True},
    "real": {"fg": "green", "bold": True},
    "good": {"fg": "green"},
    "warning": {"fg": "yellow"},
    "bad": {"fg": "red"},
    "strong": {"bold": True},
    "weak": {"dim": True},
}


class Output:
    """What a command speaks through.

    Parameters
    ----------
    format : one of ``settings.FORMATS``.
    color : whether to colour; ``None`` = on terminals, unless ``NO_COLOR`` is set.
    verbosity : -1 silences notes, 1 shows details.
    passed : what is passed over while images are listed (``images.passed``), which grows meanwhile. One note
        says it at the end; so does the key ``passed_over`` of a ``record``, or a last entry of what was
        shown by ``stream``, in json and jsonl.
    """

    def __init__(
        self,
        format: str = "human",  # noqa: A002 - the name of the option
        *,
        color: bool | None = None,
        verbosity: int = 0,
        passed: Counter[str] | None = None,
    ) -> None:
        self.format = format
        self.verbosity = -1 if format == "quiet" else verbosity
        self._color = color
        self._passed = Counter() if passed is None else passed
        self._streams = False
        self._writer = WRITERS[format](self._echo)

    # ------------------------------------------------------------ data, to stdout

    def record(
        self, record: Record, *, text: str | Sequence[Line] | None = None, essential: Sequence[str] = ()
    ) -> None:
        """Show the one thing asked for.

        ``text`` is what people see: a string, or lines of which parts may have a style.
        ``essential`` are the keys whose values ``quiet`` prints (default: the first).
        """
        self._writer.single(Item({**record, **self._passed_over()}, self._safe(text), essential))

    def stream(
        self, record: Record, *, text: str | Sequence[Line] | None = None, essential: Sequence[str] = ()
    ) -> None:
        """Show one of a series, at once. Arguments as in ``record``."""
        self._streams = True
        self._writer.item(Item(record, self._safe(text), essential))

    def table(
        self, rows: Iterable[Record], columns: Sequence[str | Column], *, title: str = "", **shape: int
    ) -> None:
        """Show rows. ``columns`` choose and order what people see; other formats get whole rows.

        ``shape`` : ``most_wide``, see ``formats.Rows``.
        """
        shown = [column if isinstance(column, Column) else Column(column) for column in columns]
        self._writer.table(Rows(list(rows), shown, title, **shape))

    def line(self, *parts: Part) -> None:
        """One line for people, in parts that may each have a style; other formats leave it out."""
        self._writer.text(self._styled(parts, sys.stdout))

    def lines(self, text: str | Sequence[Line]) -> None:
        """Several lines for people; other formats leave them out."""
        for line in self._safe(text) or ():
            self._writer.text(line)

    def close(self) -> None:
        """End the document; called once, by whoever made the sink."""
        from retrieval_detect.images.passed import sentence

        if self._streams and (last := self._passed_over()):
            self._writer.item(Item(last))
        self._writer.close()
        if said := sentence(self._passed):
            self.note(said)

    def _passed_over(self) -> Record:
        """For programs that read JSON: the other formats have no place for it, or fixed columns."""
        if self.format not in ("json", "jsonl") or not self._passed:
            return {}
        return {"passed_over": dict(self._passed.most_common())}

    # ------------------------------------------------------------ talk, to stderr

    def note(self, text: str) -> None:
        """Say something good to know."""
        if self.verbosity >= 0:
            self._talk(text)

    def detail(self, text: str) -> None:
        """Say something good to know for those who asked with ``-v``."""
        if self.verbosity >= 1:
            self._talk(text, "weak")

    def success(self, text: str) -> None:
        """Say what was achieved."""
        if self.verbosity >= 0:
            self._talk(text, "good")

    def warning(self, text: str) -> None:
        """Say what may make the answer wrong; heard in every format."""
        self._talk(f"Warning: {text}", "warning")

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask before something that cannot be undone; ``yes`` is the answer given beforehand.

        Raises
        ------
        UsageError
            Nobody is there to answer.
        """
        if yes:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"{question} Nobody is here to answer.", hint="Add --yes to go ahead.")
        return click.confirm(escape(question), default=False, err=True)

    @property
    def shows_progress(self) -> bool:
        """Whether a moving bar helps: somebody watches stderr, and data do not run over that screen."""
        apart = self.format == "human" or not sys.stdout.isatty()
        return self.verbosity >= 0 and apart and sys.stderr.isatty()

    # ------------------------------------------------------------ how

    @staticmethod
    def _echo(line: str) -> None:
        # color=True keeps click from removing what looks like colour: in csv it may be a file name.
        click.echo(line, color=True)

    def _talk(self, text: str, style: str = "") -> None:
        # Work is not given up because nobody can hear of it: a log that is full, a reader that has gone.
        with suppress(OSError):
            for line in text.split("\n"):
                click.echo(self._styled([(line, style)], sys.stderr), err=True, color=True)

    def _safe(self, text: str | Sequence[Line] | None) -> list[str] | None:
        if text is None:
            return None
        lines = text.split("\n") if isinstance(text, str) else text
        return [self._styled([line] if isinstance(line, str) else line, sys.stdout) for line in lines]

    def _styled(self, parts: Iterable[Part], stream: TextIO) -> str:
        pairs = [(part, "") if isinstance(part, str) else part for part in parts]
        if not self._colored(stream):
            return "".join(escape(text) for text, _ in pairs)
        return "".join(click.style(escape(text), **_STYLES.get(style, {})) for text, style in pairs)

    def _colored(self, stream: TextIO) -> bool:
        if self._color is not None:
            return self._color
        return stream.isatty() and not os.environ.get("NO_COLOR")
