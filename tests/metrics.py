"""Metrics that tests put intervals around."""

from __future__ import annotations

from retrieval_detect.evaluate.metrics import accuracy


def at_threshold(threshold, part="all"):
    """One share of ``accuracy`` as a metric."""
    return lambda scores, fake: getattr(accuracy(scores, fake, threshold=threshold, kind="fixed"), part)
