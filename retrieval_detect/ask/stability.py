"""Whether a verdict outlives what happens to pictures on their way: the image re-encoded, judged anew.

Which re-encodings follows from the content id, so that asking again asks the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from retrieval_detect.errors import UsageError
from retrieval_detect.verdicts import JudgedView, Stability, Verdict

if TYPE_CHECKING:
    from retrieval_detect.verdicts import Question


def require(question: Question) -> None:
    """Raise ``UsageError`` if stability cannot be judged as asked."""
    if question.stability is None:
        return
    if question.stability < 1:
        raise UsageError(f"{question.stability} re-encodings say nothing", hint="Give 1 or more.")
    if question.fdr is not None:
        raise UsageError(
            "a rate of false discoveries is one of a batch, and says nothing of views of one image",
            hint="Judge stability at a rate of false alarms: --fpr.",
        )


def with_stability(verdict: Verdict, judged: Iterable[JudgedView]) -> Verdict:
    """The verdict with what re-encodings do to it, which shows and decides nothing.

    Without a calibration they agree where the same bank is nearer.
    ``judged`` : re-encodings of the image, asked what was asked of the image.
    """
    views = tuple(judged)
    if verdict.p_values is None:  # all are unknown; which bank is nearer is all that can change
        agree = sum((view.score > 0) == (verdict.score > 0) for view in views)
    else:
        agree = sum(view.verdict == verdict.verdict for view in views)
    return replace(verdict, stability=Stability(agree, len(views), verdict.verdict, views))
