from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from retrieval_detect.cli.recipes import check_date, find_recipe, parse_layers, read_recipe
from retrieval_detect.errors import ConfigError
from retrieval_detect.types import Facts

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "index" / "recipes").glob("*.toml"))

WHOLE = """
name = "mine"
encoder = "tiny"
layers = ["proj", "block01"]
[[references]]
label = "real"
source = "phone"
category = "cats"
paths = ["photos", "/elsewhere/*.jpg"]
[[references]]
label = "fake"
generator = "sdxl"
family = "latent diffusion"
released_at = "2023-07-26"
paths = ["sdxl.tar"]
"""


def read(tmp_path, text, **options):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return read_recipe(path, **options)


def test_names_are_those_of_every_other_door(tmp_path):
    told = WHOLE.replace("latent diffusion", " latent  diffusion").replace('"sdxl"', '"sdxl\u0065\u0301 "')
    fake = read(tmp_path, told).references[1]
    assert (fake.facts.generator, fake.family) == ("sdxlé", "latent diffusion")
    for field in ("sdxl", "latent diffusion", "cats"):
        with pytest.raises(ConfigError, match=r"references [12]: .* holds the invisible character U\+001B"):
            read(tmp_path, WHOLE.replace(f'"{field}"', f'"{field}\\u001b[31m"'))


def test_everything_it_can_say(tmp_path):
    recipe = read(tmp_path, WHOLE, root=Path("data"))
    assert (recipe.name, recipe.encoder, recipe.layers) == ("mine", "tiny", ("proj", "block01"))
    real, fake = recipe.references
    assert real.paths == ("data/photos", "/elsewhere/*.jpg")
    assert real.facts == Facts("real", source="phone", category="cats")
    assert fake.facts == Facts("fake", generator="sdxl")
    assert (fake.family, fake.released_at) == ("latent diffusion", "2023-07-26")


def test_the_least_it_must_say(tmp_path):
    recipe = read(tmp_path, "[[references]]\nlabel = 'real'\npaths = ['p']")
    assert (recipe.name, recipe.encoder, recipe.layers) == ("", "", ())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_recipes_that_come_with_rd(path):
    recipe = read_recipe(path)
    assert {s.facts.label for s in recipe.references} == {"real", "fake"} and recipe.name == path.stem


def test_there_are_recipes_to_come_with_rd():
    assert {path.stem for path in SHIPPED} >= {"default", "offline"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nam = 'x'\n" + WHOLE, "unknown key 'nam'"),
        (WHOLE.replace("source", "sorce"), "references 1: unknown key 'sorce'"),
        (WHOLE.replace("family", "famly"), "references 2: unknown key 'famly'"),
        (WHOLE.replace('"fake"', "1"), "references 2: label must be real or fake, not 1"),
        (WHOLE.replace('["sdxl.tar"]', "[]"), "references 2: paths must be a list of texts"),
        (WHOLE.replace('["sdxl.tar"]', '[""]'), "references 2: paths must be a list of texts"),
        (WHOLE.replace('"phone"', "7"), "references 1: source must be text, not 7"),
        (WHOLE.replace('"block01"', '"block1"'), "'block1' is not the name of a layer"),
        (WHOLE.replace('["proj", "block01"]', '"proj"'), "layers must be a list of texts"),
        (
            WHOLE.replace('"2023-07-26"', '"2023-07-32"'),
            "references 2, released_at: '2023-07-32' is not a date",
        ),
        (WHOLE.replace('"2023-07-26"', "2023-07-26"), "released_at must be text"),
        (WHOLE.replace('label = "fake"', 'label = "real"'), "references 2: a photograph has no generator"),
        ("[[references]]\npaths = ['l.csv']\ncolumns = 'x'", "columns must be a table"),
        ("[[references]]\npaths = ['l.csv']\ncolumns = {lable = 'x'}", "1, columns: unknown key 'lable'"),
        ("[[references]]\npaths = ['l.csv']\ncolumns = {label = 1}", "references 1: label must be text"),
        ("[[references]]\nlabel = 'real'\ncolumns = {}", "label is said by the list itself"),
        ("references = [1]", "references 1: this must be a table"),
        ("references = []", "it names no references"),
        ("= 1", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert said in caught.value.message and "recipe.toml" in caught.value.message


def test_a_likely_key_is_suggested(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, WHOLE.replace("licence", "license").replace("category", "categry"))
    assert caught.value.hint == "Did you mean 'category'?"


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "recipe.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigError, match=r"recipe\.toml, line 1: this is no UTF-8 text"):
        read_recipe(tmp_path / "recipe.toml")


def test_finding_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracked = tmp_path / "index" / "recipes"
    tracked.mkdir(parents=True)
    (tracked / "mine.toml").write_text(WHOLE)
    (tmp_path / "other.toml").write_text(WHOLE)
    assert find_recipe("mine") == Path("index/recipes/mine.toml")
    assert find_recipe("other.toml") == Path("other.toml")
    with pytest.raises(ConfigError, match="no recipe 'yours'") as caught:
        find_recipe("yours")
    assert "mine" in caught.value.hint
    with pytest.raises(ConfigError, match="index is a folder, not a recipe"):
        find_recipe("index")


def test_layers():
    assert parse_layers(" proj, block12,proj,heads01 ,pre,") == ("proj", "block12", "heads01", "pre")
    for wrong in ("", ",", "last", "block1", "block123", "proj;pre", "../x"):
        with pytest.raises(ConfigError, match=r"^--layers: "):
            parse_layers(wrong)


def test_dates():
    assert check_date("") == "" and check_date("2024-02-29") == "2024-02-29"
    for wrong in ("2023-02-29", "20240229", "2024-2-9", "2024-02-29T00:00", "soon", "2024-W01-1"):
        with pytest.raises(ConfigError, match="is not a date"):
            check_date(wrong)


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from retrieval_detect.cli import recipes
assert recipes.__file__.startswith(sys.argv[1]), recipes.__file__
for path in map(recipes.find_recipe, sys.argv[2:]):
    assert str(path).startswith(sys.argv[1]) and recipes.read_recipe(path).references, path
"""


def test_an_installed_wheel_finds_them(tmp_path):
    """What pip puts in place is the wheel unpacked; the folder it runs in has no recipes of its own."""
    wheels = pytest.importorskip(
        "hatchling.builders.wheel", reason="hatchling, of the extra dev, builds wheels"
    )
    (built,) = wheels.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(built) as wheel:
        wheel.extractall(tmp_path / "site")
    (tmp_path / "work").mkdir()
    names = [path.stem for path in SHIPPED]
    assert names
    program = [sys.executable, "-c", PROGRAM, str(tmp_path / "site"), *names]
    subprocess.run(program, cwd=tmp_path / "work", check=True)
