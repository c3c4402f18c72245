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

    Where several kinds share one, its help is that of the first and names the kinds that have it.
    """
    having: dict[str, list[str]] = {}
    first: dict[str, Field[Any]] = {}
    for kind, owner in owners.items():
        for found in hyper_parameters(owner):
            having.setdefault(found.name, []).append(kind)
            first.setdefault(found.name, found)

    def decorate(command: F) -> F:
        for name, field in reversed(first.items()):
            only = "" if len(having[name]) == len(owners) else f" ({', '.join(having[name])})"
            command = _option(field, only)(command)
        return command

    return decorate


def _option(field: Field[Any], only: str) -> Callable[[F], F]:
    flag, default = field.name.replace("_", "-"), field.default
    said = "" if default in ("", None) else f" (default: {_said(default)})"
    text = f"{field.metadata['help'].rstrip('.')}{only}{said}."
    if isinstance(default, bool):
        return click.option(f"--{flag}/--no-{flag}", field.name, default=None, help=text)
    return click.option(f"--{flag}", field.name, type=_type(field), default=None, help=text)


def _said(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"{default:g}" if isinstance(default, float) else str(default)


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
