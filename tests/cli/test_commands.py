from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from retrieval_detect.cli import renamed
from retrieval_detect.cli.main import COMMANDS, rd
from retrieval_detect.cli.params import EVERYWHERE
from tests.building import one_error

LEAVES, OWN_OPTIONS = 33, 16
"""At most so many commands, and so many options of any one beside those of every command."""


def walk(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from walk((*path, name), below)


ALL = [pair for pair in walk((), rd) if pair[0]]
BELOW_RD = [pair for pair in ALL if len(pair[0]) == 1]


def own_options(command: click.Command) -> list[click.Option]:
    return [p for p in command.params if isinstance(p, click.Option) and p not in EVERYWHERE]


def test_the_surface_does_not_grow_unnoticed():
    """Above the limits something must go, or become a part of another option or a name of ``--set``."""
    leaves = [" ".join(path) for path, command in ALL if not isinstance(command, click.Group)]
    assert len(leaves) <= LEAVES, leaves
    most = {" ".join(path): len(own_options(command)) for path, command in ALL}
    assert {path: n for path, n in most.items() if n > OWN_OPTIONS} == {}


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_a_long_help_stands_under_headings(run_rd, path, command):
    options = own_options(command)
    assert bool(command.headings) == (len(options) > 8)
    shown = run_rd(*path, "--help").stdout
    assert all(f"\n{heading}:\n" in shown for heading in command.headings)
    flags = [flag for option in options for flag in option.opts if flag.startswith("--")]
    assert all(len(re.findall(rf"^  .*{flag}\b(?!-)", shown, re.M)) >= 1 for flag in flags)


@pytest.mark.parametrize(("typed", "now"), renamed.COMMANDS.items())
def test_an_old_command_names_the_new_one(run_rd, typed, now):
    assert one_error(run_rd(*typed.split(), "x"), 2) == f"Error: rd {typed} is now: {now}.\n"


OLD_OPTIONS = [(command, *pair) for command, olds in renamed.OPTIONS.items() for pair in olds.items()]


@pytest.mark.parametrize(("command", "option", "now"), OLD_OPTIONS)
def test_an_old_option_names_the_new_one(run_rd, command, option, now):
    assert one_error(run_rd(*command.split(), option), 2) == f"Error: rd {command} {option} is now: {now}.\n"


@pytest.mark.parametrize("now", [*renamed.COMMANDS.values(), *(now for *_, now in OLD_OPTIONS)])
def test_what_is_named_in_the_place_of_an_old_spelling_is_there(now):
    words = now.split()
    known = {option for _, command in ALL for option in own_options(command)}
    flags = {flag for option in known for flag in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= flags
    if words[0] == "rd":
        assert any(path == tuple(words[1 : 1 + len(path)]) for path, _ in ALL)


@pytest.mark.parametrize(("path", "command"), BELOW_RD, ids=[path[0] for path, _ in BELOW_RD])
def test_the_table_says_what_the_command_says(path, command):
    (name,) = path
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


# ---------------------------------------------------------------- what only experts set


def test_names_of_set_are_listed_with_their_defaults(run_rd):
    result = run_rd("query", "--set", "help")
    assert result.exit_code == 0 and "pool" in result.stdout and "Default: max." in result.stdout
    linear, all_kinds = (run_rd("train", *kind, "--set", "help").stdout for kind in (("linear",), ()))
    assert "optimizer" in linear and "concentration" not in linear
    assert "concentration" in all_kinds


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--set", "pol=max"), "has nothing called pol to set.\n  Did you mean pool?"),
        (("--set", "pool"), "--set takes NAME=VALUE, not 'pool'"),
        (("--set", "pool=least"), "pool cannot be 'least'"),
        (("--set", "workers=none"), "--set workers: workers must be a whole number above 0"),
        (("--workers", "2"), "rd query --workers is now: --set workers=VALUE"),
        (("-k", "2"), "rd query -k is now: --set k=VALUE"),
    ],
)
def test_what_cannot_be_set(run_rd, args, said):
    assert said in one_error(run_rd("query", "a.jpg", *args), 2)


def test_the_file_sets_what_the_line_does_not(run_rd, bare_folder):
    (bare_folder / "rd.toml").write_text("[set]\npool = 'least'\nepochs = 3\nk = 5\n")
    assert "pool cannot be 'least'" in one_error(run_rd("query", "a.jpg"), 2)
    said = one_error(run_rd("query", "a.jpg", "--regions", "--set", "pool=max"), 2)
    assert "pool" not in said and "a.jpg" in said
    assert '"value": 5' in run_rd("doctor", "--json").stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [("[set]\npoool = 'max'", "unknown key 'poool'"), ("set = 3", "set must be a table")],
)
def test_a_mistake_in_the_file_is_found(run_rd, bare_folder, text, said):
    (bare_folder / "rd.toml").write_text(text)
    assert said in run_rd("query", "a.jpg").stderr
