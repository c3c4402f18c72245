"""Models of open_clip small enough for a test, their weights, and their vectors by open_clip and by rd.

Without torch, a test file that imports from here is skipped.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders._libraries import ensure_torchvision
from retrieval_detect.encoders.canaries import canary_images

torch = pytest.importorskip("torch")
ensure_torchvision()
import open_clip  # noqa: E402
import timm  # noqa: E402, F401  # test files take it from here: it, too, needs torchvision to work

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
