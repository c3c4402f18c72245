"""The standard streams: there whatever the caller closed, and quiet once nobody reads them any more."""

from __future__ import annotations

import io
import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_streams() -> None:
    """Make stdin, stdout and stderr usable, whatever the shell did to them (``>&-``, an old locale)."""
    for descriptor, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            # Left closed, its number would go to the next file opened: an index's own, and what any
            # library prints would end in it. The lowest free number is taken, so this is that number.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that the terminal's encoding lacks must not stop a run.
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """Let what stdout still holds go nowhere: Python flushes it once more at its end, and would complain."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # no file: a program that called main put its own stream there
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
