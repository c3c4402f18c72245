"""The kinds of projections there are, and fitting one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from retrieval_detect.errors import UsageError
from retrieval_detect.projections.base import Fitting, check_rows
from retrieval_detect.projections.concat import Concat
from retrieval_detect.projections.heads import Heads
from retrieval_detect.projections.identity import Identity
from retrieval_detect.projections.lda import Lda
from retrieval_detect.projections.mask import Mask
from retrieval_detect.projections.nca import Nca
from retrieval_detect.projections.nullspace import Nullspace
from retrieval_detect.projections.whiten import Whiten

if TYPE_CHECKING:
    from retrieval_detect.search.projection import Affine
    from retrieval_detect.vectors import Rows

KINDS: Mapping[str, type[Fitting]] = {
    kind.kind: kind for kind in (Identity, Concat, Whiten, Lda, Nca, Mask, Heads, Nullspace)
}


def fit_projection(kind: str, rows: Rows, /, *, layers: Sequence[str], **options: Any) -> Affine:
    """Fit a projection of ``kind`` on bank rows.

    ``options`` : the kind's fields. Its outcome's ``facts`` hold them, the ``labels`` of the rows that
    it was fitted on, and what was chosen. Raises ``UsageError`` where the rows cannot teach it.
    """
    fitting = fitting_class(kind)
    unknown = sorted(set(options) - {f.name for f in fields(fitting)})
    if unknown:
        raise UsageError(
            f"a projection of kind {kind} has no option {unknown[0]!r}",
            hint=f"It has: {', '.join(f.name for f in fields(fitting)) or 'none'}",
        )
    chosen = fitting(**options)
    check_rows(rows, layers, chosen.labels)
    return chosen.fit(rows, layers)


def fitting_class(kind: str) -> type[Fitting]:
    """The class of a kind; ``UsageError`` for an unknown one."""
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        raise UsageError(
            f"there is no projection of kind {kind!r}",
            hint=f"Did you mean {near[0]!r}?" if near else f"Known kinds: {', '.join(KINDS)}",
        )
    return KINDS[kind]
