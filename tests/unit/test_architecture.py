"""House rules that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "retrieval_detect").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
MOST_LINES_A_FILE = 600
"""A longer one says in its docstring why it is one concept."""
MOST_LINES_A_FUNCTION = 50


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length of every function, its decorators and docstring left out: they are no logic."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            first = body[0].lineno if body else node.end_lineno
            yield node.name, node.end_lineno - first + 1 + (node.body[0].lineno - node.lineno)


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_are_short_or_say_why_not(path):
    said = ast.get_docstring(tree(path)) or ""
    assert length(path) <= MOST_LINES_A_FILE or "one file because" in " ".join(said.split()).lower()


def test_test_files_are_short_too():
    lengths = {path.name: length(path) for path in (ROOT / "tests").rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_A_FILE} == {}


def test_open_clip_and_timm_are_imported_by_one_door():
    """They load torchvision, which is often installed so that it must be mended first."""
    found = {
        (path.name, name)
        for path in FILES
        for node in ast.walk(tree(path))
        for name in imported(node)
        if name.partition(".")[0] in {"open_clip", "timm", "torchvision"}
    }
    assert found == {("_libraries.py", "open_clip"), ("_libraries.py", "timm")}


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case ast.Call(func=ast.Name(id="import_module"), args=[ast.Constant(value=str(name))]):
            return [] if name == "torchvision" else [name]
    return []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_functions_are_short(path):
    assert [(name, lines) for name, lines in functions(path) if lines > MOST_LINES_A_FUNCTION] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_say_what_they_are_and_read_annotations_late(path):
    module = tree(path)
    assert ast.get_docstring(module)
    if len(module.body) > 1:
        late = next(node for node in module.body if isinstance(node, ast.ImportFrom))
        assert (late.module, [name.name for name in late.names]) == ("__future__", ["annotations"])


def declared(module: ast.Module) -> list[str]:
    for node in module.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return ast.literal_eval(node.value)
    return []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_all_names_nothing_private(path):
    names = declared(tree(path))
    assert [name for name in names if name.startswith("_") and name != "__version__"] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_ends_the_process_below_the_entry_point(path):
    calls = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    allowed = {"sys.exit"} if path.name == "__main__.py" else set()
    assert calls & {"sys.exit", "exit", "quit", "os._exit"} <= allowed


def test_what_people_write_is_read_in_one_place():
    """Whoever parses a file by himself forgets its byte order mark; these two read what rd itself ships."""
    parsers = {"tomllib.loads", "tomllib.load", "csv.DictReader", "csv.reader"}
    readers = {
        path.name
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in parsers
    }
    assert readers == {"texts.py", "tour.py", "published.py"}
