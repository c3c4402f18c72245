"""What the documents tell people to type can be typed, and what they link to is there."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

import retrieval_detect
from retrieval_detect.cli import renamed
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
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.S | re.M):
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


READERS = [page for page in PAGES if page.name not in {"CONTRIBUTING.md", "CHANGELOG.md"}]
"""Pages for those who use rd, not for those who change it."""
PUBLIC = re.compile(r"retrieval_detect(\.(sklearn|testing)(\.\w+)?)?")
"""What callers may build on, as dotted names; of ``retrieval_detect`` itself besides, what it exports."""


@pytest.mark.parametrize("page", READERS, ids=lambda page: page.name)
def test_only_public_names_are_documented_as_such(page):
    text = page.read_text()
    exported = set(retrieval_detect.__all__)
    dotted = set(re.findall(r"\bretrieval_detect(?:\.\w+)+", text))
    assert {d for d in dotted if not PUBLIC.fullmatch(d) and d.partition(".")[2] not in exported} == set()
    for module, names in re.findall(r"^from (retrieval_detect[\w.]*) import (.+)$", text, re.M):
        there = set(import_module(module).__all__)
        assert set(re.split(r"[,\s]+", names.partition("#")[0].strip(" ()"))) <= there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_but_the_changelog_names_what_is_called_otherwise_now(page):
    typed = [re.sub(r"\s+", " ", code) for code in re.findall(r"`(rd [^`]+)`", page.read_text())]
    typed += [line for name, line in commands() if name == page.name]
    old = [*renamed.COMMANDS]
    old += [f"{command} .*{option}" for command, options in renamed.OPTIONS.items() for option in options]
    found = [line for line in typed if any(re.match(rf"rd {spelling}( |$)", line) for spelling in old)]
    assert found == [] or page.name == "CHANGELOG.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_no_number_without_a_machine():
    """The README's numbers are rendered from result files, which say when and where."""
    block = re.search(r"<!-- summary.*?-->(.*?)<!-- /summary -->", (ROOT / "README.md").read_text(), re.S)
    assert block is not None
    assert re.search(r"\d{4}-\d{2}-\d{2}", block.group(1)) and "cores" in block.group(1)
    assert "trivial" in block.group(1) and "Encoder `clip-vit-b16`" in block.group(1)


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def headings(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them of its headings."""
    lines = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M).splitlines()
    titles = [line.lstrip("# ").lower() for line in lines if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_a_page_lead_to_a_heading(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text()):
        if "://" not in target:
            assert anchor in headings(page.parent / target if target else page), f"{target}#{anchor}"
