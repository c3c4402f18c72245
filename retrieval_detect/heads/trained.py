"""Heads that rd trained elsewhere: beside an encoder that it fine-tuned, or in another index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import EncoderMismatch, RdError, UsageError
from retrieval_detect.heads.registry import read_head
from retrieval_detect.options import check_options

if TYPE_CHECKING:
    from retrieval_detect.heads.base import Head
    from retrieval_detect.types import EncoderSpec

LIMIT_BYTES = 1 << 26
"""A head of some hundred captions has a megabyte."""
_HINT = "It takes what rd finetune writes: NAME.head.safetensors, with NAME.head.json beside it."


def read_trained(path: Path, encoder: EncoderSpec) -> Head:
    """The head of a ``.safetensors`` file and of the ``.json`` beside it, for vectors of ``encoder``.

    Nothing in the files is run. Raises ``UsageError`` for files that hold no head, ``EncoderMismatch`` for a
    head of another encoder, and ``VectorError`` where its arrays are not of this encoder's dimensions.
    """
    files = {suffix: _read(path.with_suffix(f".{suffix}")) for suffix in ("safetensors", "json")}
    try:
        with np.errstate(over="raise"):
            head, fingerprint = _head(files)
    except RdError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _refusal(path, "they hold no head that rd has trained") from error
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
        raise _refusal(path, "its arrays do not fit together") from error
    if score.shape != (1,) or not np.isfinite(score).all():
        raise _refusal(path, "its scores are no numbers")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise _refusal(path, f"it has more than {LIMIT_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise _refusal(path, f"it cannot be read: {error.strerror or error}") from error


def _refusal(path: Path, why: str) -> UsageError:
    return UsageError(f"'{path}' cannot be imported: {why}", hint=_HINT)
