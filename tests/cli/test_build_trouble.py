"""``rd build-index`` when something is wrong: bad files, encoders that do not fit, a full disk, Ctrl-C."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders import registry
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.store.manifest import read_current
from tests.building import BOTH, TINY, build, one_error
from tests.factories import png

ROOT = Path(__file__).parents[2]
# ---------------------------------------------------------------- bad input


def empty_folder(pictures):
    (pictures / "photos2").mkdir()


def texts(pictures):
    (pictures / "photos2").mkdir()
    (pictures / "photos2" / "notes.txt").write_text("no picture")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda _: None, "photos2' does not exist"),
        (empty_folder, "photos2' holds no image"),
        (texts, "photos2' holds no image; passed over 1 file that is no image: 1 .txt"),
    ],
    ids=["missing", "empty", "texts"],
)
def test_a_folder_without_images(pictures, run_rd, prepare, said):
    prepare(pictures)
    complaint = one_error(run_rd("build-index", "--real", "photos2", "--fake", "generated", *TINY), 2)
    assert said in complaint and "Give image files" in complaint
    assert list((pictures / "index").iterdir()) == []


def spoil(folder):
    (folder / "torn.png").write_bytes(png(1)[:200])
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    return 3


def test_bad_files_stop_nothing(pictures, run_rd, embedded, contents):
    spoil(pictures / "photos" / "phone")
    result = build(run_rd, "--json")
    assert result.exit_code == 3 and json.loads(result.stdout)["failures"] == 3
    assert json.loads(result.stdout)["references"] == {"real": 12, "fake": 11}
    for name, reason in (("torn.png", "cut short"), ("text.jpg", "not an image"), ("empty.png", "is empty")):
        (line,) = (line for line in result.stderr.splitlines() if name in line)
        assert line.startswith("Warning: ") and reason in line
    index = pictures / "index" / "default"
    listed = [json.loads(line) for line in (index / "failures.jsonl").read_text().splitlines()]
    assert sorted(entry["reason"] for entry in listed) == ["not-an-image", "not-an-image", "truncated"]
    embedded.clear()
    before = contents(index)
    again = build(run_rd, "--json")
    assert again.exit_code == 3 and json.loads(again.stdout)["generation"] == 1 and embedded == []
    assert contents(index) == before


def test_all_bad(pictures, run_rd):
    (pictures / "bad").mkdir()
    spoil(pictures / "bad")
    result = run_rd("build-index", "--real", "bad", *TINY)
    assert result.exit_code == 3 and "none of 3 images could be used: nothing was added" in result.stdout
    assert read_current(pictures / "index" / "default").live_rows("real") == 0
    assert build(run_rd).exit_code == 0


def test_an_unreadable_file_is_listed_though_nothing_else_is_new(index, pictures, run_rd):
    (pictures / "photos" / "gone.png").symlink_to(pictures / "nowhere.png")
    result = build(run_rd)
    assert result.exit_code == 3 and "gone.png" in result.stderr
    assert "gone.png" in (index / "failures.jsonl").read_text()


def test_many_failures_are_not_all_printed(pictures, run_rd):
    for n in range(15):
        (pictures / "photos" / f"bad{n:02}.png").write_text(f"no picture {n}")
    result = build(run_rd)
    assert result.stderr.count("Warning: ") == 11 and "and 5 more, all listed in" in result.stderr


@pytest.mark.parametrize("stored", [False, True])
def test_an_image_under_both_labels_is_refused(pictures, run_rd, contents, stored):
    if stored:
        run_rd("build-index", "--real", "photos", *TINY)
    before = contents(pictures / "index")
    args = ["--fake", "photos/camera/0003.png"] if stored else [*BOTH, "--fake", "photos/camera/0003.png"]
    complaint = one_error(run_rd("build-index", *args, *TINY), 1)
    assert "1 image has both labels, nothing was written" in complaint and "0003.png" in complaint
    assert contents(pictures / "index") == before


# ---------------------------------------------------------------- encoders that do not fit


class Other(TinyEncoder):
    """The toy encoder with other weights."""

    def __init__(self):
        super().__init__()
        self._spec = type(self._spec)(
            **{name: getattr(self._spec, name) for name in self._spec.__slots__}
            | {"name": "other", "weights_sha256": "0" * 64}
        )


class Broken(Other):
    """NaN for dark pictures, as a half-precision network that overflows gives."""

    def encode(self, batch, layers):
        vectors = super().encode(batch, layers)
        dark = batch.reshape(len(batch), -1).mean(axis=1) < self.threshold
        return {layer: np.where(dark[:, None], np.nan, rows) for layer, rows in vectors.items()}

    threshold = 1.0


@pytest.fixture
def plug_in(monkeypatch):
    """Serves an encoder under the name ``plug:in``."""

    def serve(encoder):
        load = registry.load_encoder
        monkeypatch.setattr(
            registry,
            "load_encoder",
            lambda name, **options: encoder if name in ("plug:in", "other") else load(name, **options),
        )

    return serve


def test_an_index_of_another_encoder(index, pictures, run_rd, plug_in, contents):
    plug_in(Other())
    before = contents(index)
    complaint = one_error(run_rd("build-index", "--fake", "new", "--encoder", "plug:in"), 1)
    assert "was built with tiny; this is other (different weights sha256)" in complaint
    assert contents(index) == before


def test_another_encoder_is_refused_even_if_nothing_is_new(index, run_rd, plug_in, contents):
    plug_in(Other())
    before = contents(index)
    said = one_error(run_rd("build-index", *BOTH, "--encoder", "plug:in"), 1)
    assert "was built with tiny" in said
    assert contents(index) == before


def test_an_index_keeps_its_encoder_whatever_the_environment_prefers(index, run_rd, monkeypatch):
    monkeypatch.setenv("RD_ENCODER", "nosuch:model")
    assert run_rd("build-index", "--fake", "new").exit_code == 0


def test_an_index_of_other_layers(index, run_rd, contents):
    before = contents(index)
    complaint = one_error(run_rd("build-index", "--fake", "new", *TINY, "--layers", "proj,pre"), 2)
    assert "stores layers proj, not proj,pre" in complaint and contents(index) == before


def test_vectors_that_are_not_numbers_are_failures(pictures, run_rd, plug_in):
    encoder = Broken()
    encoder.threshold = 60.0  # below every canary, above a black picture
    plug_in(encoder)
    Image.new("RGB", (64, 64)).save(pictures / "photos" / "black.png")
    result = run_rd("build-index", *BOTH, "--encoder", "plug:in", "--json")
    assert result.exit_code == 3, result.stderr
    assert "black.png: the encoder gave no usable vector" in result.stderr
    assert json.loads(result.stdout)["added"] == 23 - json.loads(result.stdout)["failures"] + 1
    assert run_rd("query", "ask/0200.png", "--json").exit_code == 0


def test_an_encoder_that_gives_no_numbers_makes_no_index(pictures, run_rd, plug_in):
    encoder = Broken()
    encoder.threshold = 256.0
    plug_in(encoder)
    complaint = one_error(run_rd("build-index", *BOTH, "--encoder", "plug:in"), 1)
    assert "other gives infinite or undefined numbers" in complaint
    assert list((pictures / "index").iterdir()) == []


# ---------------------------------------------------------------- trouble on the way


class FullDisk:
    """``os.fsync`` that finds no space from its n-th call on."""

    def __init__(self, after: int) -> None:
        self.left, self.fsync = after, os.fsync

    def __call__(self, descriptor: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.fsync(descriptor)


def test_a_disk_that_fills_at_any_time_loses_nothing(index, run_rd, monkeypatch, contents):
    kept = index.with_name("kept")
    shutil.copytree(index, kept)
    old = verdict(run_rd, "--index", "kept")
    for after in range(0, 100, 2):
        shutil.rmtree(index)
        shutil.copytree(kept, index)
        with monkeypatch.context() as patch:
            patch.setattr("retrieval_detect.files.os.fsync", FullDisk(after))
            result = run_rd("bank", "add", "new", "--label", "fake")
        if result.exit_code == 0:
            break
        complaint = one_error(result, 1)
        assert "the disk is full" in complaint and "run the same command again" in complaint
        assert [name for name in contents(index) if ".tmp-" in name] == []
        if read_current(index).generation == 1:
            assert verdict(run_rd)["score"] == old["score"]
        assert run_rd("index", "verify").exit_code == 0
        assert run_rd("bank", "add", "new", "--label", "fake").exit_code == 0
        assert read_current(index).live_rows("fake") == 15
    assert 20 <= after < 98


def verdict(run_rd, *args):
    (answer,) = json.loads(run_rd("query", "ask/0200.png", "--json", *args).stdout)
    return answer


def test_a_full_disk_keeps_what_was_embedded(index, run_rd, monkeypatch, embedded):
    with monkeypatch.context() as patch:
        patch.setattr("retrieval_detect.files.os.fsync", FullDisk(5))
        assert run_rd("bank", "add", "new", "--label", "fake").exit_code == 1
    assert sum(embedded) == 4 and list((index / "staging").glob("*.parquet"))
    assert run_rd("bank", "add", "new", "--label", "fake").exit_code == 0
    assert sum(embedded) == 4


HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "args",
    [
        ("bank", "add", "new", "--label", "fake"),
        ("bank", "remove", "--among", "generator=flux", "--yes"),
        ("bank", "rollback", "0"),
        ("bank", "compact", "--purge", "--yes"),
    ],
)
def test_a_second_writer_is_refused_and_readers_are_not(index, run_rd, contents, args):
    command = [sys.executable, "-c", HOLD, str(index / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        before = contents(index)
        complaint = one_error(run_rd(*args), 1)
        assert "another rd is writing to" in complaint and "Wait until it has finished" in complaint
        assert contents(index) == before
        assert run_rd("query", "ask/0200.png").exit_code == 0
        holder.stdin.close()
    assert run_rd(*args).exit_code == 0


SLOW = """
import signal, sys, time
from retrieval_detect.teach import build
from retrieval_detect.cli.main import main
from retrieval_detect.encoders.tiny import TinyEncoder

# A shell that starts this in the background, or nohup, has it ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
build.STAGE_ROWS = 2
encode = TinyEncoder.encode
def slow(self, batch, layers):
    if len(batch) < 16:
        print("encoding", len(batch), file=sys.stderr, flush=True)
        time.sleep(0.2)
    return encode(self, batch, layers)
TinyEncoder.encode = slow
sys.exit(main(sys.argv[1:]))
"""


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def start_slowly():
    args = ["build-index", *BOTH, *TINY, "--set", "batch-size=2", "--set", "workers=1"]
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def test_ctrl_c_and_again(pictures, run_rd, embedded):
    with start_slowly() as process:
        seen = 0
        for line in process.stderr:
            seen += "encoding" in line
            if seen == 5:
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted. Nothing is left half-written; run the same command again to go on." in rest
    assert "Traceback" not in rest
    assert read_current(pictures / "index" / "default").generation == 0
    kept = json.loads(build(run_rd, "--json", "--dry-run").stdout)["kept"]
    assert 0 < kept < 23
    result = build(run_rd, "--json")
    assert f"23 images, {kept} kept from before, {23 - kept} to embed, 0 already known" in result.stderr
    assert sum(embedded) == 23 - kept
    assert json.loads(result.stdout)["references"] == {"real": 12, "fake": 11}
    # The batch that was being encoded is lost, and the one before it may not have been taken yet.
    assert 0 < sum(embedded) <= 23 - 2 * (seen - 2)
    assert run_rd("index", "verify").exit_code == 0


def test_a_real_process(pictures):
    command = [sys.executable, "-m", "retrieval_detect", "build-index", *BOTH, *TINY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0 and "12 real, 11 fake" in done.stdout
    asked = subprocess.run(
        [sys.executable, "-m", "retrieval_detect", "query", "-", "--json"],
        input=png(200),
        capture_output=True,
        check=False,
        env=environment(),
    )
    assert [answer["input"] for answer in json.loads(asked.stdout)] == ["-"]
