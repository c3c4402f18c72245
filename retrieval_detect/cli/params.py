"""What all commands share: the options every command takes, and the run they describe.

Options that are settings (``settings.Settings``) never reach a command as parameters: they go into
``Run.settings``, so that a flag, a variable and ``rd.toml`` are one thing to whoever reads them.
A command is written as::

    @click.command("embed", cls=Command, examples="rd embed photos/ --out vectors.parquet")
    @click.argument("paths", nargs=-1)
    @setting("--device", metavar="DEVICE", help="Where to compute: auto, cpu or cuda[:N].")
    @click.pass_obj
    def command(run: Run, paths: tuple[str, ...]) -> int | None:
        run.output.note(run.settings.device)

and may return an exit code.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from retrieval_detect.cli.parts import fields_option
from retrieval_detect.cli.renamed import command_now
from retrieval_detect.cli.settable import ENCODING, Settable, apply, explain_if_asked, set_option
from retrieval_detect.errors import RdError, UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.cli.output import Line, Output
    from retrieval_detect.cli.settings import Settings
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.teach.build import Index
    from retrieval_detect.types import Failure
    from retrieval_detect.verdicts import Question

SOME_FAILED = 3
"""Exit code where some inputs failed and the others are done."""
SOME_FAKE_LIKE, SOME_UNDECIDED = 10, 11
"""Exit codes of ``--exit-code``."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Run:
    """One run of rd: what the flags said, and what follows from them, made when first asked for."""

    flags: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        """Flags, variables and ``rd.toml`` together."""
        from retrieval_detect.cli.settings import load_settings

        return load_settings(self.flags, file=self.flags.get("config"))

    @cached_property
    def output(self) -> Output:
        """The sink; closed when the run ends."""
        from retrieval_detect.cli.output import Output
        from retrieval_detect.images.passed import counted

        output = Output(
            self.settings.format,
            color=self.flags.get("color"),
            verbosity=self.flags.get("verbosity", 0),
            passed=counted(),
        )
        click.get_current_context().find_root().call_on_close(output.close)
        return output

    # ------------------------------------------------------------ what is asked, and of which index

    @cached_property
    def folder(self) -> Path:
        """The folder of the index in use; it need not exist."""
        from retrieval_detect.cli.settings import index_path

        return index_path(self.settings)

    @cached_property
    def same_index(self) -> str:
        """`` --index trial`` for a line to type, empty where a command without it means the same index."""
        from retrieval_detect.cli.settings import index_home, index_path, load_settings

        plain = load_settings(file=self.flags.get("config"))
        if index_path(plain) == self.folder:
            return ""
        named = self.folder.name if self.folder.parent == index_home(plain) else str(self.folder)
        return f" --index {shlex.quote(named)}"

    def store(self) -> Store:
        """The index in use, to be written."""
        from retrieval_detect.store.store import Store

        return Store(self.folder)

    def snapshot(self) -> Snapshot:
        """Its newest generation."""
        from retrieval_detect.store.snapshot import Snapshot

        return Snapshot.open(self.folder)

    def index(self) -> Index:
        """The same, to be taught."""
        from retrieval_detect.teach.build import Index

        return Index.open(self.folder)

    def detector(self) -> Detector:
        """The same, to be asked."""
        from retrieval_detect.ask.detector import Detector

        return Detector.load(self.folder, **self.running)

    @property
    def running(self) -> dict[str, Any]:
        """How an encoder runs."""
        settings = self.settings
        return {
            "weights": settings.encoder_weights,
            "device": settings.device,
            "offline": settings.offline,
        }

    @property
    def batches(self) -> dict[str, Any]:
        """How images are read and brought to it."""
        return {"batch_size": self.settings.batch_size, "workers": self.settings.workers}

    def encoder(self, name: str = "") -> Encoder:
        """The encoder of this name, else the one that is set."""
        from retrieval_detect.encoders.registry import load_encoder

        return load_encoder(name or self.settings.encoder, **self.running)

    def question(self, **more: Any) -> Question:
        """What is asked of a vote."""
        from retrieval_detect.verdicts import Question

        told = self.settings
        return Question(told.method, told.k, told.projection, told.photographs, **more)

    # ------------------------------------------------------------ what is said

    def warn(self, failures: Iterable[Failure]) -> None:
        """Name inputs that could not be used."""
        for failure in failures:
            self.output.warning(f"{failure.uri}: {failure.message}")

    def committed(self, manifest: Manifest) -> str:
        """The line that says what was made, and how to go back."""
        undo = f"rd bank rollback {manifest.parent}{self.same_index}"
        return f"  Committed as generation {manifest.generation}. Undo: {undo}"

    def effects(self, manifest: Manifest) -> tuple[dict[str, Any], list[str]]:
        """What the change that made a generation did to the threshold and to mistakes kept."""
        from retrieval_detect.report.findings import mistake_lines
        from retrieval_detect.report.words import threshold_lines
        from retrieval_detect.review.mistakes import tally
        from retrieval_detect.review.thresholds import thresholds

        before, now = thresholds(self.folder, manifest)
        found = tally(self.folder, manifest, device=self.settings.device)
        record = {
            "threshold": {"before": before and before.to_json(), "now": now and now.to_json()},
            "mistakes": found and found.to_json(),
        }
        return record, [*threshold_lines(before, now), *mistake_lines(found)]

    def commit(
        self,
        record: Mapping[str, Any],
        lines: Sequence[Line],
        write: Callable[[], Manifest],
        *,
        dry_run: bool,
        after: Callable[[Manifest], Sequence[Line]] | None = None,
    ) -> None:
        """Show what was made, once ``write`` has committed it, or as it would be.

        ``after`` : what people read of the new generation (default: ``committed``).
        """
        if dry_run:
            self.output.record(record, text=[*lines, "  Nothing was written."])
            return
        manifest = write()
        effects, counted = self.effects(manifest)
        said = after(manifest) if after else [self.committed(manifest)]
        made = {**record, "generation": manifest.generation, **effects}
        self.output.record(made, text=[*lines, *counted, *said])


# ---------------------------------------------------------------- options


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Remember what a flag said; the one nearest to the end of the command line wins."""
    flags = ctx.ensure_object(Run).flags
    if value is not None and param.name:
        flags[param.name] = value


def _json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Run).flags["format"] = "json"


def _quiet(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        flags = ctx.ensure_object(Run).flags
        flags.setdefault("format", "quiet")
        flags["verbosity"] = -1


def _verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Run).flags["verbosity"] = 1


def complete_index(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the indexes at hand, for the shell; folders once a path is being typed."""
    from click.shell_completion import CompletionItem

    if "/" in incomplete:
        return [CompletionItem(incomplete, type="dir")]
    from retrieval_detect.cli.settings import index_home
    from retrieval_detect.store.indexes import index_names

    try:
        names = index_names(index_home(ctx.ensure_object(Run).settings))
    except (RdError, OSError):  # a completion that fails must not write into the line being typed
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def setting(*declarations: str, **attributes: Any) -> Callable[[F], F]:
    """``click.option`` for a setting: its value goes to ``Run.settings`` and to nobody else."""
    return click.option(*declarations, callback=_keep, expose_value=False, **attributes)


def _everywhere() -> list[click.Parameter]:
    def option(*declarations: str, callback: Callable[..., None] = _keep, **attributes: Any) -> click.Option:
        return click.Option(declarations, callback=callback, expose_value=False, **attributes)

    file = click.Path(dir_okay=False, path_type=Path)
    return [
        option("--index", metavar="NAME|PATH", shell_complete=complete_index, help="The index to use."),
        option("--home", metavar="DIR", help="The folder of named indexes."),
        option("--config", metavar="FILE", type=file, help="Settings, instead of the nearest rd.toml."),
        option("--format", metavar="FORMAT", help="human, json, jsonl, csv or quiet."),
        option("--json", "as_json", is_flag=True, callback=_json, help="The same as --format json."),
        option("-q", "--quiet", is_flag=True, callback=_quiet, help="Only the essential data; no notes."),
        option("-v", "--verbose", is_flag=True, callback=_verbose, help="More notes."),
        option("--color/--no-color", default=None, help="Colour, or not (default: on terminals)."),
    ]


EVERYWHERE = _everywhere()
"""Options that every command takes, before and after its name."""

device_option = setting("--device", metavar="DEVICE", help="Where to compute: auto, cpu or cuda[:N].")
encoder_option = setting(
    "--encoder", metavar="NAME|PATH", help="ViT-L-14:openai, efficientnet-lite0, another name, or a path."
)
offline_option = setting(
    "--offline", is_flag=True, flag_value=True, default=None, help="Never download anything."
)
method_option = setting(
    "--method",
    metavar="NAME",
    help="What gives the score: a vote (density, nearest, mean, majority) or a head (rd index fitted list).",
)
photographs_option = setting(
    "--photographs",
    type=click.Choice(["new", "known"]),
    help="Whether a photograph among the images may be of a source that the index does not know (new, the "
    "default), or is of one it knows (known). With new, fake-like is said only where the score is rare among "
    "both.",
)


def computing_options(*settables: Settable) -> Callable[[F], F]:
    """The options of everything that runs an encoder; ``settables`` : what its ``--set`` offers besides."""
    sets = set_option(*settables, *ENCODING)
    return lambda command: device_option(offline_option(sets(command)))


dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
FACTS = ("category", "licence", "contributor", "batch", "tags")
"""What can be said of any references beside their label and who made them, by fields of ``types.Facts``."""


def fact_option(*more: str) -> Callable[[F], F]:
    """``--fact`` of these images; ``more`` : fields that a command takes besides."""
    said = ", ".join((*more, *FACTS))
    return fields_option("--fact", (*more, *FACTS), help=f"What else is known of them, repeated: {said}.")


category_folders_option = click.option(
    "--category-folders",
    is_flag=True,
    help="Folders below those of generators and sources name what images show.",
)
views_option = click.option(
    "--views",
    metavar="LIST",
    help="Laundered copies to store beside each image: jpeg, webp, avif, resize, crop, blur, screenshot, "
    "crops. Each takes the time and the space of an image; crops are up to nine.",
)
calibration_option = setting(
    "--no-calibration",
    is_flag=True,
    flag_value=True,
    default=None,
    help="Skip the calibration, which takes seconds: verdicts stay unknown until rd fit calibration.",
)
thumbnails_option = setting(
    "--thumbnails",
    is_flag=True,
    flag_value=True,
    default=None,
    help="Keep a small picture (128 pixels) of each new image, for reports made once its file is gone.",
)
exit_code_option = click.option(
    "--exit-code", is_flag=True, help="Exit 10 if some are fake-like, 11 if some are undecided."
)


def exit_code_of(counts: Mapping[str, int], failed: int, *, asked: bool) -> int | None:
    """The exit code of verdicts, ``counts`` of each; ``asked`` : whether by ``--exit-code``."""
    if asked and counts.get("fake-like"):
        return SOME_FAKE_LIKE
    if asked and (counts.get("uncertain", 0) + counts.get("unknown", 0)):
        return SOME_UNDECIDED
    return SOME_FAILED if failed else None


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


# ---------------------------------------------------------------- commands


class _Shared(click.Command):
    """A command with the options of ``EVERYWHERE`` and with examples in its help.

    ``headings`` : what its options stand under in the help, by their flags; the others stand under Computing.
    """

    def __init__(
        self, *args: Any, examples: str = "", headings: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.headings = headings or {}
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        self.examples = inspect.cleandoc(examples)
        self.params += EVERYWHERE

    def get_short_help_str(self, limit: int = 1000) -> str:  # noqa: ARG002
        """Its first sentence, whole: in a list of commands it wraps."""
        return super().get_short_help_str(1000)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the command's own options; those of every command are only named."""
        own = {p.opts[-1]: p for p in self.params if isinstance(p, click.Option) and p not in EVERYWHERE}
        under = [
            (heading, [own.pop(flag) for flag in flags.split()]) for heading, flags in self.headings.items()
        ]
        for heading, options in [*under, ("Computing" if under else "Options", list(own.values()))]:
            if records := [record for p in options if (record := p.get_help_record(ctx))]:
                with formatter.section(heading):
                    formatter.write_dl(records)
        with formatter.section("Everywhere"):
            formatter.write_text(f"{' '.join(p.opts[0] for p in EVERYWHERE)} --help (see rd --help)")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the examples as they were written."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Command(_Shared):
    """A command of rd; ``examples`` are lines a reader can type."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_extra_args = True  # they are refused below, in words that help

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; what is left over is refused."""
        old = args and not Path(args[0]).exists()
        if old and not ctx.resilient_parsing and (now := command_now(ctx.command_path, args[0])):
            raise UsageError(now)
        try:
            rest = super().parse_args(ctx, args)
        except click.MissingParameter:
            explain_if_asked(ctx)
            raise
        if ctx.resilient_parsing:
            return rest
        if rest:
            raise UsageError(
                f"{ctx.command_path} does not know what {rest[0]!r} is meant to be",
                hint=_left_over(ctx, rest),
            )
        explain_if_asked(ctx)
        run = ctx.ensure_object(Run)
        apply(ctx, run.flags, lambda: run.settings.set)
        return rest


def _left_over(ctx: click.Context, rest: Sequence[str]) -> str:
    from retrieval_detect.store.indexes import is_index

    repeated = [p for p in ctx.command.params if isinstance(p, click.Option) and p.multiple]
    if given := [max(p.opts, key=len) for p in repeated if ctx.params.get(p.name or "")]:
        return one_value_each(*given)
    if is_index(Path(rest[0])):
        return f"An index is named by an option: {ctx.command_path} --index {shlex.quote(rest[0])}"
    return f"{ctx.command_path} --help shows how it is used"


def one_value_each(*options: str) -> str:
    """What to say to someone who gave several values at once, or whose shell made several of a pattern."""
    named = " and ".join(options)
    one = options[0]
    takes = "take" if len(options) > 1 else "takes"
    return f"{named} {takes} one value each time: {one} A {one} B; quote a pattern: {one} 'DIR/*'"


class Group(_Shared, click.Group):
    """A command of rd that only has commands below it."""

    command_class = Command
    group_class = type

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands first: they are what a reader of this page looks for."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was likely meant."""
        if ctx.resilient_parsing or args[0] in self.list_commands(ctx):
            return super().resolve_command(ctx, args)
        if now := command_now(ctx.command_path, args[0]):
            raise UsageError(now)
        raise UsageError(f"{ctx.command_path} has no command {args[0]!r}", hint=self.suggest(ctx, args))

    def suggest(self, ctx: click.Context, args: Sequence[str]) -> str:
        """What to say to someone whose ``args`` begin with no command of this group."""
        from difflib import get_close_matches

        names = self.list_commands(ctx)
        if near := get_close_matches(args[0], names, n=1):
            return f"Did you mean: {ctx.command_path} {near[0]}"
        return f"Commands: {', '.join(names)}"
