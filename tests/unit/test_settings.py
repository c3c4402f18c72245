from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_detect.cli import settings
from retrieval_detect.cli.settings import (
    FORMATS,
    SETTING_NAMES,
    Settings,
    index_home,
    index_path,
    load_settings,
    variable,
)
from retrieval_detect.errors import ConfigError, UsageError
from retrieval_detect.store.indexes import index_names


@pytest.fixture(autouse=True)
def bare_folder(tmp_path, monkeypatch):
    """No settings from outside: an empty folder and no RD_* variable."""
    for name in SETTING_NAMES:
        monkeypatch.delenv(variable(name), raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def make_index(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "CURRENT").write_text("1\n")
    return folder


def test_nothing_set_gives_the_defaults():
    settings = load_settings()
    assert settings == Settings()
    assert all(settings.origin(name) == "default" for name in SETTING_NAMES)


def test_flag_beats_variable_beats_file_beats_default(bare_folder, monkeypatch):
    (bare_folder / "rd.toml").write_text('device = "cuda"\nk = 3\nmethod = "mean"\n')
    monkeypatch.setenv("RD_K", "5")
    monkeypatch.setenv("RD_METHOD", "nearest")

    settings = load_settings({"method": "majority", "k": None})

    assert (settings.method, settings.k, settings.device) == ("majority", 5, "cuda")
    assert settings.origin("method") == "--method"
    assert settings.origin("k") == "RD_K"
    assert settings.origin("device") == str(bare_folder / "rd.toml")
    assert settings.origin("encoder") == "default"


def test_an_empty_variable_is_not_set(monkeypatch):
    monkeypatch.setenv("RD_INDEX", "")
    assert load_settings().index == "default"


def test_flags_of_other_names_are_ignored():
    assert load_settings({"verbosity": 1, "color": None}) == Settings()


def test_the_nearest_file_counts_alone(bare_folder, monkeypatch):
    (bare_folder / "rd.toml").write_text("k = 3\nworkers = 2\n")
    below = bare_folder / "a" / "b"
    below.mkdir(parents=True)
    (bare_folder / "a" / "rd.toml").write_text("k = 4\n")
    monkeypatch.chdir(below)
    settings = load_settings()
    assert (settings.k, settings.workers) == (4, None)


def test_pyproject_serves_only_with_its_table(bare_folder, monkeypatch):
    (bare_folder / "pyproject.toml").write_text("[tool.retrieval-detect]\nbatch-size = 8\n")
    below = bare_folder / "a"
    below.mkdir()
    (below / "pyproject.toml").write_text('[project]\nname = "retrieval-detect"\n')
    monkeypatch.chdir(below)
    settings = load_settings()
    assert settings.batch_size == 8
    assert settings.origin("batch_size") == str(bare_folder / "pyproject.toml")


def test_rd_toml_beats_the_pyproject_beside_it(bare_folder):
    (bare_folder / "pyproject.toml").write_text("[tool.retrieval-detect]\nk = 8\n")
    (bare_folder / "rd.toml").write_text("k = 9\n")
    assert load_settings().k == 9


def test_a_named_file_replaces_the_one_found(bare_folder):
    (bare_folder / "rd.toml").write_text("k = 3\n")
    named = bare_folder / "other.toml"
    named.write_text("workers = 2\n")
    settings = load_settings(file=named)
    assert (settings.k, settings.workers) == (None, 2)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('format = "jsonl"', "format", "jsonl"),
        ("offline = true", "offline", True),
        ("encoder_weights = '/w/clip.pt'", "encoder_weights", Path("/w/clip.pt")),
        ("encoder-weights = '/w/clip.pt'", "encoder_weights", Path("/w/clip.pt")),
        ('device = "cuda:1"', "device", "cuda:1"),
    ],
)
def test_values_of_a_file_are_read(bare_folder, line, key, value):
    (bare_folder / "rd.toml").write_text(line)
    assert getattr(load_settings(), key) == value


@pytest.mark.parametrize(
    ("variable_", "text", "expected"),
    [
        ("RD_OFFLINE", "1", True),
        ("RD_OFFLINE", "No", False),
        ("RD_WORKERS", "4", 4),
        ("RD_HOME", "h", Path("h")),
    ],
)
def test_values_of_variables_are_read(monkeypatch, variable_, text, expected):
    monkeypatch.setenv(variable_, text)
    assert getattr(load_settings(), variable_.removeprefix("RD_").lower()) == expected


def test_paths_in_a_file_are_relative_to_it(bare_folder, monkeypatch):
    (bare_folder / "rd.toml").write_text('home = "banks"\nindex = "banks/mine"\nencoder-weights = "w.pt"\n')
    below = bare_folder / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    settings = load_settings()
    assert settings.home == bare_folder / "banks"
    assert index_path(settings) == bare_folder / "banks" / "mine"
    assert settings.encoder_weights == bare_folder / "w.pt"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("k = 0", "k must be a whole number above 0, not 0"),
        ("k = true", "k must be a whole number above 0, not True"),
        ("k = 2.5", "k must be a whole number above 0, not 2.5"),
        ('offline = "maybe"', "offline must be true or false, not 'maybe'"),
        ('device = "gpu"', "device must be auto, cpu, cuda or cuda:N, not 'gpu'"),
        ('format = "xml"', f"format must be one of {', '.join(FORMATS)}, not 'xml'"),
        ("index = 3", "index must be text, not 3"),
        ("batch-size = -1", "batch-size must be a whole number above 0, not -1"),
        (
            "batch-size = 99999999999999999999",
            "batch-size must be at most 1,048,576, not 99999999999999999999",
        ),
        ("workers = 1048577", "workers must be at most 1,048,576, not 1048577"),
        ("method = ['mean']", "method must be text, not"),
    ],
)
def test_a_wrong_value_names_file_and_key(bare_folder, line, complaint):
    file = bare_folder / "rd.toml"
    file.write_text(line)
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert error.value.message.startswith(f"{file}: {complaint}")


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("RD_K", "ten")
    with pytest.raises(ConfigError, match=r"^RD_K: k must be a whole number above 0, not 'ten'$"):
        load_settings()


def test_an_unknown_key_suggests_the_near_one(bare_folder):
    (bare_folder / "rd.toml").write_text("devise = 'cpu'\n")
    with pytest.raises(ConfigError, match="unknown key 'devise'") as error:
        load_settings()
    assert str(bare_folder / "rd.toml") in error.value.message
    assert error.value.hint == "Did you mean 'device'?"


def test_an_unknown_key_far_from_all_lists_all(bare_folder):
    (bare_folder / "rd.toml").write_text("zzz = 1\n")
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert error.value.hint.startswith("Known keys: batch-size, device, encoder")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"k = ", "not valid TOML"), (b'home = "\xe9"', "line 1: this is no UTF-8 text")],
)
def test_a_broken_file_is_named(bare_folder, content, complaint):
    (bare_folder / "rd.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as error:
        load_settings()
    assert str(bare_folder / "rd.toml") in error.value.message


def test_a_named_file_that_is_not_there_is_an_error(bare_folder):
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
        load_settings(file=bare_folder / "none.toml")


def test_every_setting_has_a_reader():
    assert set(settings._READERS) == set(SETTING_NAMES)


# ---------------------------------------------------------------- where indexes live


def test_the_home_is_what_is_set_else_index_here_else_the_users(bare_folder, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(bare_folder / "data"))
    assert index_home(Settings()).name == "index"
    assert index_home(Settings()).is_absolute()
    (bare_folder / "index").mkdir()
    assert index_home(Settings()) == Path("index")
    assert index_home(Settings(home=Path("elsewhere"))) == Path("elsewhere")


def test_a_name_is_an_index_below_the_home():
    assert index_path(Settings(home=Path("h"))) == Path("h/default")
    assert index_path(Settings(home=Path("h"), index="clip-l14")) == Path("h/clip-l14")


@pytest.mark.parametrize("given", ["./mine", "mine/", "a/b", "/abs/mine", "."])
def test_a_separator_makes_it_a_path(bare_folder, given):
    path = index_path(load_settings({"index": given, "home": "h"}))
    assert path == (bare_folder / given).absolute()


def test_a_folder_hides_a_name_only_if_it_is_an_index(bare_folder):
    settings = Settings(home=bare_folder / "home")
    (bare_folder / "default").mkdir()
    assert index_path(settings) == bare_folder / "home" / "default"
    make_index(bare_folder / "other")
    assert index_path(Settings(home=bare_folder / "home", index="other")) == Path("other")


@pytest.mark.parametrize("name", ["my index", "-x", ".hidden", "recipes", "a" * 65, "naïve", "a\nb"])
def test_a_name_that_cannot_be_one_is_refused(name):
    with pytest.raises(UsageError, match="cannot name an index") as error:
        index_path(Settings(index=name))
    assert "./NAME" in error.value.hint


def test_names_are_the_folders_that_hold_an_index(tmp_path):
    home = tmp_path / "home"
    assert index_names(home) == []
    make_index(home / "b")
    make_index(home / "a")
    (home / "recipes").mkdir()
    (home / "README.md").write_text("")
    assert index_names(home) == ["a", "b"]
