from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from retrieval_detect import errors
from retrieval_detect.cli.main import COMMANDS, rd
from retrieval_detect.cli.settings import Settings
from retrieval_detect.version import __version__

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def raising(error: BaseException):
    def body(_run):
        raise error

    return body


# ---------------------------------------------------------------- help and version


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_every_command_in_its_section(run_rd, flag):
    result = run_rd(flag)
    assert (result.exit_code, result.stderr) == (0, "")
    for name, entry in COMMANDS.items():
        assert f"\n{entry.section}:\n" in result.stdout
        assert any(line.split() == [name, *entry.help.split()] for line in result.stdout.splitlines())
    assert "--index NAME|PATH" in result.stdout
    assert "\nExamples:\n  rd demo\n" in result.stdout


def test_rd_alone_shows_help_as_a_usage_error(run_rd):
    result = run_rd()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: rd [OPTIONS] COMMAND")


def test_version(run_rd):
    assert run_rd("--version") == (0, f"rd {__version__}\n", "")


def test_help_of_a_command_names_the_options_of_every_command(run_rd):
    result = run_rd("doctor", "-h")
    assert (
        "Everywhere:\n  --index --home --config --format --json -q -v --color --help (see rd --help)\n"
        in result.stdout
    )
    assert "Examples:\n  rd doctor\n" in result.stdout


def test_python_m_is_rd():
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_detect", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )
    assert done.stdout == f"rd {__version__}\n"


# ---------------------------------------------------------------- settings, before and after the command


def settings_seen(run_with, *args: str) -> Settings:
    seen = []
    result = run_with(lambda run: seen.append(run.settings), *args)
    assert result == (0, "", "")
    return seen[0]


def test_options_may_stand_before_and_after_the_command(run_with):
    before = settings_seen(run_with, "--index", "a", "--json", "probe", "--set", "k=3")
    after = settings_seen(run_with, "probe", "--set", "k=3", "--json", "--index", "a")
    assert before == after
    assert (before.index, before.format, before.k) == ("a", "json", 3)


def test_the_last_one_said_wins(run_with):
    assert settings_seen(run_with, "--index", "a", "probe", "--index", "b").index == "b"
    assert settings_seen(run_with, "--json", "probe", "--format", "csv").format == "csv"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-q", "probe"], "quiet"),
        (["probe", "-q", "--json"], "json"),
        (["probe", "--json", "-q"], "json"),
        (["probe"], "human"),
    ],
)
def test_quiet_is_a_format_unless_another_is_named(run_with, args, expected):
    assert settings_seen(run_with, *args).format == expected


def test_a_switch_that_is_not_given_leaves_the_variable_alone(run_with, monkeypatch):
    monkeypatch.setenv("RD_OFFLINE", "1")
    assert settings_seen(run_with, "probe").origin("offline") == "RD_OFFLINE"
    assert settings_seen(run_with, "probe", "--offline").origin("offline") == "--offline"


def test_config_names_the_file(run_with, bare_folder):
    (bare_folder / "other.toml").write_text("k = 7\n")
    assert settings_seen(run_with, "--config", "other.toml", "probe").k == 7


def test_a_command_returns_its_exit_code(run_with):
    assert run_with(lambda _run: 3).exit_code == 3
    assert run_with(lambda _run: None).exit_code == 0


# ---------------------------------------------------------------- errors

TREE = [
    (errors.UsageError, 2),
    (errors.ConfigError, 2),
    (errors.EncoderError, 1),
    (errors.WeightsUnavailable, 1),
    (errors.EncoderMismatch, 1),
    (errors.IndexNotFound, 1),
    (errors.IndexCorrupt, 1),
    (errors.IndexLocked, 1),
    (errors.FormatUnsupported, 1),
    (errors.LabelConflict, 1),
    (errors.EmptyBank, 1),
    (errors.VectorError, 1),
    (errors.FaissUnavailable, 1),
]


@pytest.mark.parametrize(("kind", "exit_code"), TREE)
def test_errors_of_rd_say_what_and_what_next(run_with, kind, exit_code):
    result = run_with(raising(kind("index 'x' is not here", hint="Build it: rd build-index")))
    assert result == (exit_code, "", "Error: index 'x' is not here.\n  Build it: rd build-index\n")


def test_an_image_error_reads_the_same(run_with):
    result = run_with(raising(errors.ImageError("a.jpg ends early.", reason="truncated")))
    assert result == (1, "", "Error: a.jpg ends early.\n")


def test_every_line_of_a_hint_is_indented(run_with):
    result = run_with(raising(errors.UsageError("no", hint="either this\nor that")))
    assert result.stderr == "Error: no.\n  either this\n  or that\n"


@pytest.mark.parametrize(
    ("error", "exit_code", "text"),
    [
        (
            KeyboardInterrupt(),
            130,
            "Interrupted. Nothing is left half-written; run the same command again to go on.\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/index/a"),
            1,
            "Error: the disk is full: /index/a.\n"
            "  Free some space and run the same command again to go on.\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/index/a"),
            1,
            "Error: no permission to use /index/a.\n  Change its permissions, or name another place.\n",
        ),
        (
            OSError("Error while serializing: I/O error: No space left on device (os error 28)"),
            1,
            "Error: the disk is full.\n  Free some space and run the same command again to go on.\n",
        ),
        (
            RuntimeError("write failed: No space left on device"),
            1,
            "Error: the disk is full.\n  Free some space and run the same command again to go on.\n",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "/index/a"),
            1,
            "Error: your quota on the disk is used up: /index/a.\n"
            "  Free some space and run the same command again to go on.\n",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/index/a"),
            1,
            "Error: the disk can only be read: /index/a.\n  Name a place that can be written.\n",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "aaa"),
            1,
            "Error: a name is longer than the system allows: aaa.\n  Give a shorter one.\n",
        ),
        (
            OSError(errno.EMFILE, "Too many open files", "/index/a"),
            1,
            "Error: too many files are open: /index/a.\n  Raise the limit: ulimit -n 4096\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/read/a", None, "/written/b"),
            1,
            "Error: no permission to use /written/b.\n  Change its permissions, or name another place.\n",
        ),
        (EOFError("gone"), 1, "Error: unexpected EOFError: gone.\n  RD_DEBUG=1 shows the traceback.\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a"),
            1,
            "Error: No such file or directory: a.\n",
        ),
        (
            MemoryError(),
            1,
            "Error: there is not enough memory.\n"
            "  Try a smaller --set batch-size=N or fewer --set workers=N.\n",
        ),
        (
            ModuleNotFoundError("No module named 'timm'", name="timm"),
            1,
            "Error: timm cannot be imported.\n  rd doctor says how to mend it.\n",
        ),
        (KeyError("x"), 1, "Error: unexpected KeyError: 'x'.\n  RD_DEBUG=1 shows the traceback.\n"),
        (click.FileError("a.txt", "gone"), 1, "Error: Could not open file 'a.txt': gone.\n"),
    ],
)
def test_other_errors_have_their_sentence(run_with, error, exit_code, text):
    result = run_with(raising(error))
    assert (result.exit_code, result.stdout, result.stderr.lstrip("\n")) == (exit_code, "", text)


def test_debug_shows_the_traceback(run_with, monkeypatch):
    monkeypatch.setenv("RD_DEBUG", "1")
    result = run_with(raising(KeyError("x")))
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert result.stderr.endswith("Error: unexpected KeyError: 'x'.\n  RD_DEBUG=1 shows the traceback.\n")


def test_a_hostile_name_in_an_error_cannot_drive_the_terminal(run_with):
    result = run_with(raising(errors.UsageError("\x1b[2Jevil\u202egpj.exe is no image")))
    assert result.stderr == "Error: \\x1b[2Jevil\\u202egpj.exe is no image.\n"


def test_a_wrong_setting_is_a_usage_error(run_with):
    result = run_with(lambda run: run.output, "probe", "--format", "xml")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --format: format must be one of human, json,")


# ---------------------------------------------------------------- usage


def test_what_is_left_over_is_named(run_rd, run_with, bare_folder):
    probed = run_with(lambda _run: None, "probe", "what", "ever")
    assert probed.exit_code == 2
    assert probed.stderr == (
        "Error: rd probe does not know what 'what' is meant to be.\n  rd probe --help shows how it is used\n"
    )


def test_an_unknown_option_lists_those_of_the_command(run_with):
    result = run_with(lambda _run: None, "probe", "--devise", "cpu")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: rd probe has no option --devise.\n"
        "  Did you mean --device?\n"
        "  Options: --color --config --device --format --help --home --index --json\n"
        "  --offline --quiet --set --verbose\n"
    )


def test_a_missing_argument_points_to_the_help(run_rd):
    result = run_rd("report")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: Missing argument")
    assert result.stderr.endswith("\n  rd report --help shows how it is used\n")


@pytest.mark.parametrize(
    ("args", "suggestion"),
    [
        (["buildindex"], "Did you mean: rd build-index"),
        (["qurey", "a.jpg"], "Did you mean: rd query"),
        (["photo.jpg"], "Did you mean: rd query photo.jpg"),
        (["my photo.jpg", "--json"], "Did you mean: rd query 'my photo.jpg' --json"),
        (["zzz"], f"Commands: {', '.join(COMMANDS)}"),
    ],
)
def test_an_unknown_command_is_answered_with_a_likely_one(run_rd, args, suggestion):
    result = run_rd(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: rd has no command {args[0]!r}.\n  {suggestion}\n"


def test_a_folder_that_exists_is_taken_for_images(run_rd, bare_folder):
    (bare_folder / "inbox").mkdir()
    assert run_rd("inbox").stderr.endswith("Did you mean: rd query inbox\n")


# ---------------------------------------------------------------- signals and pipes


def test_ctrl_c_ends_in_one_sentence(tmp_path):
    script = tmp_path / "long.py"
    script.write_text(
        "import signal, sys, time\n"
        "from retrieval_detect.cli.main import main, rd\n"
        # A shell that starts this in the background, or nohup, has it ignore the signal.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "@rd.command('long')\n"
        "def long():\n"
        "    sys.stdout.write('.'); sys.stdout.flush(); time.sleep(60)\n"
        "sys.exit(main(['long']))\n"
    )
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout.read(1) == b"."
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().decode().strip() == (
            "Interrupted. Nothing is left half-written; run the same command again to go on."
        )
        assert process.wait(timeout=60) == 130


def test_a_closed_pipe_is_no_news(tmp_path):
    script = tmp_path / "many.py"
    script.write_text(
        "import sys\n"
        "from retrieval_detect.cli.main import main, rd\n"
        "@rd.command('many')\n"
        "def many():\n"
        "    for number in range(100_000):\n"
        "        sys.stdout.write(f'{number}\\n')\n"
        "sys.exit(main(['many']))\n"
    )
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_what_is_flushed_last_meets_a_closed_pipe_quietly(tmp_path):
    script = tmp_path / "late.py"
    script.write_text(
        "import sys, time\n"
        "from retrieval_detect.cli.main import main, rd\n"
        "@rd.command('late')\n"
        "def late():\n"
        "    sys.stderr.write('.'); sys.stderr.flush(); sys.stdin.read()\n"
        "    sys.stdout.write('small')\n"
        "sys.exit(main(['late']))\n"
    )
    with subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        assert process.stderr.read(1) == b"."
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_commands_registered_by_hand_do_not_outlive_a_test():
    assert not rd.commands
