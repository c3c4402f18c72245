"""Weights that others published, read without running what their files may hold."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.heads.linear import LinearHead

if TYPE_CHECKING:
    from retrieval_detect.types import Float32

D = 768
LIMIT_BYTES = 1 << 20
"""The published file has 4 KiB; whatever is far above it is something else."""

_HINT = "It takes fc_weights.pth of UniversalFakeDetect: weight (1, 768) and bias (1,)."


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
    import torch

    with _reading(path):
        size_bytes = _unpacked_bytes(path)
    if size_bytes > LIMIT_BYTES:
        raise _refusal(path, f"{size_bytes:,} bytes are too many for it")
    with _reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of odd files, which are refused anyway
        return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file of unknown origin is read into one ``UsageError``."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"weights file '{path}' does not exist") from error
    except pickle.UnpicklingError as error:
        raise _refusal(path, "it is no weights file, or holds code, which rd does not run") from error
    except (
        *(AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError),
        *(RuntimeError, TypeError, ValueError, zipfile.BadZipFile),
    ) as error:
        raise _refusal(path, "it is damaged, or no weights file") from error


def _unpacked_bytes(path: Path) -> int:
    size_bytes = path.stat().st_size
    if size_bytes <= LIMIT_BYTES and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(member.file_size for member in archive.infolist())
    return size_bytes


def _refusal(path: str | os.PathLike[str], why: str) -> UsageError:
    return UsageError(f"'{path}' cannot be imported: {why}", hint=_HINT)
