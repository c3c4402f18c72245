"""CLIP models with a text tower, small enough for a test, saved as local folders; open_clip's own answers."""

from __future__ import annotations

import json

import numpy as np

from retrieval_detect.encoders.text import load_text_tower
from retrieval_detect.vectors import Rows
from tests.towers import VIT, open_clip, random_weights, torch

D = 32
TEXT = {"context_length": 40, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}
MULTIMODAL = {**TEXT, "attn_pooler_heads": 2, "width": D}
POOLED = {**VIT, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
FAMILIES = {
    "clip": {"text_cfg": TEXT},
    "clip-quick": {"text_cfg": TEXT, "quick_gelu": True},
    "clipa": {"text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last"}},
    "eos": {"text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 49407}},
    "custom": {"custom_text": True, "text_cfg": TEXT},
    "mobile": {"custom_text": True, "text_cfg": {**TEXT, "no_causal_mask": True}},
    "siglip": {
        "custom_text": True,
        "init_logit_bias": -10,
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
    "coca": {
        "custom_text": True,
        "vision_cfg": POOLED,
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": MULTIMODAL,
    },
}


def saved(family, folder, **changes):
    """A folder with configuration and random weights; its name for rd and open_clip alike."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"embed_dim": D, "vision_cfg": VIT, **FAMILIES[family], **changes}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    name = f"local-dir:{folder}"
    if not (folder / "open_clip_model.safetensors").exists():
        random_weights(name, folder / "open_clip_model.safetensors", load_weights=False)
    return name


def theirs(name):
    """The whole model, as open_clip loads it."""
    return open_clip.create_model(name).eval()


def tower(folder, family="clip"):
    return load_text_tower(saved(family, folder))


class Spliced(torch.nn.Module):
    """In the place of a token embedding: gives what it was told, whatever the tokens."""

    def __init__(self):
        super().__init__()
        self.given = None

    def forward(self, tokens):
        return self.given


def references(n=60, *, seed=0, names=("sd_1.5", "flux"), reals=("coco", "press"), d=D, gap=1.0):
    """Half photographs, half fakes of the generators in turn; labels differ along one direction."""
    rng = np.random.default_rng(seed)
    fake = np.arange(n) % 2 == 1
    raw = rng.normal(size=(n, d)).astype(np.float32)
    raw[:, 0] += np.where(fake, gap, -gap) * 2
    for code, _ in enumerate(names):
        raw[fake & (np.arange(n) // 2 % len(names) == code), 1 + code] += 3 * gap
    norms = np.linalg.norm(raw, axis=1)
    labels = np.array(
        [(names if fake[i] else reals)[i // 2 % (len(names) if fake[i] else 2)] for i in range(n)]
    )
    ids = np.arange(n, dtype=np.int64)
    units = {"proj": raw / norms[:, None]}
    return Rows.of(vectors=units, norms={"proj": norms}, fake=fake, names=labels, row_ids=ids)
