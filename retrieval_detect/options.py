"""Hyper-parameters of what is fitted: dataclass fields that commands offer by ``--set``."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any

from retrieval_detect.errors import UsageError


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
