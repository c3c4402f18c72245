"""Options of one purpose as one: a value, and what is said about it behind commas.

``--report page.html,no-thumbnails``, ``--fpr 0.05,confidence=0.95``, ``--evidence 5,influence``: a part is a
word, or ``word=value``. What goes by fields is one option that may be repeated: ``--among generator=newgen``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from retrieval_detect.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

WORD = click.BOOL
"""The type of a part that has no value: it is there or not."""
RATE = click.FloatRange(0, 1, min_open=True, max_open=True)


class Parts(click.ParamType[Any]):
    """``HEAD,part,part=value`` as a mapping; the head is under ``""``, if there is one."""

    name = "parts"

    def __init__(self, head: click.ParamType[Any], parts: Mapping[str, click.ParamType[Any]]) -> None:
        self._head, self._parts = head, parts

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Mapping[str, Any]:
        """Read the parts from the end, so that a path may hold commas."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        found: dict[str, Any] = {}
        pieces = value.split(",")
        while pieces and (part := pieces[-1].partition("="))[0].strip() in self._parts:
            name, equals, text = part
            name, kind = name.strip(), self._parts[name.strip()]
            if bool(equals) == (kind is WORD):
                self.fail(f"{name} takes {'no value' if equals else f'a value: {name}=…'}.", param, ctx)
            found[name] = True if kind is WORD else kind.convert(text, param, ctx)
            pieces.pop()
        if len(pieces) > 1 and "." not in pieces[-1]:
            self.fail(f"{pieces[-1]!r} is none of {', '.join(self._parts)}.", param, ctx)
        if pieces:
            found[""] = self._head.convert(",".join(pieces), param, ctx)
        return found


def option_with_parts(
    flag: str,
    head: tuple[str, click.ParamType[Any]],
    parts: Mapping[str, tuple[str, click.ParamType[Any]]],
    *,
    default: Any = None,
    **attributes: Any,
) -> Callable[[F], F]:
    """An option whose head and parts reach the command as parameters of their own.

    ``head`` and the values of ``parts`` : the parameter's name and its type. A word that is not said is
    ``False``, another part ``None``, the head ``default``.
    """
    names = {"": head[0], **{part: name for part, (name, _) in parts.items()}}
    unset = {head[0]: default, **{name: False if kind is WORD else None for name, kind in parts.values()}}

    def spread(ctx: click.Context, _param: click.Parameter, value: Mapping[str, Any] | None) -> None:
        ctx.params.update(unset | {names[part]: said for part, said in (value or {}).items()})

    kind = Parts(head[1], {part: kind for part, (_, kind) in parts.items()})
    parameter = f"{head[0]}_parts"
    return click.option(flag, parameter, type=kind, callback=spread, expose_value=False, **attributes)


def fields_option(flag: str, fields: Sequence[str], **attributes: Any) -> Callable[[F], F]:
    """An option ``KEY=VALUE`` that may be repeated; the command has the mapping, by names of Python."""

    def read(_ctx: click.Context, _param: click.Parameter, given: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for text in given:
            field, equals, value = text.partition("=")
            name = field.strip().replace("-", "_")
            if not equals or name not in {known.replace("-", "_") for known in fields}:
                raise UsageError(f"{flag} takes KEY=VALUE, not {text!r}", hint=f"KEY is {', '.join(fields)}.")
            if name in found:
                raise UsageError(f"{flag} says {field.strip()} twice", hint="Give one value.")
            found[name] = value
        return found

    return click.option(flag, multiple=True, metavar="KEY=VALUE", callback=read, **attributes)


# ---------------------------------------------------------------- of rd query and rd rescore

_FPR = 0.05

fpr_option = option_with_parts(
    "--fpr",
    ("fpr", RATE),
    {"confidence": ("confidence", RATE), "fdr": ("fdr", RATE), "at": ("at", click.FLOAT)},
    metavar="RATE[,confidence=P]",
    help=f"Share of photographs that may be called fake-like (default: {_FPR}); with confidence=P it holds "
    "with this probability, whichever photographs were set aside for calibration. fdr=SHARE instead: of a "
    "batch, "
    "the share of photographs among those called fake-like. at=SCORE instead: a threshold that stays, "
    "whatever is added; the answer states its rate.",
)
within_option = option_with_parts(
    "--within",
    ("within", click.Choice(["source", "format", "size"])),
    {"source": ("source", click.STRING)},
    metavar="SET",
    help="source: keep to --fpr within every source. format, size: compare with photographs of the image's "
    "own. "
    "source=NAME: compare with this source's photographs alone.",
)


def settle_rates(asked: dict[str, Any]) -> None:
    """One kind of rate, and the usual one where none is given."""
    instead = [f"{name}=" for name in ("fdr", "at") if asked.get(name) is not None]
    if len(instead) > 1 or (instead and (asked["fpr"] is not None or asked["confidence"])):
        raise UsageError(
            f"{' and '.join(instead)} stands in the place of a rate and its confidence",
            hint="Give one of them.",
        )
    if asked["fpr"] is None:
        asked["fpr"] = _FPR
