"""How long work says how far it has come: by calling whoever wants to know."""

from __future__ import annotations


def quiet(_: object) -> None:
    """Tell nobody."""
