"""The store: the files of one index, read without a lock and written under one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from retrieval_detect.errors import IndexLocked, UsageError
from retrieval_detect.files import TEMPORARY, DigestCache
from retrieval_detect.store import layout
from retrieval_detect.store.manifest import (
    FileRecord,
    Manifest,
    Operation,
    commit,
    now,
    read_current,
    tool_versions,
)
from retrieval_detect.store.shards import write_array
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.sweep import erasable, kept_snapshot, sweep
from retrieval_detect.store.writer import Writer

if TYPE_CHECKING:
    from retrieval_detect.types import EncoderSpec, Float32

_FOLDERS = (layout.MANIFESTS, layout.SHARDS, layout.TOMBSTONES, layout.CANARIES)
_OURS = {
    *(layout.CURRENT, layout.STAGING, layout.BANKS, layout.LOCK, layout.MISTAKES),
    *_FOLDERS,
    *layout.FITTED.values(),
}


class Store:
    """The files of one index.

    Reading needs no lock: ``snapshot()`` opens the generation in force. Writing goes through
    ``writer()``, which holds ``.lock`` and refuses a second writer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._place = folder, folder.absolute()

    @classmethod
    def create(cls, folder: Path, spec: EncoderSpec, *, canaries: Mapping[str, Float32]) -> Store:
        """A new, empty index: generation 0.

        ``canaries`` : layer → float32 (16, d), the canary images' vectors; its keys are the layers
        that every reference will have. Raises ``UsageError`` where something else lies already.
        """
        _require_free(folder)  # no lock file in somebody else's folder
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _require_free(folder)  # another may have been faster
            for name in _FOLDERS:
                (folder / name).mkdir(exist_ok=True)
            records = {layer: _write_canaries(folder, layer, vectors) for layer, vectors in canaries.items()}
            operation = Operation("create")
            empty = Manifest(
                0,
                None,
                now(),
                operation,
                spec,
                tuple(canaries),
                records,
                engines={spec.engine: 0.0},
                tools=tool_versions(),
            )
            commit(folder, empty)
        return cls(folder)

    def snapshot(self, *, digests: DigestCache | None = None) -> Snapshot:
        """The generation in force, checked; see ``Snapshot.open``."""
        return Snapshot.open(self._place, digests=digests)

    def kept(self, generation: int) -> Snapshot:
        """A generation that can be gone back to; see ``sweep.kept_snapshot``."""
        return kept_snapshot(self._place, generation)

    def erasable(self) -> set[bytes]:
        """Images that a purge would erase; see ``sweep.erasable``."""
        return erasable(self.snapshot())

    @contextmanager
    def writer(self, *, checked: bool = True) -> Iterator[Writer]:
        """Hold the lock and sweep what a crashed writer left; ``IndexLocked`` at once if another holds it.

        ``checked=False`` opens an index whose files are damaged, to go back to when they were not.
        """
        read_current(self._place)  # no lock file where there is no index
        with _locked(self._place):
            snapshot = self.snapshot() if checked else Snapshot(self._place, read_current(self._place))
            sweep(self._place, snapshot.manifest)
            yield Writer(self._place, snapshot)


def _require_free(folder: Path) -> None:
    if (folder / layout.CURRENT).exists():
        raise UsageError(
            f"{folder} is an index already", hint="Add to it: rd bank add, or choose another name."
        )
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    # A creation that was killed leaves some of ours behind; it must be possible to try again.
    strange = any(name not in _OURS and not name.startswith(TEMPORARY) for name in names)
    if strange or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} exists and is not an index", hint="Give a new or empty folder.")


def _write_canaries(folder: Path, layer: str, vectors: Float32) -> FileRecord:
    plain = folder / layout.CANARIES / f"{layer}.npy"
    record = write_array(plain, vectors)
    plain.replace(folder / layout.CANARIES / f"{layer}-{record.sha256[:16]}.npy")
    return record


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = filelock.FileLock(folder / layout.LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise IndexLocked(
            f"another rd is writing to {folder}",
            hint="Wait until it has finished, then run the command again.",
        ) from None
    try:
        yield
    finally:
        lock.release()
