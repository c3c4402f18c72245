"""kill -9 at every write, fsync, rename and deletion: the old generation or the new one, never a third."""

from __future__ import annotations

import multiprocessing
import shutil
import signal

import pyarrow.parquet as pq
import pytest

from retrieval_detect.store.store import Store
from retrieval_detect.store.verify import findings
from tests.factories import write_pictures
from tests.integration import crashing

LEAST_POINTS = 20
"""To die at, an operation; going back to a generation writes but two files and has fewer."""
STRIDE = {"build": 3, "add": 3, "compact": 2, "purge": 2}
"""Long operations are killed at every second or third point, to keep the test short."""


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.crashing"])
    return context


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder / "real" / "camera", range(5))
    write_pictures(folder / "fake" / "gen", range(50, 55), fake=True)
    return folder


@pytest.fixture
def start(tmp_path, pictures, request):
    """The index each operation starts from."""
    folder, log = tmp_path / "start", tmp_path / "log"
    operation = request.node.callspec.params["operation"]
    if operation in ("build", "rollback", "remove", "compact", "purge", "add"):
        some = tmp_path / "some"
        shutil.copytree(pictures, some)
        if operation == "add":
            for path in sorted(some.rglob("*.png"))[::2]:
                path.unlink()
        if operation != "build":
            crashing.teach(folder, some, log)
    if operation in ("rollback", "compact", "purge"):
        crashing.remove(folder)
    return folder


def state(folder):
    """What an index says, less what may differ between two ways to the same end."""
    snapshot = Store(folder).snapshot()
    assert list(findings(snapshot)) == []
    rows = snapshot.scan(["content_id", "label", "split", "generator", "source"]).to_pylist()
    return sorted(tuple(row.values()) for row in rows)


def run_once(processes, operation, folder, pictures, log, steps):
    name = "teach" if operation in ("build", "add") else operation
    process = processes.Process(target=crashing.run, args=(name, folder, pictures, log, steps))
    process.start()
    process.join(60)
    assert process.exitcode is not None, "hangs"
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["build", "add", "remove", "compact", "purge", "rollback"])
def test_killed_anywhere(operation, start, pictures, processes, tmp_path):
    log = tmp_path / "log"
    before = state(start) if start.exists() else []
    finished = tmp_path / "finished"
    if start.exists():
        shutil.copytree(start, finished)
    assert run_once(processes, operation, finished, pictures, log, 10**9) == 0
    after = state(finished)
    steps = deaths = 0
    while True:
        steps += STRIDE.get(operation, 1)
        folder = tmp_path / f"killed-{steps}"
        if start.exists():
            shutil.copytree(start, folder)
        if run_once(processes, operation, folder, pictures, log, steps) == 0:
            break
        deaths += 1
        check_survival(processes, operation, folder, pictures, log, before, after)
        shutil.rmtree(folder, ignore_errors=True)
    least = LEAST_POINTS // 2 if operation == "rollback" else LEAST_POINTS
    assert deaths >= least, f"only {deaths} points to die at"


def check_survival(processes, operation, folder, pictures, log, before, after):
    """Old or new; whole; and the same command finishes the work without doing it twice."""
    there = (folder / "CURRENT").exists()
    survived = state(folder) if there else []
    assert survived in (before, after)
    parts = [path for path in (folder / "staging").glob("*.parquet") if not path.name.startswith(".tmp-")]
    staged = sum(pq.read_metadata(path).num_rows for path in parts)
    log.write_text("")
    assert run_once(processes, operation, folder, pictures, log, 10**9) == 0
    assert state(folder) == after
    if operation in ("build", "add") and there:
        new = len(after) - len(before)
        embedded = len(log.read_text())
        assert embedded == 0 if survived == after else embedded <= new - staged
    leftovers = [path for path in folder.rglob("*") if ".tmp-" in path.name]
    assert leftovers == []


def test_the_fuse_kills(processes, pictures, tmp_path):
    """The machinery of this file works: a fuse of one step kills at the first write."""
    assert run_once(processes, "build", tmp_path / "i", pictures, tmp_path / "log", 1) == -signal.SIGKILL
