from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import click
import pytest

from retrieval_detect.cli._params import Command, Run, device_option, k_option, offline_option
from retrieval_detect.cli.main import main, rd
from retrieval_detect.config import SETTING_NAMES, variable


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
        @k_option
        @offline_option
        @click.pass_obj
        def probe(run: Run) -> int | None:
            """Do what the test says."""
            return body(run)

        rd.add_command(probe)
        return run_rd(*(args or ("probe",)))

    yield run
    rd.commands.pop("probe", None)
