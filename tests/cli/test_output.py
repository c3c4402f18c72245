from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from retrieval_detect.cli.formats import Rows, aligned, folded
from retrieval_detect.cli.output import Column, Output, escape, human, human_bytes
from retrieval_detect.cli.settings import FORMATS
from retrieval_detect.errors import UsageError

HOSTILE = "\x1b[2J\x9b31m\u202egpj\u2028a\nb\x7f.jpg"
ROWS = [
    {"generator": "sdxl", "images": 1495, "share": 0.5},
    {"generator": HOSTILE, "images": 7, "share": None},
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """stdin, stdout and stderr that claim to be a terminal of 80 columns."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def sit_down(typed: str = "") -> tuple[Terminal, Terminal]:
        # Called in the test: between fixture and test the capture of output puts its own streams back.
        streams = {"stdin": Terminal(typed), "stdout": Terminal(), "stderr": Terminal()}
        for name, stream in streams.items():
            monkeypatch.setattr(f"sys.{name}", stream)
        return streams["stdout"], streams["stderr"]

    return sit_down


# ---------------------------------------------------------------- values


def test_escape_leaves_what_can_be_printed():
    assert escape("naïve 写真 é – 49 %.jpg") == "naïve 写真 é – 49 %.jpg"


def test_escape_disarms_what_a_terminal_obeys():
    assert escape(HOSTILE) == r"\x1b[2J\x9b31m\u202egpj\u2028a\nb\x7f.jpg"
    assert escape("\udcff") == r"\udcff"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1495, "1,495"),
        (0.91234, "0.912"),
        (0, "0"),
        (True, "yes"),
        (None, "-"),
        ("", "-"),
        (["a", "b"], "a, b"),
        ({"sdxl": 5, "flux": 2}, "sdxl 5, flux 2"),
        (Path("a/b"), "a/b"),
    ],
)
def test_values_for_people(value, text):
    assert human(value) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_999, "1 MB"),
        (1_234_567_890, "1.23 GB"),
        (2e12, "2.0 TB"),
    ],
)
def test_sizes_for_people(size_bytes, text):
    assert human_bytes(size_bytes) == text


# ---------------------------------------------------------------- one thing


RECORD = {"input": "a.jpg", "score": 1.74, "votes": {"fake": 8}}


def test_record_in_each_format(capsys):
    expected = {
        "human": "input  a.jpg\nscore  1.74\nvotes  fake 8\n",
        "json": json.dumps(RECORD, indent=2) + "\n",
        "jsonl": json.dumps(RECORD) + "\n",
        "csv": 'input,score,votes\na.jpg,1.74,"{""fake"": 8}"\n',
        "quiet": "a.jpg\n",
    }
    assert expected.keys() == set(FORMATS)
    for name, text in expected.items():
        output = Output(name)
        output.record(RECORD)
        output.close()
        assert capsys.readouterr() == (text, "")


def test_text_is_for_people_and_essentials_for_quiet(capsys):
    Output("human").record(RECORD, text="closer to the fake bank\n  8 of 10", essential=["score", "input"])
    assert capsys.readouterr().out == "closer to the fake bank\n  8 of 10\n"
    Output("quiet").record(RECORD, text="closer", essential=["score", "input"])
    assert capsys.readouterr().out == "1.74\ta.jpg\n"


# ---------------------------------------------------------------- series


@pytest.mark.parametrize("n", [1, 3])
def test_json_prints_an_array_whatever_the_number(capsys, n):
    output = Output("json")
    for number in range(n):
        output.stream({"number": number})
    output.close()
    assert json.loads(capsys.readouterr().out) == [{"number": number} for number in range(n)]


def test_jsonl_prints_each_at_once(capsys):
    output = Output("jsonl")
    output.stream({"name": HOSTILE, "path": Path("a"), "vector": np.float32([1, 0])})
    line = capsys.readouterr().out
    assert json.loads(line) == {"name": HOSTILE, "path": "a", "vector": [1.0, 0.0]}
    assert line.isascii()
    assert line.count("\n") == 1


def test_json_refuses_what_json_cannot_say(capsys):
    with pytest.raises(ValueError, match="Out of range float"):
        Output("json").record({"score": float("nan")})
    assert capsys.readouterr().out == ""


def test_csv_has_one_header_and_survives_hostile_names(capsys):
    output = Output("csv")
    output.stream({"name": HOSTILE, "n": 1})
    output.stream({"name": 'say "hi", you', "n": None})
    text = capsys.readouterr().out
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["name", "n"],
        [HOSTILE, "1"],
        ['say "hi", you', ""],
    ]


def test_csv_gives_spreadsheets_nothing_to_compute(capsys):
    numbers = {"score": -0.5, "n": np.int64(-3), "s": np.float32(-1.5), "sure": True, "none": None}
    for name in ("=1+1.png", "+49.png", "-2.png", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=own"):
        output = Output("csv")
        output.stream({"name": name, "path": Path(name)} | numbers)
        _, row = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
        assert row == [f"'{name}", f"'{name}", "-0.5", "-3", "-1.5", "true", ""]
    output = Output("csv")
    output.stream({"=a": "plain-name", "b": "'quoted'", "c": [-1]})
    assert capsys.readouterr().out == "'=a,b,c\nplain-name,'quoted',[-1]\n"


def test_csv_never_drops_a_column_silently():
    output = Output("csv")
    output.stream({"a": 1})
    with pytest.raises(ValueError, match="began without b"):
        output.stream({"a": 1, "b": 2})


def test_a_series_for_people_is_text(capsys):
    Output("human").stream({"a": 1, "b": "x"})
    Output("human").stream({"a": 1}, text=[["one ", ("two", "fake")], "three"])
    assert capsys.readouterr().out == "1  x\none two\nthree\n"


# ---------------------------------------------------------------- tables


def test_table_aligns_numbers_right_and_escapes(capsys):
    Output().table(ROWS, ["generator", Column("images", "n"), "share"], title="Fakes")
    escaped = escape(HOSTILE)
    width = len(escaped)
    assert capsys.readouterr().out.splitlines() == [
        "Fakes",
        f"{'generator':<{width}}      n  share",
        f"{'sdxl':<{width}}  1,495    0.5",
        f"{escaped}      7      -",
    ]


def test_table_fits_a_terminal_and_cuts_nothing(terminal):
    stdout, _ = terminal()
    Output().table([{"uri": "x" * 200, "n": 12345}], ["uri", "n"])
    lines = stdout.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("x") for line in lines) == 200
    assert "12,345" in lines[1]


def test_a_table_goes_on_below_what_is_wide_enough():
    rows = [{"name": "a", "x": 1.0, "y": 2.0, "z": None}, {"name": "b", "x": 3.0, "y": None, "z": 4.0}]
    columns = [Column(name, show=lambda value: "" if value is None else str(value)) for name in rows[0]]
    parts = folded(Rows(rows, columns, most_wide=12))
    assert [aligned(part) for part in parts] == [
        ["name    x", "a     1.0", "b     3.0"],
        ["name    y", "a     2.0"],
        ["name    z", "b     4.0"],
    ]
    wide = Rows(rows, columns, most_wide=22)
    assert folded(wide) == [wide] and max(map(len, aligned(wide))) <= 22


def test_table_gives_machines_whole_rows(capsys):
    Output("json").table(ROWS, ["generator"])
    assert json.loads(capsys.readouterr().out) == ROWS
    Output("csv").table(ROWS, ["generator"])
    assert capsys.readouterr().out.startswith("generator,images,share\n")
    Output("quiet").table(ROWS, ["images"])
    assert capsys.readouterr().out == "1495\n7\n"


@pytest.mark.parametrize(
    ("name", "text"), [("json", "[]\n"), ("jsonl", ""), ("csv", "a,b\n"), ("quiet", ""), ("human", "a  b\n")]
)
def test_an_empty_table_is_still_an_answer(capsys, name, text):
    Output(name).table([], ["a", "b"])
    assert capsys.readouterr().out == text


# ---------------------------------------------------------------- people only, and talk


def test_lines_are_for_people_only(capsys):
    for name in FORMATS:
        output = Output(name)
        output.line("one ", ("two", "strong"))
        output.lines("three\nfour\x07")
        shown = capsys.readouterr().out
        assert shown == ("one two\nthree\nfour\\x07\n" if name == "human" else "")


@pytest.mark.parametrize(
    ("output", "heard"),
    [
        (Output(), ["note", "done", "Warning: careful"]),
        (Output(verbosity=1), ["note", "detail", "done", "Warning: careful"]),
        (Output("json"), ["note", "done", "Warning: careful"]),
        (Output("json", verbosity=-1), ["Warning: careful"]),
        (Output("quiet"), ["Warning: careful"]),
    ],
)
def test_talk_goes_to_stderr_as_loud_as_asked(capsys, output, heard):
    output.note("note")
    output.detail("detail")
    output.success("done")
    output.warning("careful")
    assert capsys.readouterr() == ("", "".join(f"{line}\n" for line in heard))


def test_colour_only_on_a_terminal_and_the_same_words_without(terminal, monkeypatch):
    stdout, stderr = terminal()
    Output().line(("closer to the fake bank", "fake"))
    assert stdout.getvalue() == "\x1b[31m\x1b[1mcloser to the fake bank\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    Output().warning("careful")
    assert stderr.getvalue() == "Warning: careful\n"


def test_colour_can_be_asked_for_and_refused(terminal):
    stdout, _ = terminal()
    Output(color=False).line(("x", "fake"))
    Output(color=True).line(("x", "fake"))
    assert stdout.getvalue() == "x\n\x1b[31m\x1b[1mx\x1b[0m\n"


def test_csv_is_escaped_only_for_a_terminal(terminal):
    stdout, _ = terminal()
    Output("csv").stream({"name": "\x1b[2J"})
    assert stdout.getvalue() == "name\n\\x1b[2J\n"


# ---------------------------------------------------------------- questions


def test_confirm_refuses_where_nobody_can_answer(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="Remove 3 references") as error:
        Output().confirm("Remove 3 references?", yes=False)
    assert "--yes" in error.value.hint


def test_confirm_takes_yes_beforehand(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert Output().confirm("Remove?", yes=True)


@pytest.mark.parametrize(("typed", "answer"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_confirm_does_nothing_by_default(terminal, typed, answer):
    stdout, _ = terminal(typed)
    assert Output().confirm("Remove?", yes=False) is answer
    assert stdout.getvalue() == ""
