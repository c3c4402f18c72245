"""Fields of dataclasses as options of commands (hyper-parameters, by ``--set``) and keywords of functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, field, fields
from inspect import Parameter, signature
from typing import Any, TypeVar

from retrieval_detect.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def option(default: Any, text: str, **limits: Any) -> Any:
    """A hyper-parameter: a dataclass field that a command offers as an option of the same name.

    ``limits`` : ``choices`` (a tuple), or ``low`` and ``high`` of a number.
    """
    return field(default=default, metadata={"help": text, **limits})


def check_options(holder: Any) -> None:
    """Raise ``UsageError`` for the first hyper-parameter of a dataclass instance outside its limits."""
    for f in fields(holder):
        value, limits = getattr(holder, f.name), f.metadata
        if "choices" in limits and value not in limits["choices"]:
            known = ", ".join(map(str, limits["choices"]))
            raise UsageError(f"{f.name} cannot be {value!r}", hint=f"Choose one of {known}.")
        low, high = limits.get("low"), limits.get("high")
        # Written so that a NaN, which compares false with everything, is refused too.
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            upper = "" if high is None else f" and at most {high}"
            lower = "" if low is None else f"at least {low}"
            raise UsageError(f"{f.name} is {value}, not {lower}{upper}".replace("not  and", "not"))


def keywords_of(record: type) -> Callable[[F], F]:
    """Show a function's ``**keywords``, fields of a dataclass, one by one to ``help`` and to notebooks.

    For type checkers they are ``Unpack`` of a ``TypedDict``, which at run time says nothing.
    """

    def shown(function: F) -> F:
        own = signature(function)
        named = [p for p in own.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        named += [
            Parameter(
                f.name,
                Parameter.KEYWORD_ONLY,
                default=Parameter.empty if f.default is MISSING else f.default,
                annotation=f.type,
            )
            for f in fields(record)
        ]
        function.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]
        return function

    return shown
