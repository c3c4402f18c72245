"""Text towers by rd: what open_clip gives, with words and with vectors in their place."""

from __future__ import annotations

import json

import pytest

from retrieval_detect.encoders.openclip import CONFIG_FILE
from retrieval_detect.encoders.text import load_text_tower
from retrieval_detect.errors import EncoderError, WeightsUnavailable
from tests.text_towers import FAMILIES, TEXT, Spliced, saved, theirs
from tests.towers import VIT, open_clip, random_weights, torch

TEXTS = ["real", "fake", "a photo of a cat on a mat.", "sd 1.5 " * 5]


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("CRITICAL")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def close(a, b):
    assert (b - b.mean(0)).abs().max() > 1e-3, "the texts differ, so the comparison means something"
    return (a - b).abs().max() <= 1e-6 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_open_clip(family, folders):
    name = saved(family, folders / family)
    model, tower = theirs(name), load_text_tower(name)
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    assert tower.tokens(TEXTS).equal(tokens)
    with torch.no_grad():
        kwargs = {"normalize": False}
        assert close(tower.encode(TEXTS), model.encode_text(tokens, **kwargs))
        # Each alone is cut at its own end, all together at the last one.
        assert close(tower.encode(TEXTS[:3]), model.encode_text(tokens[:3], **kwargs))
    assert (tower.d, tower.width, tower.context_length) == (32, TEXT["width"], TEXT["context_length"])
    assert tower.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert tower.truncates == (family in {"clip", "clip-quick", "eos", "custom"})


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_spliced_vectors_are_those_of_the_whole_forward(family, folders):
    name = saved(family, folders / family)
    model, tower = theirs(name), load_text_tower(name)
    tokens = tower.tokens(TEXTS)
    embedded = tower.embed(tokens).requires_grad_()
    weights = torch.randn(len(TEXTS), tower.d, generator=torch.Generator().manual_seed(1))
    (ours,) = torch.autograd.grad((tower.features(embedded, tower.ends(tokens)) * weights).sum(), embedded)

    spliced = Spliced()
    getattr(model, "text", model).token_embedding = spliced
    spliced.given = embedded
    (whole,) = torch.autograd.grad((model.encode_text(tokens, normalize=False) * weights).sum(), embedded)
    assert whole.abs().max() > 1e-3
    assert (ours - whole).abs().max() <= 1e-5 * whole.abs().max()


@pytest.mark.parametrize("family", ["clip", "eos"])
def test_what_follows_the_end_of_a_text_is_not_computed(family, folders, monkeypatch):
    tower = load_text_tower(saved(family, folders / family))
    lengths = []
    forward = tower._part.transformer.forward
    monkeypatch.setattr(
        tower._part.transformer, "forward", lambda x, **kw: (lengths.append(x.shape[1]), forward(x, **kw))[1]
    )
    tokens = tower.tokens(["real", "fake"])
    assert tower.ends(tokens).tolist() == [2, 2]
    tower.encode(["real", "fake"])
    assert lengths == [3]


def test_a_tower_is_frozen_and_knows_its_weights(folders):
    from retrieval_detect.encoders.registry import load_encoder

    name = saved("clip", folders / "clip")
    tower = load_text_tower(f"{name}@crop")
    assert not any(parameter.requires_grad for parameter in tower._part.parameters())
    assert tower.weights_sha256 == load_encoder(name, device="cpu").spec.weights_sha256


def test_weights_by_file_in_the_old_format_and_with_openais_extras(folders, tmp_path):
    """Before custom text towers, their weights lay beside the image tower's; OpenAI's carry three numbers."""
    name = saved("custom", folders / "custom")
    state = theirs(name).state_dict()
    old = {key.removeprefix("text."): value for key, value in state.items()}
    old |= {"logit_scale": state["logit_scale"].reshape(1), "context_length": torch.tensor(40)}
    torch.save(old, path := tmp_path / "old.pt")
    assert load_text_tower(name, weights=path).encode(TEXTS).equal(load_text_tower(name).encode(TEXTS))


@pytest.mark.parametrize("name", ["timm:resnet10t", "efficientnet-lite0", "tiny", "efficientnet-lite0@crop"])
def test_encoders_without_a_text_tower_say_so(name):
    with pytest.raises(EncoderError, match="has no text tower") as caught:
        load_text_tower(name)
    assert "ViT-L-14:openai" in caught.value.hint


def test_towers_of_another_library_say_so(tmp_path):
    (path := tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(EncoderError, match="takes words only"):
        load_text_tower("roberta-ViT-B-32", weights=path)


def test_weights_of_another_text_tower_do_not_load(folders, tmp_path):
    other = random_weights(
        saved("clip", tmp_path / "other", text_cfg={**TEXT, "layers": 3}),
        tmp_path / "other.pt",
        load_weights=False,
    )
    with pytest.raises(EncoderError, match="another architecture"):
        load_text_tower(saved("clip", folders / "clip"), weights=other)


def test_missing_weights_and_a_wrong_tokenizer(tmp_path):
    with pytest.raises(WeightsUnavailable):
        load_text_tower("ViT-B-32:openai", offline=True)
    name = saved("clip", tmp_path / "small", text_cfg={**TEXT, "vocab_size": 64})
    with pytest.raises(EncoderError, match="knows more words"):
        load_text_tower(name)


def test_a_tokenizer_that_cannot_be_loaded_is_one_error(tmp_path):
    name = saved("clip", tmp_path / "clip")
    config = {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": {**TEXT, "hf_tokenizer_name": "nobody/nothing"}}
    (tmp_path / "clip" / CONFIG_FILE).write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(EncoderError, match="tokenizer of local-dir"):
        load_text_tower(name)
