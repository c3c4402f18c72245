"""Entry point of ``rd``: commands that load when called, and the one place where errors end."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click

from retrieval_detect.cli.params import EVERYWHERE, Group
from retrieval_detect.cli.renamed import option_now
from retrieval_detect.cli.settable import names_of
from retrieval_detect.errors import RdError
from retrieval_detect.images.passed import counting
from retrieval_detect.version import __version__

NOBODY_READS = 141
"""Exit code where whoever read stdout has gone, as of a program that SIGPIPE ends."""
_COMPLETE = "_RD_COMPLETE"

# ---------------------------------------------------------------- commands


class Entry(NamedTuple):
    """A command that is not loaded yet: its section in the help, its module, its first help line."""

    section: str
    module: str
    help: str


COMMANDS: Mapping[str, Entry] = {
    "query": Entry("Ask", "query", "Judge images by their nearest references"),
    "rescore": Entry("Ask", "rescore", "Judge stored embeddings, without opening an image"),
    "serve": Entry("Ask", "serve", "Answer on a web page and over HTTP"),
    "demo": Entry("Ask", "demo", "Take the whole tour on sample images"),
    "build-index": Entry("Build and teach", "build_index", "Embed and store references of both labels"),
    "bank": Entry("Build and teach", "bank", "Add, remove and list references; undo"),
    "fit": Entry("Build and teach", "fit", "Fit what verdicts need: calibration, projections"),
    "train": Entry("Build and teach", "train", "Train a head on the stored references; no image is opened"),
    "finetune": Entry("Build and teach", "finetune", "Train an image encoder itself, from images"),
    "head": Entry("Build and teach", "head", "Import heads that were trained elsewhere"),
    "audit": Entry("Look inside", "audit", "Say whether an index, or a set of images, is evidence"),
    "eval": Entry("Look inside", "eval", "Measure an index on images whose labels are known"),
    "index": Entry("Look inside", "index", "Describe, check and share indexes"),
    "report": Entry("Look inside", "report", "List the verdicts of an examiner's case, or verify them"),
    "launder": Entry("Look inside", "launder", "Write laundered copies of images, or unify them"),
    "embed": Entry("Look inside", "embed", "Write embeddings of images to a Parquet file"),
    "doctor": Entry("Set up", "doctor", "Say what is installed, what is missing and how to mend it"),
}


class Root(Group):
    """``rd`` itself: reads its commands from the table and loads a module only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help, then whatever was registered by hand."""
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command's module and return its ``command``."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"retrieval_detect.cli.commands.{COMMANDS[cmd_name].module}")
        return module.command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the table by section, so that help loads no command."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in COMMANDS.items():
            sections.setdefault(entry.section, []).append((f"{name:<11}", entry.help))
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options of every command in full: this is the page that explains them."""
        self.format_commands(ctx, formatter)
        params = sorted(self.get_params(ctx), key=lambda param: param not in EVERYWHERE)
        with formatter.section("Options"):
            formatter.write_dl([record for p in params if (record := p.get_help_record(ctx))])

    def suggest(self, ctx: click.Context, args: Sequence[str]) -> str:
        """Someone who names a file wants to query it."""
        first = Path(args[0])
        if first.suffix or first.exists():
            import shlex

            return f"Did you mean: {ctx.command_path} query {shlex.join(args)}"
        return super().suggest(ctx, args)


@click.group(
    "rd",
    cls=Root,
    examples="""
        rd demo
        rd build-index --real photos/ --fake generated/
        rd query photo.jpg
    """,
)
@click.version_option(__version__, message="rd %(version)s")
def rd() -> None:
    """Tell photographs from AI-generated images by the references nearest to them.

    Options may stand before or after the command; rd COMMAND --help shows what else it takes.
    """


# ---------------------------------------------------------------- errors


class Complaint(NamedTuple):
    """What is said about an error, on stderr, and the exit code."""

    text: str
    exit_code: int = 1


def _error(message: str, hint: str = "", *, exit_code: int = 1) -> Complaint:
    lines = [f"Error: {message.rstrip('.')}.", *(f"  {line}" for line in hint.splitlines())]
    return Complaint("\n".join(lines), exit_code)


def _interrupted(error: BaseException) -> Complaint:
    said = "Interrupted. Nothing is left half-written; run the same command again to go on."
    # A terminal shows ^C where it was typed; a prompt that is given up ends its line itself.
    return Complaint(f"\n{said}" if isinstance(error, KeyboardInterrupt) else said, 130)


def _unknown_option(error: click.NoSuchOption) -> Complaint:
    from difflib import get_close_matches
    from textwrap import fill

    where = error.ctx.command_path if error.ctx else "rd"
    settable = names_of(error.ctx.command, error.ctx.params) if error.ctx else {}
    if now := option_now(where, error.option_name, settable):
        return _error(now, exit_code=error.exit_code)
    params = error.ctx.command.get_params(error.ctx) if error.ctx else []
    names = sorted(max(p.opts, key=len) for p in params if isinstance(p, click.Option))
    near = get_close_matches(error.option_name, names, n=1)
    hint = [f"Did you mean {near[0]}?"] if near else []
    hint.append(fill(f"Options: {' '.join(names)}", width=78, break_on_hyphens=False))
    return _error(f"{where} has no option {error.option_name}", "\n".join(hint), exit_code=error.exit_code)


def _usage(error: click.UsageError) -> Complaint:
    hint = f"{error.ctx.command_path} --help shows how it is used" if error.ctx else ""
    return _error(error.format_message(), hint, exit_code=error.exit_code)


_NO_PERMISSION = "Change its permissions, or name another place."
_NO_MEMORY = "Try a smaller --set batch-size=N or fewer --set workers=N."
_NO_IDEA = "RD_DEBUG=1 shows the traceback."
_SPACE = "Free some space and run the same command again to go on."
_SYSTEM: Mapping[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("your quota on the disk is used up", _SPACE),
    errno.EFBIG: ("the file grew larger than the system allows", "ulimit -f says how large files may be."),
    errno.EROFS: ("the disk can only be read", "Name a place that can be written."),
    errno.ENAMETOOLONG: ("a name is longer than the system allows", "Give a shorter one."),
    errno.EMFILE: ("too many files are open", "Raise the limit: ulimit -n 4096"),
    errno.ENFILE: ("the system has too many files open", "End other programs, then run it again."),
    errno.EIO: ("the disk cannot be read or written there", "It may be failing: copy what you need from it."),
    errno.ELOOP: ("the link leads back to itself", "Name the file that is meant."),
}
"""What is said of errors of the system, and what to do."""
_FULL = ("no space left on device", "os error 28")


def _place(error: OSError) -> str:
    """The file that is meant: of two, as in a renaming or a copy, the one to be written."""
    name = error.filename if error.filename2 is None else error.filename2
    return "" if name is None or isinstance(name, int) else os.fsdecode(name)


def _system(error: OSError) -> Complaint:
    said, hint = _SYSTEM.get(error.errno or 0, (error.strerror or str(error), ""))
    place = _place(error)
    return _error(f"{said}: {place}" if place else said, hint)


def _as_system(error: BaseException) -> BaseException:
    """The error, or that of a full disk where a library says so in its own words only."""
    said = str(error).lower()
    numbered = isinstance(error, OSError) and error.errno is not None
    if isinstance(error, Exception) and not numbered and any(words in said for words in _FULL):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error


_COMPLAINTS: Sequence[
    tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[Any], Complaint]]
] = (
    (RdError, lambda e: _error(e.message, e.hint, exit_code=e.exit_code)),
    ((KeyboardInterrupt, click.Abort), _interrupted),
    (click.exceptions.NoArgsIsHelpError, lambda e: Complaint(e.format_message(), e.exit_code)),
    (click.NoSuchOption, _unknown_option),
    (click.UsageError, _usage),
    (click.ClickException, lambda e: _error(e.format_message(), exit_code=e.exit_code)),
    (BrokenPipeError, lambda _: Complaint("", NOBODY_READS)),
    (PermissionError, lambda e: _error(f"no permission to use {_place(e) or 'a file'}", _NO_PERMISSION)),
    (OSError, _system),
    (MemoryError, lambda _: _error("there is not enough memory", _NO_MEMORY)),
    (ImportError, lambda e: _error(f"{e.name or e} cannot be imported", "rd doctor says how to mend it.")),
    (Exception, lambda e: _error(f"unexpected {type(e).__name__}: {e}", _NO_IDEA)),
)
"""What is said about which error; the first that fits speaks."""


def _complain(error: BaseException) -> int:
    from retrieval_detect.cli.output import Output

    meant = _as_system(error)
    complaint = next(say(meant) for kinds, say in _COMPLAINTS if isinstance(meant, kinds))
    if os.environ.get("RD_DEBUG"):
        import traceback

        with suppress(OSError):
            traceback.print_exception(error)
    if complaint.text:
        Output().note(complaint.text)
    return complaint.exit_code


def _run(args: list[str]) -> int | None:
    """Answer one command line; unlike ``click``'s own ``main``, every error comes out as it is."""
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(rd, {}, "rd", _COMPLETE, instruction)
    try:
        with rd.make_context("rd", args) as context:
            code: int | None = rd.invoke(context)
            return code
    except click.exceptions.Exit as end:
        return end.exit_code


# ---------------------------------------------------------------- a run

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def _open_streams() -> None:
    """Make stdin, stdout and stderr usable, whatever the shell did to them (``>&-``, an old locale)."""
    for descriptor, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            # Left closed, its number would go to the next file opened: an index's own, and what any
            # library prints would end in it. The lowest free number is taken, so this is that number.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that the terminal's encoding lacks must not stop a run.
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_stdout() -> None:
    """Let what stdout still holds go nowhere: Python flushes it once more at its end, and would complain."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # no file: a program that called main put its own stream there
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``rd``; returns its exit code.

    0 done, 1 failed, 2 usage, 3 some inputs failed, 130 interrupted, 141 whoever read stdout has
    gone; ``audit`` and ``report --verify`` add 4, ``audit`` 5, ``query --exit-code`` 10 and 11.
    """
    _open_streams()
    # Pillow warns about broken metadata file by file; what matters of it is in an image's notes.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        with counting():
            result = _run(list(sys.argv[1:] if argv is None else argv))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one catch
        result = _complain(error)
    return _flushed(int(result or 0))


def _flushed(code: int) -> int:
    """The exit code, once all that was said is out; where that fails, why."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_stdout()
        return code or _complain(error)
    return code
