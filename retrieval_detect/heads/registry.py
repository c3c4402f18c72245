"""The kinds of heads there are, and how a stored one is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from retrieval_detect.heads.base import Head

_NAMES = "linear svm prototype adapter prompt caption layers quality ensemble"
KINDS: Mapping[str, str] = {
    kind: f"retrieval_detect.heads.{kind}:{kind.capitalize()}Head" for kind in _NAMES.split()
}
"""Kind → ``"module:Class"``; a kind's module is imported only when it is asked for."""


def head_class(kind: str) -> type[Head]:
    """The class of a kind; ``UsageError`` for an unknown one."""
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known kinds: {', '.join(KINDS)}"
        raise UsageError(f"there is no head of kind {kind!r}", hint=hint)
    module, _, name = KINDS[kind].partition(":")
    found: type[Head] = getattr(import_module(module), name)
    return found


def read_head(files: Mapping[str, bytes]) -> Head:
    """A head from its files (see ``Head``); ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
    return head_class(str(json.loads(files["json"])["kind"])).from_files(files)
