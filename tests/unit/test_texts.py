"""Texts from other programs, through every door that reads one: by their byte order mark, or one sentence."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from retrieval_detect.cli.recipes import read_recipe
from retrieval_detect.cli.settings import load_settings
from retrieval_detect.errors import ConfigError, UsageError
from retrieval_detect.evaluate.datasets import load
from retrieval_detect.images.sources import read_list
from retrieval_detect.texts import csv_text, read_csv

MARKED = ("utf-8-sig", "utf-16", "utf-32")
"""As Python writes them, with a byte order mark."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def big_endian(text):
    return b"\xfe\xff" + text.encode("utf-16-be")


@pytest.mark.parametrize("encoding", MARKED)
def test_settings_recipes_and_tables_by_their_mark(encoding):
    Path("rd.toml").write_bytes('index = "häuser"'.encode(encoding))
    assert load_settings().index == "häuser"
    recipe = 'name = "größe"\n[[references]]\nlabel = "real"\npaths = ["a"]\n'
    Path("recipe.toml").write_bytes(recipe.encode(encoding))
    assert read_recipe(Path("recipe.toml")).name == "größe"
    Path("set.csv").write_bytes("path,label,source\r\nä.png,real,x\r\nb.png,fake,\r\n".encode(encoding))
    assert {sample.item.uri for sample in load(Path("set.csv")).samples} == {"ä.png", "b.png"}


@pytest.mark.parametrize("null_separated", [False, True])
def test_lists_by_their_mark(null_separated):
    end = "\0" if null_separated else "\r\n"
    text = f"/ä/1.jpg{end}/ä/2.jpg{end}"
    for data in (text.encode(), *(text.encode(encoding) for encoding in MARKED), big_endian(text)):
        assert read_list(io.BytesIO(data), null_separated=null_separated) == ["/ä/1.jpg", "/ä/2.jpg"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_of_two_bytes_a_letter_never_becomes_single_letters(encoding):
    """Split at each NUL, ``/photos`` would begin with ``/``: the whole disk. Nor is that ever advised."""
    data = "/photos/1.jpg\r\n/photos/zwölf.jpg\r\n".encode(encoding)
    for null_separated in (True, False):
        try:
            paths = read_list(io.BytesIO(data), null_separated=null_separated)
        except UsageError as error:
            assert "UTF-16 without a byte order mark" in error.message and "-0" not in error.hint
        else:
            assert encoding == "utf-16" and all(path.startswith("/photos/1.jpg") for path in paths[:1])


def test_short_names_that_end_in_nul_are_names():
    for names in (["a/b", "c/d"], ["1.jpg"] * 9, ["ab"] * 9, ["x.png", "./y.png"]):
        data = "".join(f"{name}\0" for name in names).encode()
        assert read_list(io.BytesIO(data), null_separated=True) == names


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"path,label\na.png,real\n\xe4.png,fake\n", "set.csv, line 3: this is no UTF-8 text"),
        ("path,label\na.png,real\n".encode("utf-16")[:-1], "set.csv, line 2: this is no UTF-16 text"),
        ("path,label\na.png,real\n".encode("utf-16-le"), "set.csv is UTF-16 without a byte order mark"),
        (b"path,label\na\0b.png,real\n", "set.csv holds NUL bytes"),
        (b'path,label,source\na.png,real,"cam\nb.png,fake,\n', "set.csv, line 3: unexpected end of data"),
        (b"path,label,x\na.png,real," + b"x" * 200_000 + b"\n", r"set.csv, line 2: field larger than"),
    ],
)
def test_tables_that_are_none(data, said):
    Path("set.csv").write_bytes(data)
    with pytest.raises(UsageError, match=said) as caught:
        load(Path("set.csv"))
    assert caught.value.hint and str(caught.value).count("\n") == 0
    with pytest.raises(UsageError, match=said):
        read_csv(Path("set.csv"))


def test_settings_that_are_no_text():
    Path("rd.toml").write_bytes('index = "häuser"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"rd\.toml, line 1: this is no UTF-8 text"):
        load_settings()


def test_a_table_of_any_names_gives_no_name_that_ends_the_run(here):
    """Parquet may hold a NUL where a path is expected: that one image cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from retrieval_detect.errors import ImageError

    pq.write_table(pa.table({"path": ["a\0.png", "b.png"], "label": ["real", "fake"]}), "set.parquet")
    sample = load(Path("set.parquet")).samples[0]
    with pytest.raises(ImageError, match="no file can have this name"):
        sample.item.read()


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
@example(["=1", "'=1", "''=1", "'", "''", "'a", "-", "\t", "=a\r\nb"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_tables_are_read_back_as_they_were_and_compute_nothing(names):
    written = csv_text([["name", "score"], *([name, -0.5] for name in names)])
    cells = list(csv.reader(io.StringIO(written, newline="")))[1:]
    assert all(name[0] not in "=+-@\t\r\n＝＋－＠" for name, _ in cells)
    assert {score for _, score in cells} == {"-0.5"}
    with TemporaryDirectory() as folder:
        (path := Path(folder) / "t.csv").write_bytes(written.encode())
        assert [row["name"] for row in read_csv(path).rows] == names


def test_headers_are_read_back_too():
    Path("t.csv").write_text(csv_text([["=a", "b"], ["-1", "c"]]))
    assert read_csv(Path("t.csv")) == (("=a", "b"), [{"=a": "-1", "b": "c"}])
