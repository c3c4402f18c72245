"""Names: one spelling each, whoever writes them, and nothing that nobody sees."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.errors import BadName
from retrieval_detect.names import LONGEST, checked, named, shown, spelling
from retrieval_detect.types import Facts


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        ("Caf\u0065\u0301", "Café"),
        ("  flux\t", "flux"),
        ("stable   diffusion\u00a0 3", "stable diffusion 3"),
        ("flux\r\n", "flux"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("日本語 👩\u200d🎨", "日本語 👩\u200d🎨"),
        ("a\udcff", "a\\xff"),
        ("", ""),
        (" ", ""),
    ],
)
def test_one_spelling(given_, meant):
    assert checked(given_, "generator") == meant == spelling(given_)
    assert named(Facts("fake", generator=given_, tags=given_)) == Facts("fake", generator=meant, tags=meant)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("two\nlines", "U+000A"),
        ("\x1b[31mred", "U+001B"),
        ("nul\0", "U+0000"),
        ("a\tb", "U+0009"),
        ("c1\x9bx", "U+009B"),
        ("flux\u200b", "U+200B"),
        ("\u202egnp.exe", "U+202E"),
        ("a\u2028b", "U+2028"),
        ("half \ud800", "U+D800"),
    ],
)
def test_what_nobody_sees_is_no_part_of_a_name(bad, code):
    with pytest.raises(BadName) as raised:
        checked(bad, "source")
    assert code in raised.value.message and raised.value.message.startswith("source ")
    assert raised.value.message.isprintable()
    assert spelling(bad) == checked(spelling(bad), "source")


def test_a_name_has_an_end():
    assert checked("x" * LONGEST, "batch") == "x" * LONGEST
    with pytest.raises(BadName, match="201 characters"):
        checked("x" * 201, "batch")
    assert len(shown("x" * 10_000)) < 70


@given(st.text(max_size=30))
def test_spelling_settles_at_once(text):
    once = spelling(text)
    assert spelling(once) == once == checked(once, "generator")
    assert unicodedata.is_normalized("NFC", once)
