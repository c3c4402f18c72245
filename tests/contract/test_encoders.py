"""Every encoder keeps the same promises; open_clip's give exactly what open_clip gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders.canaries import canary_images
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder
from retrieval_detect.errors import EncoderError
from retrieval_detect.testing import TinyEncoder, check_encoder
from retrieval_detect.types import EncoderSpec, Preprocessing
from tests.towers import (
    HAVE_PRE,
    IMAGES,
    TOWERS,
    assert_parity,
    open_clip,
    open_clip_vectors,
    our_vectors,
    random_weights,
    torch,
    unit,
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
    kinds = ("block01", "block02", "block03", "heads01", "heads02", "heads03")
    assert list(ours) == ["proj", "pre", *kinds]

    model, _, transform = open_clip.create_model_and_transforms("rd-vit", pretrained=str(path))
    visual = model.eval().visual
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(image)) for image in canary_images()])
        tokens = visual._embeds(pixels)
        for number, block in enumerate(visual.transformer.resblocks, 1):
            assert_heads_add_up(ours[f"heads{number:02d}"], block, tokens)
            tokens = block(tokens)
            np.testing.assert_allclose(ours[f"block{number:02d}"], tokens[:, 0].numpy(), atol=2e-5)
        pre = visual.ln_post(tokens)[:, 0]
        np.testing.assert_allclose(ours["pre"], pre.numpy(), atol=2e-5)
        np.testing.assert_allclose(ours["proj"], (pre @ visual.proj).numpy(), atol=2e-5)


def assert_heads_add_up(heads, block, tokens):
    """Their contributions and the bias are what the attention module itself gives the class token."""
    attention = block.attn
    attended = attention(*[block.ln_1(tokens)] * 3, need_weights=False)[0][:, 0]
    parts = zip(
        torch.tensor(heads).chunk(attention.num_heads, dim=1),
        attention.out_proj.weight.chunk(attention.num_heads, dim=1),
        strict=True,
    )
    summed = sum(part @ weight.T for part, weight in parts) + attention.out_proj.bias
    np.testing.assert_allclose(summed.numpy(), attended.numpy(), atol=1e-5)
    assert attended.std(dim=0).max() > 1e-2, "the images differ, so the comparison means something"


@pytest.mark.parametrize("tower", ["vit-average", "vit-attentional", "resnet", "timm-map", "timm-classifier"])
def test_towers_not_read_at_a_class_token_have_no_heads(tower, tmp_path):
    path = random_weights(f"rd-{tower}", tmp_path / "weights.pt")
    layers = load_encoder(f"rd-{tower}", weights=path, device="cpu").spec.layers
    assert not [layer for layer in layers if layer.startswith("heads")]


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
    from retrieval_detect.encoders._torch import tapped
    from retrieval_detect.encoders._towers import open_clip_tower
    from retrieval_detect.encoders.openclip import _NO_TEXT

    for name in open_clip.list_models():
        with torch.device("meta"):
            model = open_clip.create_model(name, pretrained_text=False, text_cfg=_NO_TEXT, device="meta")
        size = model.visual.preprocess_cfg["size"]
        pixels = torch.zeros(2, 3, *(size if isinstance(size, tuple) else (size, size)), device="meta")
        network, taps = open_clip_tower(model.visual, open_clip.get_model_config(name)["embed_dim"])
        with torch.inference_mode(), tapped(taps) as taken:
            network.eval()(pixels)
        assert {layer: tuple(rows.shape) for layer, rows in taken.vectors.items()} == {
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
