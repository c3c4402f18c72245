"""What a shell may do to rd's standard streams: close them, fill them, stop reading them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_detect.store.manifest import read_current

ROOT = Path(__file__).parents[2]
ADD = "bank add new --label fake --generator newgen"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")


def shell(line: str, redirection: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of an ``rd`` run by a shell with ``redirection`` behind it."""
    rd = shlex.join([sys.executable, "-m", "retrieval_detect"])
    done = subprocess.run(
        ["bash", "-c", f"{rd} {line} {redirection}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("redirection", "told"), [(">&-", ""), ("2>&-", "4 added"), (">&- 2>&-", ""), ("<&- >&- 2>&-", "")]
)
def test_closed_streams_fail_nothing(index, redirection, told, run_rd):
    code, out, err = shell(ADD, redirection)
    assert code == 0, err
    assert "Traceback" not in err and "Error" not in err
    assert told in out if told else out == ""
    assert read_current(index).counts("fake")["newgen"] == 4
    # Nothing that was said went into a file that took a closed stream's number.
    assert run_rd("index", "verify").exit_code == 0


@pytest.mark.parametrize("line", ["--help", "bank list", "bank list --format csv", "bank list --json"])
def test_closed_stdout_is_no_error(index, line):
    assert shell(line, ">&-") == (0, "", "")


@pytest.mark.parametrize("redirection", ["2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_the_exit_code_does_not_hang_on_whether_somebody_hears(index, redirection):
    assert shell("bank nope", redirection) == (2, "", "")
    assert shell("query nope.jpg", redirection) == (2, "", "")


def test_an_addition_whose_reader_has_gone_stands(index):
    code, _, err = shell(ADD, "| true; exit ${PIPESTATUS[0]}")
    assert (code, "Traceback" in err, "Error" in err) == (141, False, False)
    assert read_current(index).counts("fake")["newgen"] == 4


def test_an_addition_goes_on_where_its_log_is_read_no_more(index):
    code, out, err = shell(ADD, "2> >(true)")
    assert code == 0, err
    assert "newgen" in "".join(read_current(index).counts("fake")) and "4 added" in out


@pytest.mark.parametrize("line", ["--help", "bank list", "bank list --json", "bank list --format csv"])
def test_a_reader_that_has_gone(index, line):
    assert shell(line, "2>&1 | true; exit ${PIPESTATUS[0]}") == (141, "", "")


@pytest.mark.parametrize("shape", ["human", "json", "jsonl", "csv"])
def test_a_reader_that_has_seen_enough(index, shape):
    """The first answer alone, of more than a pipe holds."""
    line = f"query {' '.join(['photos', 'generated', 'ask'] * 4)} --evidence 10 --format {shape}"
    code, out, err = shell(line, "| head -n1; exit ${PIPESTATUS[0]}")
    assert (code in (0, 141), out.count("\n"), "Error" in err, "Traceback" in err) == (True, 1, False, False)


@FULL
def test_an_output_that_cannot_be_written(index):
    for line in ("bank list", "--help"):
        code, out, err = shell(line, ">/dev/full")
        assert (code, out) == (1, "")
        assert err == (
            "Error: the disk is full.\n  Free some space and run the same command again to go on.\n"
        )


def test_a_closed_stdin_is_an_empty_one(index):
    code, _, err = shell("query -", "<&-")
    assert code == 1 and "empty" in err
    code, _, err = shell("bank remove --among generator=sdxl", "<&-")
    assert code == 2 and "--yes" in err
