"""``--set NAME=VALUE``: what only experts set, by one option, and by table ``[set]`` of ``rd.toml``.

A command says with ``set_option`` which names it has. They reach it as parameters of those names, set or not;
those that are settings (``settings.Settings``) go where every setting goes. ``--set help`` lists them. What a
dataclass declares as hyper-parameters (``options.option``) is offered so, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, NamedTuple, TypeVar

import click

from retrieval_detect.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

_HELP = "help"
_GIVEN, _HELP_ASKED = "retrieval_detect.set", "retrieval_detect.set_help"


class Settable(NamedTuple):
    """A name of ``--set``; without ``kind`` it is a setting, whose value ``Settings`` reads."""

    name: str
    help: str
    kind: click.ParamType[Any] | None = None
    default: Any = None


Found = Callable[[Mapping[str, Any]], Sequence[Settable]]
"""What a command offers, given its parameters that were read before: a kind, where names go by that."""

K = Settable("k", "How many nearest references of a bank vote.")
PROJECTION = Settable("projection", "What banks are searched through (default: the index's own).")
WEIGHTS = Settable("encoder_weights", "The encoder's weights, from a local file.")
WORKERS = Settable("workers", "Threads that read and decode images.")
BATCH_SIZE = Settable("batch_size", "Images in one step of the encoder.")
ASKING = (K, PROJECTION)
"""What is asked of a vote."""
ENCODING = (WEIGHTS, WORKERS, BATCH_SIZE)
"""What runs an encoder."""


class _Set(click.Option):
    """The option itself, which knows what it offers."""

    def __init__(self, *args: Any, found: Found, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.found = found


def set_option(*settables: Settable, found: Found | None = None) -> Callable[[F], F]:
    """Offer ``settables``, and those that ``found`` names once other parameters are read."""

    def offered(params: Mapping[str, Any]) -> Sequence[Settable]:
        return (*(found(params) if found else ()), *settables)

    names = [*map(_shown, settables), *["what the kind takes"] * (found is not None)]
    return click.option(
        "--set",
        "settings",
        cls=_Set,
        found=offered,
        multiple=True,
        metavar="NAME=VALUE",
        expose_value=False,
        callback=_heard,
        help=f"What only experts set: {', '.join(names)} (--set help explains them).",
    )


def names_of(command: click.Command, params: Mapping[str, Any] | None = None) -> dict[str, Settable]:
    """What ``--set`` of a command offers, by name."""
    options = [p for p in command.params if isinstance(p, _Set)]
    return {s.name: s for option in options for s in option.found(params or {})}


def set_names(ctx: click.Context) -> frozenset[str]:
    """What ``--set`` named on this command line."""
    return frozenset(ctx.meta.get(_GIVEN, {}))


def was_set(ctx: click.Context, name: str) -> bool:
    """Whether ``--set`` named it on this command line."""
    return name in set_names(ctx)


def _shown(settable: Settable) -> str:
    return settable.name.replace("_", "-")


def _heard(ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> None:
    given = {}
    for value in values:
        if value == _HELP:
            ctx.meta[_HELP_ASKED] = True
            continue
        name, equals, text = value.partition("=")
        if not (equals and text):
            raise UsageError(f"--set takes NAME=VALUE, not {value!r}", hint="--set help lists the names.")
        given[name.strip().replace("-", "_")] = text
    ctx.meta[_GIVEN] = given


def explain_if_asked(ctx: click.Context) -> None:
    """End the run with what ``--set`` offers where ``--set help`` stood on the command line."""
    if not ctx.meta.get(_HELP_ASKED):
        return
    formatter = click.HelpFormatter()
    with formatter.section("Names of --set, and of table [set] in rd.toml"):
        formatter.write_dl(
            [(_shown(s), s.help + _default(s)) for s in names_of(ctx.command, ctx.params).values()]
        )
    click.echo(formatter.getvalue(), nl=False)
    ctx.exit()


def _default(settable: Settable) -> str:
    return "" if settable.default is None else f" Default: {settable.default}."


def apply(ctx: click.Context, flags: dict[str, Any], in_file: Callable[[], Mapping[str, Any]]) -> None:
    """Bring what ``--set`` and ``rd.toml`` say to the parameters of a command whose others are read.

    ``flags`` : where settings go; ``in_file`` : table ``[set]``, read after them.
    """
    found = names_of(ctx.command, ctx.params)
    if not found:
        return
    given: Mapping[str, str] = ctx.meta.get(_GIVEN, {})
    _require_known(ctx, given, found)
    flags.update({name: text for name, text in given.items() if found[name].kind is None})
    if all(settable.kind is None for settable in found.values()):
        return
    written = in_file()
    _require_written_for_some(ctx, written, found)
    for name, settable in found.items():
        value = given.get(name, written.get(name))
        if settable.kind is not None:
            ctx.params[name] = settable.default
        if settable.kind is not None and value is not None:
            ctx.params[name] = _read(settable, settable.kind, value)


def _read(settable: Settable, kind: click.ParamType[Any], value: Any) -> Any:
    try:
        return kind.convert(str(value), None, None)
    except click.BadParameter as error:
        raise UsageError(f"{_shown(settable)} cannot be {value!r}: {error.message}") from error


def _require_known(ctx: click.Context, given: Mapping[str, str], found: Mapping[str, Settable]) -> None:
    from difflib import get_close_matches

    for name in given:
        if name not in found:
            near = get_close_matches(name, found, n=1)
            hint = f"Did you mean {_shown(found[near[0]])}?\n" if near else ""
            said = ", ".join(map(_shown, found.values()))
            raise UsageError(
                f"{ctx.command_path} has nothing called {name.replace('_', '-')} to set",
                hint=f"{hint}It has {said}.",
            )


def _require_written_for_some(
    ctx: click.Context, written: Mapping[str, Any], found: Mapping[str, Settable]
) -> None:
    """What the file sets for another command is passed over, what it sets for none is a mistake."""
    from retrieval_detect.cli.settings import unknown_key

    if written.keys() <= found.keys():
        return
    known = set(every_name(ctx.find_root().command))
    for name in written:
        if name not in known:
            raise unknown_key(name, known, where="[set] of rd.toml")


def every_name(command: click.Command) -> Iterator[str]:
    """All names of ``--set``, of a command and those below it."""
    yield from names_of(command)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if below := command.get_command(context, name):
                yield from every_name(below)


# ---------------------------------------------------------------- hyper-parameters


def hyper_parameters(owner: type) -> list[Field[Any]]:
    """The fields that ``options.option`` declared."""
    return [f for f in fields(owner) if "help" in f.metadata]


def settables(owners: Mapping[str, type]) -> list[Settable]:
    """A name of ``--set`` for each hyper-parameter of any of ``owners``, by kind; unset ones are ``None``.

    Where several kinds share one, its help is that of the first and names the kinds that have it, and
    the default only where it is the same for all.
    """
    having: dict[str, dict[str, Field[Any]]] = {}
    for kind, owner in owners.items():
        for field in hyper_parameters(owner):
            having.setdefault(field.name, {})[kind] = field

    found = []
    for kinds in having.values():
        only = "" if len(kinds) == len(owners) else f" ({', '.join(kinds)})"
        first, *others = kinds.values()
        same = all(other.default == first.default for other in others)
        note = only + (_default_of(first.default) if same else "")
        text = f"{first.metadata['help'].rstrip('.')}{note}."
        found.append(Settable(first.name, text, _kind_of(first)))
    return found


def _default_of(value: Any) -> str:
    if value in ("", None):
        return ""
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f" (default: {value:g})" if isinstance(value, float) else f" (default: {value})"


def _kind_of(field: Field[Any]) -> Any:
    limits: dict[str, Any] = {"min": field.metadata.get("low"), "max": field.metadata.get("high")}
    if choices := field.metadata.get("choices"):
        return click.Choice([str(choice) for choice in choices])
    if isinstance(field.default, bool):
        return click.BOOL
    if isinstance(field.default, int):
        return click.IntRange(**limits)
    return click.FloatRange(**limits) if isinstance(field.default, float) else click.STRING


def given(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of ``names`` that were set."""
    return {name: values[name] for name in names if values.get(name) is not None}
