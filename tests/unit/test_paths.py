"""Paths as lists show them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.report.paths import shortened


@pytest.mark.parametrize(
    ("paths", "short"),
    [
        (["/data/a/1.jpg"], ["1.jpg"]),
        (["/data/a/1.jpg", "/data/b/1.jpg", "/data/b/2.jpg"], ["a/1.jpg", "b/1.jpg", "2.jpg"]),
        (["1.jpg", "a/1.jpg"], ["1.jpg", "a/1.jpg"]),
        (["in.zip::x/1.jpg", "in.zip::y/1.jpg"], ["in.zip::x/1.jpg", "in.zip::y/1.jpg"]),
        (["folder/", "/"], ["folder", "/"]),
        (["1.jpg", "1.jpg"], ["1.jpg", "1.jpg"]),
        ([], []),
    ],
)
def test_as_much_as_tells_a_path_from_the_others(paths, short):
    found = shortened(paths)
    assert [found[path] for path in paths] == short


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), unique=True))
def test_no_two_look_alike(paths):
    found = shortened(paths)
    assert len(set(found.values())) == len(paths)
    assert all(path == end or path.endswith(f"/{end}") for path, end in found.items())
