"""Progress of long work: a bar where somebody watches, one line at the end in any case."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from retrieval_detect.cli.formats import escape

if TYPE_CHECKING:
    from rich.progress import Progress

    from retrieval_detect.cli.output import Output


class Meter:
    """Counts what is done; ``advance`` may be called from any thread that does the work alone."""

    def __init__(self, bar: Progress | None = None) -> None:
        self.n_done = 0
        self._bar = bar
        self._started_s = time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more as done."""
        self.n_done += n
        if self._bar is not None:
            (task,) = self._bar.task_ids
            self._bar.update(task, advance=n, rate=f"{self.rate:,.0f}")

    @property
    def rate(self) -> float:
        """How many were done per second so far."""
        return self.n_done / max(time.monotonic() - self._started_s, 1e-9)


@contextmanager
def progress(
    total: int | None, description: str, output: Output, *, unit: str = "img", window_s: float = 30.0
) -> Iterator[Meter]:
    """Follow ``total`` pieces of work (``None`` = nobody knows how many).

    The bar is drawn on stderr and is gone afterwards; the line that stays says how many were done
    and how fast, in the same words with and without a terminal. Work that fails leaves no line.
    ``window_s`` : the time that is left is estimated from so much of the past; there must be several
    pieces in it.
    """
    if not output.shows_progress:
        meter = Meter()
        yield meter
    else:
        with _bar(total, description, unit, window_s) as bar:
            meter = Meter(bar)
            yield meter
    if meter.n_done:
        of_total = "" if total is None else f"/{total:,}"
        output.note(f"{description:<20}  {meter.n_done:,}{of_total}  {meter.rate:,.0f} {unit}/s")


def _bar(total: int | None, description: str, unit: str, window_s: float) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]}} {unit}/s", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        speed_estimate_period=window_s,
        # rich sends what it redirects to its own console: data for a pipe would end on the screen.
        redirect_stdout=sys.stdout.isatty(),
    )
    bar.add_task(escape(description), total=total, rate="-")
    return bar
