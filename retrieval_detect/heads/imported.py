"""Heads from elsewhere: weights that others published, and heads that rd trained beside another encoder.

Nothing that their files may hold is run.
"""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import EncoderMismatch, RdError, UsageError
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.heads.registry import read_head
from retrieval_detect.options import check_options

if TYPE_CHECKING:
    from retrieval_detect.heads.base import Head
    from retrieval_detect.types import EncoderSpec, Float32

D = 768
FC_LIMIT_BYTES, HEAD_LIMIT_BYTES = 1 << 20, 1 << 26
"""The published file has 4 KiB, and a head of some hundred captions a megabyte: what is far above is else."""

_FC_HINT = "It takes fc_weights.pth of UniversalFakeDetect: weight (1, 768) and bias (1,)."
_HEAD_HINT = "It takes what rd finetune writes: NAME.head.safetensors, with NAME.head.json beside it."


# ---------------------------------------------------------------- published by others


def import_fc_weights(path: str | os.PathLike[str], *, layer: str = "proj") -> LinearHead:
    """The linear classifier of UniversalFakeDetect (Ojha, Li and Lee 2023) from its ``fc_weights.pth``.

    It was trained on ViT-L-14:openai, embeddings NOT of unit norm, of images cut and not resized
    (``@crop``). Anything but its two tensors is a ``UsageError``; code in the file is never run.
    """
    state = _read(Path(path))
    if not isinstance(state, dict) or set(state) != {"weight", "bias"}:
        raise _refusal(path, "it does not hold a weight and a bias, and these alone")
    weight, bias = (_array(path, state[name], shape) for name, shape in (("weight", (1, D)), ("bias", (1,))))
    head = LinearHead(layer=layer, optimizer="adamw")
    head.restore({"weight": weight[0], "bias": bias})
    head.restore_facts({"imported": Path(path).name})
    return head


def _array(path: str | os.PathLike[str], tensor: Any, shape: tuple[int, ...]) -> Float32:
    import torch

    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        raise _refusal(path, "it does not hold tensors of floating point")
    if tuple(tensor.shape) != shape:
        raise _refusal(path, f"a tensor is {tuple(tensor.shape)}, not {shape}")
    array: Float32 = tensor.detach().to(torch.float32).numpy()
    if not np.isfinite(array).all():
        raise _refusal(path, "a value is not finite")
    return array


def _read(path: Path) -> Any:
    """Whatever goes wrong while a file of unknown origin is read is one ``UsageError``."""
    import torch

    try:
        size_bytes = path.stat().st_size
        if size_bytes <= FC_LIMIT_BYTES and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size_bytes = sum(member.file_size for member in archive.infolist())
        if size_bytes > FC_LIMIT_BYTES:
            raise _refusal(path, f"{size_bytes:,} bytes are too many for it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of odd files, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except RdError:
        raise
    except FileNotFoundError as error:
        raise UsageError(f"weights file '{path}' does not exist") from error
    except pickle.UnpicklingError as error:
        raise _refusal(path, "it is no weights file, or holds code, which rd does not run") from error
    except (
        *(AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError),
        *(RuntimeError, TypeError, ValueError, zipfile.BadZipFile),
    ) as error:
        raise _refusal(path, "it is damaged, or no weights file") from error


def _refusal(path: str | os.PathLike[str], why: str, *, hint: str = _FC_HINT) -> UsageError:
    return UsageError(f"'{path}' cannot be imported: {why}", hint=hint)


# ---------------------------------------------------------------- trained by rd


def read_trained(path: Path, encoder: EncoderSpec) -> Head:
    """The head of a ``.safetensors`` file and of the ``.json`` beside it, for vectors of ``encoder``.

    Nothing in the files is run. Raises ``UsageError`` for files that hold no head, ``EncoderMismatch`` for a
    head of another encoder, and ``VectorError`` where its arrays are not of this encoder's dimensions.
    """
    files = {}
    for suffix in ("safetensors", "json"):
        file = path.with_suffix(f".{suffix}")
        try:
            if file.stat().st_size > HEAD_LIMIT_BYTES:
                raise _refusal(file, f"it has more than {HEAD_LIMIT_BYTES:,} bytes", hint=_HEAD_HINT)
            files[suffix] = file.read_bytes()
        except OSError as error:
            why = f"it cannot be read: {error.strerror or error}"
            raise _refusal(file, why, hint=_HEAD_HINT) from error
    try:
        with np.errstate(over="raise"):
            head, fingerprint = _head(files)
    except RdError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _refusal(path, "they hold no head that rd has trained", hint=_HEAD_HINT) from error
    if fingerprint != encoder.fingerprint:
        raise EncoderMismatch(
            f"the head in '{path}' was trained for another encoder than {encoder.name} as this index has it",
            hint="Build an index with the encoder it was trained with: rd build-index --encoder NAME "
            "--set encoder-weights=FILE",
        )
    _try(path, head, encoder)
    return head


def _head(files: dict[str, bytes]) -> tuple[Head, Any]:
    """The head, and the fingerprint of its encoder: indexes and fine-tuned encoders call it differently."""
    about = json.loads(files["json"])["about"]
    head = read_head(files)
    check_options(head)
    if head.members:
        raise UsageError(
            "a head that is made of other methods cannot be imported", hint="Train it: rd train ensemble"
        )
    return head, about.get("encoder") or about.get("fingerprint")


def _try(path: Path, head: Head, encoder: EncoderSpec) -> None:
    """Score one vector: so what does not fit together is known before it is stored."""
    if missing := [layer for layer in head.layers if layer not in encoder.layers]:
        raise UsageError(f"this head reads layer {missing[0]!r}, which {encoder.name} does not have")
    sides = {layer: encoder.layers[layer] for layer in head.layers}
    vectors = {layer: np.full((1, d), d**-0.5, np.float32) for layer, d in sides.items()}
    try:
        score = head.decision_function(vectors)
    except RdError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _refusal(path, "its arrays do not fit together", hint=_HEAD_HINT) from error
    if score.shape != (1,) or not np.isfinite(score).all():
        raise _refusal(path, "its scores are no numbers", hint=_HEAD_HINT)
