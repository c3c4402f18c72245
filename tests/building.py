"""What tests of ``rd build-index`` say again and again."""

from __future__ import annotations

BOTH = ("--real", "photos", "--fake", "generated")
TINY = ("--encoder", "tiny")


def build(run_rd, *args):
    return run_rd("build-index", *BOTH, *TINY, *args)


def one_error(result, exit_code: int) -> str:
    """The complaint: one sentence after ``Error:``, a hint or none, and no traceback."""
    assert result.exit_code == exit_code, result.stderr
    assert result.stderr.count("Error: ") == 1
    assert "Traceback" not in result.stderr and "unexpected" not in result.stderr
    return result.stderr[result.stderr.index("Error: ") :]
