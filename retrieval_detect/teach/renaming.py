"""References under other names, and all that was fitted by the old ones fitted anew."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from retrieval_detect.errors import UsageError
from retrieval_detect.names import checked, spelling
from retrieval_detect.teach.refit import refitted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.store.renaming import Names
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store


def new_name(snapshot: Snapshot, column: str, old: str, new: str) -> Names:
    """What is called ``old`` in a column, in whatever spelling, is to be called ``new``.

    Raises ``BadName`` for what is no name, and ``UsageError`` where no reference is called so.
    """
    wanted = checked(new, column)
    stored = snapshot.scan([column])[column].unique().to_pylist()
    found = {name: wanted for name in stored if spelling(name) == spelling(old) and name != wanted}
    if not found:
        if wanted in stored and spelling(old) == spelling(wanted):
            raise UsageError(f"{column} {wanted!r} is called so already", hint="Give another name.")
        raise UsageError(f"no reference has {column} {old!r}", hint="What there is: rd bank list")
    return {column: found}


def rename(store: Store, names: Names, *, detail: Mapping[str, Any], device: str = "auto") -> Manifest:
    """Give references other names, as one generation; two names that become one are one from then on.

    Of what was fitted by the old names, all that follows an addition is fitted anew, the rest is stale.
    """
    with store.writer() as writer:
        look = partial(refitted, writer, device=device)
        return writer.rename(names, detail=detail, review=look)
