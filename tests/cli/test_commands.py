from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import click
import pytest

from retrieval_detect.cli.main import COMMANDS, rd

WRITTEN = [name for name, entry in COMMANDS.items() if find_spec(f"retrieval_detect.cli.{entry.module}")]


def load(name: str) -> click.Command:
    command = rd.get_command(click.Context(rd), name)
    assert command is not None
    return command


def walk(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from walk((*path, name), below)


ALL = [pair for name in WRITTEN for pair in walk((name,), load(name))]


@pytest.mark.parametrize("name", WRITTEN)
def test_the_table_says_what_the_command_says(name):
    command = load(name)
    assert command.name == name
    assert command.get_short_help_str(limit=200).rstrip(".") == COMMANDS[name].help


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_has_help_and_examples(run_rd, path, command):
    result = run_rd(*path, "--help")
    assert result.exit_code == 0
    text, _, examples = result.stdout.partition("\nExamples:\n")
    assert command.help
    assert command.help.split(".")[0].split()[0] in text
    assert f"rd {' '.join(path)}" in examples


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_option_has_help(path, command):
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{' '.join(path)} {param.opts[0]}"
