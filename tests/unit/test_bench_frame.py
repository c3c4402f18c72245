"""What every benchmark does with its result: shown, written where it belongs, shown again byte for byte."""

from __future__ import annotations

import json

import pytest

from bench import _frame, _numbers
from bench._frame import about, carry_out, parser_of, rounded

RESULT = {"date": "2026-01-02T03:04:05+00:00", "rows": [{"a": 1, "s": "é"}, {"a": 2, "s": "µ"}]}


def table(result):
    return " ".join(f"{row['a']}{row['s']}" for row in result["rows"])


def never():
    raise AssertionError("a result that is only shown is not measured")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs benchmark ``x`` with arguments; gives what it printed, and what lies in its results."""
    monkeypatch.setattr(_frame, "RESULTS", tmp_path / "results")
    page = tmp_path / "numbers.md"
    page.write_text("<!-- x: python -m bench.x --render old.json -->\n\n<!-- /x -->\n", encoding="utf-8")
    monkeypatch.setattr(_numbers, "PAGE", page)

    def carried(*arguments, measure=lambda: RESULT, **how):
        parser = parser_of("x", "About x.\n\nTwo paragraphs.")
        parser.add_argument("--quick", action="store_true")
        carry_out("x", parser.parse_args(arguments), measure, table, **how)
        return capsys.readouterr().out, sorted(path.name for path in tmp_path.glob("results/*"))

    return carried


@pytest.mark.parametrize("indent", [1, 2, None])
def test_a_result_is_written_by_its_date_and_shown_again(run, tmp_path, indent):
    shown, files = run(indent=indent)
    assert files == ["x-2026-01-02.json"]
    path = tmp_path / "results" / files[0]
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == RESULT and "µ" in text
    assert ('},\n{"a":2' in text) if indent is None else f'\n{" " * indent}"rows"' in text
    assert run("--render", str(path), measure=never)[0] == shown == "1é 2µ\n"
    wrote = f"<!-- x: python -m bench.x --render {path} -->\n\n1é 2µ\n\n<!-- /x -->\n"
    assert (tmp_path / "numbers.md").read_text(encoding="utf-8") == wrote


def test_what_was_only_tried_is_written_nowhere_but_where_asked(run, tmp_path):
    assert run("--quick") == ("1é 2µ\n", [])
    assert run("--quick", "--out", str(tmp_path / "new" / "try.json"))[1] == []
    assert json.loads((tmp_path / "new" / "try.json").read_text(encoding="utf-8")) == RESULT


def test_the_head_of_a_result():
    head = about("x", command="python -m bench.x", git_commit=None)
    assert list(head) == ["benchmark", "date", "command", "git_commit", "machine", "versions"]
    assert len(head["date"]) == len("2026-01-02T03:04:05+00:00") and "python" in head["versions"]


def test_numbers_are_rounded_wherever_they_stand():
    assert rounded({"a": [1 / 3, 7, "t"], "b": {"c": 123456789.0}}) == {
        "a": [0.333333, 7, "t"],
        "b": {"c": 123457000.0},
    }


def test_help_names_the_module_and_keeps_the_paragraphs():
    said = parser_of("speed.x", "About x.\n\nTwo paragraphs.").format_help()
    assert said.startswith("usage: python -m bench.speed.x") and "About x.\n\nTwo paragraphs.\n" in said
