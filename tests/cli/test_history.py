"""``rd bank list --by generation``: which generations are kept, and what each of them changed."""

from __future__ import annotations

import json

NEW = ("bank", "add", "new", "--label", "fake", "--generator", "newgen")


def done(run_rd, *args):
    result = run_rd(*args)
    assert result.exit_code == 0, result.stderr


def test_history(index, run_rd):
    done(run_rd, *NEW)
    done(run_rd, "bank", "remove", "--among", "generator=flux", "--yes", "--reason", "licence")
    done(run_rd, "bank", "rollback", "1")
    rows = json.loads(run_rd("bank", "list", "--by", "generation", "--json").stdout)
    assert [(r["generation"], r["operation"], r["added"], r["removed"], r["references"]) for r in rows] == [
        (0, "create", 0, 0, 0),
        (1, "build-index", 23, 0, 23),
        (2, "bank add", 4, 0, 27),
        (3, "bank remove", 0, 5, 22),
        (4, "rollback", 0, 0, 23),
    ]
    assert rows[3]["detail"] == {"command": "bank remove", "generator": "flux", "reason": "licence"}
    came = {"real": {"camera": 8, "phone": 4}, "fake": {"flux": 5, "sdxl": 6}}
    nothing = {"real": {}, "fake": {}}
    nothing |= {"fitted": [], "fitted_anew": [], "dropped": [], "mistakes": 0, "projection": None}
    assert [row["changes"] for row in rows] == [
        nothing,
        nothing | came,
        nothing | {"fake": {"newgen": 4}},
        nothing | {"fake": {"flux": -5}},
        nothing | {"fake": {"flux": 5, "newgen": -4}},
    ]
    shown = [
        line.split("  ")[-1] for line in run_rd("bank", "list", "--by", "generation").stdout.splitlines()
    ]
    assert shown[2:] == [
        "+8 camera, +6 sdxl, +5 flux, +4 phone",
        "+4 newgen",
        "-5 flux",
        "+5 flux, -4 newgen",
    ]


def test_history_says_what_was_fitted(index, run_rd):
    done(run_rd, "fit", "projection", "white", "--kind", "whiten")
    done(run_rd, "fit", "projection", "white", "--kind", "lda")
    rows = json.loads(run_rd("bank", "list", "--by", "generation", "--json").stdout)
    assert rows[2]["changes"]["fitted"] == ["projection white"] and not rows[2]["changes"]["fitted_anew"]
    assert rows[2]["changes"]["projection"] == "white" and rows[3]["changes"]["projection"] is None
    assert rows[3]["changes"]["fitted_anew"] == ["projection white"]
    last = run_rd("bank", "list", "--by", "generation").stdout.splitlines()[-1]
    assert last.endswith("  fitted anew: projection white")
    assert (
        run_rd("bank", "list", "--by", "generation")
        .stdout.splitlines()[-2]
        .endswith("  fitted: projection white; searched through white")
    )


def test_history_keeps_to_what_it_knows(index, run_rd):
    for number in range(12):
        done(run_rd, "bank", "rollback", str(number + 1))
    rows = json.loads(run_rd("bank", "list", "--by", "generation", "--json").stdout)
    assert rows[0]["generation"] > 0 and rows[0]["changes"] is None
    assert rows[1]["changes"] is not None
