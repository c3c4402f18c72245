"""A process that kills itself, with SIGKILL, at the n-th time it touches the disk.

Every write, fsync, rename, deletion and new folder counts. Imported by ``test_crashes``; runs in
children of a fork server, so that hundreds of deaths take seconds.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.sources import scan
from retrieval_detect.store.store import Store
from retrieval_detect.teach import build
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.plans import plan
from retrieval_detect.types import Facts

STAGED_AT_ONCE = 4


class Fuse:
    """Burns one step a disk operation; at zero the process is gone."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class TornFile:
    """A file whose writes may stop half-way."""

    def __init__(self, file, fuse: Fuse) -> None:
        self._file, self._fuse = file, fuse

    def write(self, data):
        data = memoryview(data).cast("B")
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._fuse.burn()
        self._file.write(data[len(data) // 2 :])
        return len(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return self._file.__exit__(*exc)


def light(fuse: Fuse) -> None:
    """Make every disk operation of this process burn the fuse, before and after it."""

    def burning(function):
        def wrapper(*args, **kwargs):
            fuse.burn()
            result = function(*args, **kwargs)
            fuse.burn()
            return result

        return wrapper

    os.fsync = burning(os.fsync)
    for name in ("replace", "unlink", "mkdir", "rmdir"):
        setattr(Path, name, burning(getattr(Path, name)))
    plain_open = Path.open

    def opening(self, mode="r", *args, **kwargs):
        file = plain_open(self, mode, *args, **kwargs)
        return TornFile(file, fuse) if "x" in mode else file

    Path.open = opening


class CountingEncoder(TinyEncoder):
    """Writes down how many images it was given."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = log

    def encode(self, batch, layers):
        with open(self._log, "a") as log:  # noqa: PTH123 - not one of the counted operations
            log.write("x" * len(batch))
        return super().encode(batch, layers)


def teach(folder: Path, pictures: Path, log: Path) -> None:
    """What build-index does: plan, create if need be, embed, commit."""
    build.STAGE_ROWS = STAGED_AT_ONCE
    encoder = CountingEncoder(log)
    inputs = [(item, Facts(label)) for label in ("real", "fake") for item in scan([pictures / label])]
    index = Index.open(folder) if (folder / "CURRENT").exists() else None
    planned = plan(inputs, index.snapshot() if index else None)
    if planned.new or index is None:
        index = index or Index.create(folder, encoder=encoder)
        log.write_text("")  # the canaries do not count
        index.apply(planned, encoder=encoder, workers=1, batch_size=4)


def remove(folder: Path, *_: object) -> None:
    index = Index.open(folder)
    rows = [row_id for row_id in (0, 3, 9) if row_id not in index.snapshot().dead]
    if rows:
        index.remove(rows)


def compact(folder: Path, *_: object) -> None:
    with Store(folder).writer() as writer:
        writer.compact()


def purge(folder: Path, *_: object) -> None:
    with Store(folder).writer() as writer:
        writer.compact(purge=True)


def rollback(folder: Path, *_: object) -> None:
    with Store(folder).writer() as writer:
        writer.rollback(1)


OPERATIONS = {"teach": teach, "remove": remove, "compact": compact, "purge": purge, "rollback": rollback}


def run(operation: str, folder: Path, pictures: Path, log: Path, steps: int) -> None:
    """Do ``operation`` with a fuse of ``steps``; exits 0 if it burnt out too late."""
    light(Fuse(steps))
    OPERATIONS[operation](folder, pictures, log)
