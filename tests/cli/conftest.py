from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest

from retrieval_detect.cli.main import main, rd
from retrieval_detect.cli.params import Command, Run, device_option, offline_option
from retrieval_detect.cli.settable import K, set_option
from retrieval_detect.cli.settings import SETTING_NAMES, variable
from retrieval_detect.encoders.canaries import canary_images
from retrieval_detect.encoders.tiny import TinyEncoder
from tests.factories import write_pictures

pytest.register_assert_rewrite("tests.building")


class Result(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def bare_folder(tmp_path, monkeypatch):
    """No settings from outside: an empty folder and no variable that rd reads."""
    for name in ("RD_DEBUG", "NO_COLOR", *map(variable, SETTING_NAMES)):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run_rd(capsys) -> Callable[..., Result]:
    """Runs ``rd`` in this process."""

    def run(*args: str) -> Result:
        code = main(list(args))
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def run_with(run_rd) -> Callable[..., Result]:
    """Runs ``rd … probe …`` with a throw-away command whose body is given."""

    def run(body: Callable[[Run], int | None], *args: str) -> Result:
        @click.command("probe", cls=Command, examples="rd probe")
        @device_option
        @set_option(K)
        @offline_option
        @click.pass_obj
        def probe(run: Run) -> int | None:
            """Do what the test says."""
            return body(run)

        rd.add_command(probe)
        return run_rd(*(args or ("probe",)))

    yield run
    rd.commands.pop("probe", None)


# ---------------------------------------------------------------- journeys


@pytest.fixture
def pictures(bare_folder) -> Path:
    """``photos/<source>`` and ``generated/<generator>`` in the working folder, and ``index/`` beside them."""
    (bare_folder / "index").mkdir()
    write_pictures(bare_folder / "photos" / "camera", range(8))
    write_pictures(bare_folder / "photos" / "phone", range(10, 14))
    write_pictures(bare_folder / "generated" / "sdxl", range(50, 56), fake=True)
    write_pictures(bare_folder / "generated" / "flux", range(60, 65), fake=True)
    write_pictures(bare_folder / "new", range(80, 84), fake=True)
    write_pictures(bare_folder / "ask", range(200, 203))
    return bare_folder


@pytest.fixture
def index(pictures, run_rd) -> Path:
    """The index ``default`` over them, by the toy encoder; its folder."""
    result = run_rd("build-index", "--real", "photos", "--fake", "generated", "--encoder", "tiny")
    assert result.exit_code == 0, result.stderr
    return pictures / "index" / "default"


@pytest.fixture
def embedded(monkeypatch) -> list[int]:
    """How many images each call of the toy encoder was given; the sixteen canaries do not count."""
    calls: list[int] = []
    encode = TinyEncoder.encode

    def counting(self: TinyEncoder, batch: np.ndarray, layers: Sequence[str]) -> Mapping[str, np.ndarray]:
        if not np.array_equal(batch[0], self.prepare(canary_images()[0])):
            calls.append(len(batch))
        return encode(self, batch, layers)

    monkeypatch.setattr(TinyEncoder, "encode", counting)
    return calls


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file and folder below a folder, byte for byte."""

    def read(folder: Path) -> dict[str, bytes]:
        paths = sorted(folder.rglob("*"))
        return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"/" for p in paths}

    return read
