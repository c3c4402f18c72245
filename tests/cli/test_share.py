"""``rd index export`` and ``rd index import``."""

from __future__ import annotations

import json

from tests.building import one_error


def test_an_index_goes_out_and_comes_back_under_another_name(index, run_rd):
    out = run_rd("index", "export", "banks.tar")
    assert out.exit_code == 0 and "without paths and contributors and pictures" in out.stdout
    back = run_rd("index", "import", "banks.tar", "--name", "theirs")
    assert back.exit_code == 0 and "12 real and 11 fake references" in back.stdout, back.stderr
    ours, theirs = (
        json.loads(run_rd("query", "ask/0200.png", "--index", name, "--json").stdout)[0]
        for name in ("default", "theirs")
    )
    assert theirs["score"] == ours["score"] and theirs["verdict"] == ours["verdict"]
    assert {evidence["uri"] for evidence in theirs["evidence"]} == {""}
    assert run_rd("index", "verify", "--index", "theirs").exit_code == 0


def test_a_dry_run_writes_nothing(index, run_rd, pictures):
    result = run_rd("index", "export", "banks.tar", "--with-uris", "--dry-run", "--json")
    assert json.loads(result.stdout)["kept"] == ["uri"] and not (pictures / "banks.tar").exists()


def test_what_exists_is_refused(index, run_rd):
    run_rd("index", "export", "banks.tar")
    assert "exists already" in one_error(run_rd("index", "export", "banks.tar"), 2)
    assert "exists already" in one_error(run_rd("index", "import", "banks.tar", "--name", "default"), 2)
    assert "cannot name an index" in one_error(run_rd("index", "import", "banks.tar", "--name", "recipes"), 2)
    assert "no export" in one_error(run_rd("index", "import", "ask/0200.png", "--name", "x"), 1)
