from __future__ import annotations

import io
import re

import pytest

from retrieval_detect.cli.output import Output
from retrieval_detect.cli.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(output: Output, total: int | None = 57) -> None:
    with progress(total, "Embedding", output) as meter:
        for _ in range(57):
            meter.advance()


def test_without_a_terminal_one_line_stays(capsys):
    work(Output())
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"Embedding             57/57  [\d,]+ img/s\n", shown.err)


def test_an_unknown_total_is_left_out(capsys):
    work(Output(), total=None)
    assert re.fullmatch(r"Embedding             57  [\d,]+ img/s\n", capsys.readouterr().err)


def test_quiet_is_quiet(capsys):
    work(Output("quiet"))
    assert capsys.readouterr() == ("", "")


def test_nothing_done_or_work_that_failed_leaves_no_line(capsys):
    with progress(0, "Embedding", Output()):
        pass
    with pytest.raises(KeyError), progress(3, "Embedding", Output()) as meter:
        meter.advance()
        raise KeyError
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("total", [57, None])
def test_a_terminal_sees_a_bar_and_the_same_line(monkeypatch, total):
    stdout, stderr = io.StringIO(), Terminal()
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("COLUMNS", "100")
    output = Output(color=False)
    with progress(total, "Embedding\x1b[2J", output) as meter:
        meter.advance(57)
        output.stream({"name": "data"})
    assert stdout.getvalue() == "data\n"
    shown = stderr.getvalue()
    assert "━" in shown
    assert "\x1b[2J" not in shown
    assert re.search(r"57(/57)?  [\d,]+ img/s\n$", shown)


@pytest.mark.parametrize(
    ("format_", "stdout", "stderr", "shown"),
    [
        ("human", Terminal, Terminal, True),
        ("human", io.StringIO, Terminal, True),
        ("human", Terminal, io.StringIO, False),
        ("jsonl", io.StringIO, Terminal, True),
        ("jsonl", Terminal, Terminal, False),
        ("quiet", io.StringIO, Terminal, False),
    ],
)
def test_the_bar_never_mixes_with_data(monkeypatch, format_, stdout, stderr, shown):
    monkeypatch.setattr("sys.stdout", stdout())
    monkeypatch.setattr("sys.stderr", stderr())
    assert Output(format_).shows_progress is shown
