"""Hyper-parameters as options: what a dataclass declares, a command offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def hyper_parameters(owner: type) -> list[Field[Any]]:
    """The fields that ``options.option`` declared."""
    return [f for f in fields(owner) if "help" in f.metadata]


def offered(owners: Mapping[str, type]) -> Callable[[F], F]:
    """Add an option for each hyper-parameter of any of ``owners``, by kind; unset ones are ``None``.

    Where several kinds share one, its help is that of the first and names the kinds that have it, and
    the default only where it is the same for all.
    """
    having: dict[str, dict[str, Field[Any]]] = {}
    for kind, owner in owners.items():
        for found in hyper_parameters(owner):
            having.setdefault(found.name, {})[kind] = found

    def decorate(command: F) -> F:
        for kinds in reversed(having.values()):
            only = "" if len(kinds) == len(owners) else f" ({', '.join(kinds)})"
            field, *others = kinds.values()
            same = all(other.default == field.default for other in others)
            command = _option(field, only + (_default(field.default) if same else ""))(command)
        return command

    return decorate


def _option(field: Field[Any], note: str) -> Callable[[F], F]:
    flag, default = field.name.replace("_", "-"), field.default
    text = f"{field.metadata['help'].rstrip('.')}{note}."
    if isinstance(default, bool):
        return click.option(f"--{flag}/--no-{flag}", field.name, default=None, help=text)
    return click.option(f"--{flag}", field.name, type=_type(field), default=None, help=text)


def _default(value: Any) -> str:
    if value in ("", None):
        return ""
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f" (default: {value:g})" if isinstance(value, float) else f" (default: {value})"


def _type(field: Field[Any]) -> Any:
    limits: dict[str, Any] = {"min": field.metadata.get("low"), "max": field.metadata.get("high")}
    if choices := field.metadata.get("choices"):
        return click.Choice([str(choice) for choice in choices])
    if isinstance(field.default, int):
        return click.IntRange(**limits)
    return click.FloatRange(**limits) if isinstance(field.default, float) else click.STRING


def given(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of ``names`` that were set on the command line."""
    return {name: values[name] for name in names if values.get(name) is not None}
