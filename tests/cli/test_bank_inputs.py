"""``rd bank`` given what it knows already, what names nothing, and what stands where it cannot be meant."""

from __future__ import annotations

import json

from tests.building import one_error


def test_an_index_that_stands_by_no_option(index, run_rd):
    complaint = one_error(run_rd("bank", "list", str(index)), 2)
    assert f"rd bank list --index {index}" in complaint


def test_known_images_under_another_name_are_told(index, run_rd, contents):
    before = contents(index)
    again = ("bank", "add", "generated/sdxl", "--label", "fake", "--generator")
    assert "another name" not in run_rd(*again, "sdxl").stderr
    result = run_rd(*again, "newgen")
    assert result.exit_code == 0
    assert (
        "6 images given under another name than stored (6 as sdxl): the stored name stays." in result.stderr
    )
    photographs = run_rd("bank", "add", "photos", "--label", "real", "--source", "phone", "--json")
    assert json.loads(photographs.stdout)["named_otherwise"] == {"camera": 8}
    assert contents(index) == before


def test_a_list_of_nothing_does_not_leave_the_other_conditions_to_choose(index, pictures, run_rd, contents):
    (pictures / "none").write_text("\n \n")
    before = contents(index)
    complaint = one_error(
        run_rd("bank", "remove", "--among", "generator=flux", "--from-file", "none", "--yes"), 2
    )
    assert "the list none names no image" in complaint and contents(index) == before
