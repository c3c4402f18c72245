"""Hyper-parameters as names of ``--set``: what a dataclass declares, a command offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from typing import Any

import click

from retrieval_detect.cli.settable import Settable


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
        note = only + (_default(first.default) if same else "")
        text = f"{first.metadata['help'].rstrip('.')}{note}."
        found.append(Settable(first.name, text, _type(first)))
    return found


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
    if isinstance(field.default, bool):
        return click.BOOL
    if isinstance(field.default, int):
        return click.IntRange(**limits)
    return click.FloatRange(**limits) if isinstance(field.default, float) else click.STRING


def given(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of ``names`` that were set."""
    return {name: values[name] for name in names if values.get(name) is not None}
