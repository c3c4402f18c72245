"""The methods of an index, asked about other banks than its own: with some references less, or some more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval_detect.ask.methods import Methods

if TYPE_CHECKING:
    from retrieval_detect.ask.banks import Banks


class Instead(Methods):
    """Votes over ``banks`` in the place of those of ``methods``; every question is asked of them."""

    def __init__(self, methods: Methods, banks: Banks) -> None:
        super().__init__(methods.snapshot)
        self._instead = banks

    def banks(self, projection: str | None = None) -> Banks:  # noqa: ARG002 - those of the question
        """The banks given."""
        return self._instead
