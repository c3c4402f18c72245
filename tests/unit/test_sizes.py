"""What an index is large enough for; README's table says the same numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.scoring.conformal import MIN_GENERATOR, photographs_needed
from retrieval_detect.store.groups import CALIB_ONE_IN, MIN_GROUPS
from retrieval_detect.store.manifest import Stratum
from retrieval_detect.store.store import Store
from retrieval_detect.teach.again import CENTRED_FROM, FEWEST
from retrieval_detect.teach.measure import MIN_PHOTOGRAPHS
from retrieval_detect.teach.sizes import NEW_RATES, PROJECTION, RATES, sizes

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def having(tmp_path):
    empty = Store.create(tmp_path / "index", TinyEncoder().spec, canaries={}).snapshot().manifest

    def sized(*strata: Stratum):
        return {size.what: size for size in sizes(replace(empty, layers=("proj",), strata=strata))}

    return sized


def test_of_an_empty_index_everything_is_missing(having):
    found = having()
    assert len(found) == len(set(found)) and not any(size.reached for size in found.values())


def test_the_smaller_bank_decides(having):
    found = having(
        Stratum("real", "a", bank=60), Stratum("real", "b", bank=0), Stratum("fake", "g", bank=500)
    )
    projection = found[PROJECTION]
    assert (projection.there, projection.needed, projection.of) == (60, FEWEST, "photographs in the bank")
    assert found["a vote, with the references that say so"].reached and not projection.reached


def test_a_single_source_is_what_is_missing_of_a_large_bank(having):
    one = having(Stratum("real", "a", bank=400), Stratum("fake", "g", bank=500))[PROJECTION]
    assert (one.there, one.needed, one.of) == (1, 2, "sources of photographs")
    two = having(
        Stratum("real", "a", bank=200), Stratum("real", "b", bank=200), Stratum("fake", "g", bank=500)
    )
    assert two[PROJECTION].reached


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_takes_as_many_photographs_as_a_p_value_that_small(having, rate):
    enough, what = photographs_needed(rate), f"a rate of false alarms of {100 * rate:g} %"
    for there in (enough - 1, enough):
        size = having(Stratum("real", "a", bank=400, calib=there))[what]
        assert size.reached == (there == enough) == (1 / (there + 1) <= rate)


@pytest.mark.parametrize("rate", NEW_RATES)
def test_new_sources_are_promised_by_the_number_of_sources(having, rate):
    enough = photographs_needed(rate)
    for there in (enough - 1, enough):
        found = having(*(Stratum("real", f"s{i}", bank=9) for i in range(there)))
        assert found[f"{100 * rate:g} % for photographs of new sources"].reached == (there == enough)


def test_generators_without_enough_set_aside_are_counted(having):
    found = having(Stratum("fake", "g", bank=90, calib=MIN_GENERATOR), Stratum("fake", "h", bank=9))
    own = found["a p-value of each generator's own"]
    assert (own.there, own.needed, own.reached) == (1, 2, False)


def test_the_table_of_the_readme_says_the_same_numbers():
    text = README.read_text(encoding="utf-8")
    table = text[text.index("## How many images") : text.index("## What it does not say")]
    needed = [CALIB_ONE_IN * photographs_needed(rate) for rate in RATES]
    for said in (
        f"| {CENTRED_FROM} |",
        f"| {needed[1]}, in folders of {MIN_GROUPS} or more |",
        f"{needed[0]} for 10 %, {needed[2]} for 1 %",
        f"| {FEWEST * CALIB_ONE_IN // (CALIB_ONE_IN - 1)}, photographs from 2 sources |",
        f"| {MIN_PHOTOGRAPHS * CALIB_ONE_IN}, photographs from 3 sources |",
        f"| {CALIB_ONE_IN * MIN_GENERATOR} of one generator |",
        "| " + ", ".join(f"{photographs_needed(rate)}" for rate in NEW_RATES) + " sources of photographs |",
    ):
        assert said in table, said
