"""timm's image models, CLIP or not: ``timm:NAME``, from the hub or from a local file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_detect.encoders import _weights
from retrieval_detect.errors import EncoderError, WeightsUnavailable
from retrieval_detect.types import EncoderSpec, Preprocessing

if TYPE_CHECKING:
    from retrieval_detect.encoders._torch import TorchEncoder

PREFIX = "timm:"

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def load(name: str, *, weights: Path | None, device: str, precision: str, offline: bool) -> TorchEncoder:
    """Build ``timm:NAME``, e.g. ``"timm:vit_small_patch14_dinov2"``.

    ``weights`` : a file used instead of the download. timm's crop ratio is left out: the network sees
    the whole centre square. Layers: ``proj``, the pooled features before the classifier; ``blockNN``,
    timm's feature places in order (blocks of a transformer, stages of a CNN), pooled.
    """
    from retrieval_detect.encoders._libraries import timm

    model_name = name.removeprefix(PREFIX)
    if not timm.is_model(model_name):
        close = difflib.get_close_matches(model_name, timm.list_models() + timm.list_pretrained(), n=3)
        near = f"Did you mean {', '.join(PREFIX + match for match in close)}?"
        raise EncoderError(
            f"timm knows no model {model_name}", hint=near if close else "See timm.list_models()."
        )
    config = timm.get_pretrained_cfg(model_name)
    path = _weights.existing(weights) if weights else _from_hub(name, config, offline)
    with _weights.loading(path, model_name):
        # timm takes a state dict before any other source, and checks it strictly while the classifier is on.
        overlay = {"state_dict": _weights.read_state_dict(path)}
        model: Any = timm.create_model(model_name, pretrained=True, pretrained_cfg_overlay=overlay)
    if not hasattr(model, "reset_classifier"):
        raise EncoderError(
            f"{name} gives a map of features, not one vector", hint="Choose a model that pools."
        )
    model.reset_classifier(0)
    preprocessing = _preprocessing(name, config)
    is_clip = "clip" in model_name and "_ft_" not in model_name
    note = "" if is_clip else "timm model, not CLIP"
    return encoder(model, name, path, preprocessing, note=note, engine=(device, precision))


def encoder(
    model: Any, name: str, weights: Path, preprocessing: Preprocessing, *, note: str, engine: tuple[str, str]
) -> TorchEncoder:
    """A timm model without classifier as an encoder. ``engine`` : device and asked precision."""
    from retrieval_detect.encoders import _torch
    from retrieval_detect.encoders._towers import timm_taps

    device, precision = engine
    taps = timm_taps(model)
    precision = _torch.resolve_precision(precision, device, model)
    spec = EncoderSpec(
        name=name,
        architecture=f"timm/{model.pretrained_cfg['architecture']}",
        weights_sha256=_weights.digest(weights),
        quick_gelu=_torch.has_quick_gelu(model),
        preprocessing=preprocessing,
        layers={layer: tap.width for layer, tap in taps.items()},
        precision=precision,
        device=device,
        decoder=_torch.decoder_for(precision),
        is_clip=not note,
        note=note,
    )
    return _torch.TorchEncoder(spec, model, taps)


def _from_hub(name: str, config: Any, offline: bool) -> Path:
    if not config.hf_hub_id:
        raise WeightsUnavailable(f"the weights of {name} are not on the model hub", hint=_weights.WAYS_OUT)
    files = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
    return _weights.fetch(name, config.hf_hub_id, files, offline=offline)


def _preprocessing(name: str, config: Any) -> Preprocessing:
    channels, height, width = config.input_size
    if height != width or channels != 3:
        raise EncoderError(
            f"{name} takes {channels} × {height} × {width}", hint="Choose a model with a square RGB input."
        )
    return Preprocessing(
        mode="squash" if config.crop_mode == "squash" else "clip",
        size=height,
        interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
        mean=tuple(config.mean),
        std=tuple(config.std),
    )
