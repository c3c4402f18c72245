"""What the documents tell people to type can be typed, and what they link to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from retrieval_detect.cli.main import rd

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "index/README.md", "bench/README.md")
]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```\n(.*?)```", page.read_text(), re.S):
            for line in block.splitlines():
                line = line.removeprefix("$ ").split("#")[0].strip()
                if re.match(r"rd( |$)", line):
                    found.append((page.name, line))
    return found


def test_there_are_commands_to_check():
    assert len(commands()) >= 5


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_of_the_docs_parses(page, line):
    args = shlex.split(line)[1:]
    command: click.Command = rd
    context = click.Context(rd, info_name="rd")
    while isinstance(command, click.Group):
        name, found, args = command.resolve_command(context, args)
        assert found is not None, name
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.make_parser(context).parse_args(args)  # raises for unknown options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_no_number_without_a_machine():
    """The README's numbers are rendered from a result file, which says when and where."""
    block = re.search(r"<!-- numbers.*?-->(.*?)<!-- /numbers -->", (ROOT / "README.md").read_text(), re.S)
    assert block is not None
    if block.group(1).strip():
        assert re.search(r"\d{4}-\d{2}-\d{2}", block.group(1))
        assert "trivial" in block.group(1)
