"""Encoders by name: those of rd, those of plug-ins, and all that open_clip and timm have."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_detect.encoders.base import Encoder
from retrieval_detect.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import os

DEFAULT_ENCODER = "ViT-L-14:openai"
CLIP_ENCODER = "clip-vit-b16"
OFFLINE_ENCODER = "efficientnet-lite0"
TINY_ENCODER = "tiny"
ENTRY_POINT_GROUP = "retrieval_detect.encoders"
"""A plug-in ``acme`` is asked for the names ``acme`` and ``acme:…``: its entry point is a function
``(name, *, weights: Path | None, device: str, precision: str, offline: bool) -> Encoder``."""
CROP, RESIZED_BY, RUN_BY = "@crop", ("@pillow", "@torch"), ("@openvino", "@compile")

Factory = Callable[..., Encoder]

_MODULES = {OFFLINE_ENCODER: "offline", "timm": "timm_models"}
_OPEN_CLIP = "openclip"


def load_encoder(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    offline: bool = False,
) -> Encoder:
    """Build an encoder.

    Parameters
    ----------
    name : ``"model:tag"`` of open_clip (``DEFAULT_ENCODER``; see ``encoders.openclip.load`` for
        its other forms), ``"timm:model"``, ``CLIP_ENCODER``, ``OFFLINE_ENCODER``, ``"tiny"`` or a plug-in's
        name. With ``@crop`` behind it, images are not resized: their centre is cut out. With ``@pillow`` or
        ``@torch`` they are resized by that, whatever the precision: Pillow is the reference. With
        ``@openvino`` (CPU) or ``@compile`` (GPU) last, the network is run by that, see ``encoders.engines``.
    weights : a local file or folder instead of the download.
    device : ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:n"``.
    precision : ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    offline : never ask the model hub, as with ``RD_OFFLINE=1``.

    Raises ``EncoderError``, or its kind ``WeightsUnavailable`` where only the weights are missing.
    """
    base = plain_name(name)
    if base == TINY_ENCODER:
        from retrieval_detect.encoders.tiny import TinyEncoder

        encoder: Encoder = TinyEncoder()
    else:
        path = None if weights is None else Path(weights)
        encoder = _built(base, weights=path, device=device, precision=precision, offline=offline)
    return encoder if base == name else _variant(encoder, name.removeprefix(base))


def plain_name(name: str) -> str:
    """``name`` without what says how its images are brought to size, and who runs it."""
    for mark in (*RUN_BY, *RESIZED_BY):
        name = name.removesuffix(mark)
    return name.removesuffix(CROP)


def known_encoders() -> tuple[str, ...]:
    """Names of rd's own encoders and of plug-ins; open_clip's and timm's models come on top."""
    return (
        DEFAULT_ENCODER,
        CLIP_ENCODER,
        OFFLINE_ENCODER,
        TINY_ENCODER,
        *sorted(entry_points(group=ENTRY_POINT_GROUP).names),
    )


def _built(name: str, *, device: str, **asked: Any) -> Encoder:
    from retrieval_detect.encoders._torch import resolve_device

    encoder = _factory(name)(name, device=resolve_device(device), **asked)
    if not isinstance(encoder, Encoder):
        raise EncoderError(f"plug-in {name} gives no encoder", hint="Check it with testing.check_encoder.")
    return encoder


def _variant(encoder: Encoder, marks: str) -> Encoder:
    from retrieval_detect.encoders._torch import TorchEncoder

    if not isinstance(encoder, TorchEncoder):
        raise UsageError(f"{encoder.spec.name} has no variant {marks}")
    if marks.startswith(CROP):
        encoder = encoder.cropped()
    for mark in marks.removeprefix(CROP).split("@")[1:]:
        if f"@{mark}" in RUN_BY:
            from retrieval_detect.encoders.engines import CompiledEncoder

            return CompiledEncoder(encoder, mark)
        encoder = encoder.resized_by(mark)
    return encoder


def _factory(name: str) -> Factory:
    family = name.partition(":")[0]
    for key in (name, family):
        if key in _MODULES:
            return _own(_MODULES[key])
        for plug_in in entry_points(group=ENTRY_POINT_GROUP, name=key):
            return _loaded(plug_in)
    return _own(_OPEN_CLIP)


def _own(module: str) -> Factory:
    factory: Factory = import_module(f"retrieval_detect.encoders.{module}").load
    return factory


def _loaded(plug_in: Any) -> Factory:
    try:
        factory: Factory = plug_in.load()
    except (ImportError, AttributeError) as error:
        raise EncoderError(
            f"plug-in encoder {plug_in.name} ({plug_in.value}) cannot be loaded: {error}",
            hint="Reinstall the package that brings it, or remove it.",
        ) from error
    return factory
