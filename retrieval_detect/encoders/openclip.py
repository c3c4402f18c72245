"""open_clip's image towers: any ``model:tag``, a local file or folder, or a repository of the hub."""

from __future__ import annotations

import difflib
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_detect.encoders import _weights, clip_b16
from retrieval_detect.encoders.registry import CLIP_ENCODER
from retrieval_detect.errors import EncoderError, WeightsUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from retrieval_detect.encoders._torch import TorchEncoder
    from retrieval_detect.types import Preprocessing

FOLDER = "local-dir:"
HUB = "hf-hub:"
CONFIG_FILE = "open_clip_config.json"
QUICK = "-quickgelu"

_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
"""The text tower is thrown away, so it is built as small as can be."""
_NO_IMAGE = {"image_size": 1, "patch_size": 1, "width": 8, "head_width": 8, "layers": 1}
"""Likewise the image tower where the text tower is what is wanted."""
_APPLE = "image_encoder."
_OPENAI_EXTRAS = ("context_length", "input_resolution", "vocab_size")

_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class _Source:
    """What to build and what to fill it with. ``model`` is a name that open_clip can build."""

    model: str
    weights: Path
    architecture: str
    quick_gelu: bool = False
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    sha256: str = ""
    """Of the weights' origin, where ``weights`` was converted from another file."""


def load(name: str, *, weights: Path | None, device: str, precision: str, offline: bool) -> TorchEncoder:
    """Build the image tower called ``name``, e.g. ``"ViT-L-14:openai"``.

    ``name`` : ``model:tag``; ``model`` alone with ``weights``; ``hf-hub:organisation/repository``;
    ``local-dir:folder``; or ``CLIP_ENCODER``, whose files ``clip_b16`` reads. ``weights`` : a file, or a
    folder with open_clip_config.json, used instead of the download. A file does not say whether its
    network was trained with quick GELU: the tag decides, without one the model's name
    (``ViT-L-14-quickgelu``), in a folder the configuration. Likewise the preprocessing is the tag's, what
    all tags of the model share, or the folder's.

    Layers: ``proj`` equals ``encode_image`` unnormalised; ``pre`` is what the projection takes, where
    there is one; ``blockNN`` the class token after block NN, or the mean over patches or pixels
    where the tower pools by averaging or attention.
    """
    with _quiet():
        source = _locate(name, weights, offline)
        tower = _build(source)
    return _encoder(name, source, tower, engine=(device, precision))


def find_weights(name: str) -> Path:
    """The weights file of ``name`` if it is on this machine, else ``WeightsUnavailable``; asks no network."""
    with _quiet():
        return _locate(name, None, offline=True).weights


def load_text_model(name: str, *, weights: Path | None, offline: bool) -> tuple[nn.Module, Any, Path]:
    """The network called ``name`` with its own text tower and a throw-away image tower; see ``load``.

    Returns it with its tokenizer and its weights file.
    """
    with _quiet():
        source = _locate(name, weights, offline)
        _require_embeddable(name, source)
        return _build_text(source), _tokenizer(name, source), source.weights


# ---------------------------------------------------------------- what and where


def model_of(name: str) -> str:
    """The model of open_clip that ``name`` stands for, whatever its weights."""
    return clip_b16.ARCHITECTURE if name == CLIP_ENCODER else name.partition(":")[0].replace("/", "-")


def _locate(name: str, weights: Path | None, offline: bool) -> _Source:
    model, _, tag = name.partition(":")
    if name == CLIP_ENCODER:
        file = clip_b16.weights_file(weights)
        found = _named(name, model_of(name), "", file, offline)
        if file == weights:
            return found
        return replace(found, note=clip_b16.NOTE, sha256=clip_b16.ONNX_SHA256)
    if weights is not None and _weights.existing(weights).is_dir():
        return _named_folder(model, weights)
    if name.startswith(FOLDER):
        return _folder(Path(name.removeprefix(FOLDER)), weights)
    if name.startswith(HUB):
        config = _weights.fetch(name, tag, (CONFIG_FILE,), offline=offline)
        return _folder(config.parent, weights or _weights.fetch(name, tag, _HUB_FILES, offline=offline))
    return _named(name, model_of(name), tag, weights, offline)


def _named(name: str, model: str, tag: str, weights: Path | None, offline: bool) -> _Source:
    from retrieval_detect.encoders._libraries import open_clip

    if model not in open_clip.list_models():
        raise _unknown(name, open_clip.list_pretrained(as_str=True) if tag else open_clip.list_models())
    config = open_clip.get_pretrained_cfg(model, tag)
    if tag and not config:
        raise _unknown(name, [f"{model}:{known}" for known in open_clip.list_pretrained_tags_by_model(model)])
    if weights is None:
        weights = _tagged_file(name, config, offline)
    architecture = model.removesuffix(QUICK)
    ambiguous = not tag and model == architecture and model + QUICK in open_clip.list_models()
    return _Source(
        model=model,
        weights=weights,
        architecture=architecture,
        quick_gelu=bool(config.get("quick_gelu")),
        preprocess=config or _agreed_preprocessing(model),
        note=f"built with plain GELU; weights of OpenAI, DFN and MetaCLIP need {model}{QUICK}"
        if ambiguous
        else "",
    )


def _agreed_preprocessing(model: str) -> dict[str, Any]:
    """What all tags of a model agree on, for a file without a tag: SigLIP, for one, squashes its images."""
    from retrieval_detect.encoders._libraries import open_clip

    tags = [
        open_clip.get_pretrained_cfg(model, tag) for tag in open_clip.list_pretrained_tags_by_model(model)
    ]
    values = {key: [tag.get(key) for tag in tags] for key in ("mean", "std", "interpolation", "resize_mode")}
    return {key: found[0] for key, found in values.items() if found and found.count(found[0]) == len(found)}


def _tagged_file(name: str, config: Mapping[str, Any], offline: bool) -> Path:
    if not config:
        raise WeightsUnavailable(f"{name} names no weights", hint=f"Write MODEL:TAG. {_weights.WAYS_OUT}")
    place = str(config.get("hf_hub", ""))
    repository, _, filename = place.rpartition("/")
    if not repository:
        raise WeightsUnavailable(f"the weights of {name} are not on the model hub", hint=_weights.WAYS_OUT)
    safe = f"{filename.rpartition('.')[0]}.safetensors"
    return _weights.fetch(name, repository, (safe, filename) if filename else _HUB_FILES, offline=offline)


def _named_folder(model: str, folder: Path) -> _Source:
    from retrieval_detect.encoders._libraries import open_clip

    source = _folder(folder)
    if model in open_clip.list_models() and model.removesuffix(QUICK) != source.architecture:
        raise EncoderError(
            f"folder '{folder}' holds {source.architecture}, not {model}",
            hint=f"Name it by what it holds, or use the name {FOLDER}{folder}.",
        )
    return source


def _folder(folder: Path, weights: Path | None = None) -> _Source:
    from retrieval_detect.encoders._libraries import open_clip

    if not (folder / CONFIG_FILE).is_file():
        raise WeightsUnavailable(f"folder '{folder}' has no {CONFIG_FILE}", hint=_weights.WAYS_OUT)
    with _weights.loading(folder / CONFIG_FILE, "open_clip"):
        config = open_clip.get_model_config(f"{FOLDER}{folder}")
        architecture = _architecture(config)
    return _Source(f"{FOLDER}{folder}", weights or _weights_in(folder), architecture)


def _weights_in(folder: Path) -> Path:
    named = [folder / name for name in _HUB_FILES]
    others = sorted(folder.iterdir(), key=lambda path: (path.suffix != ".safetensors", path.name))
    found = [path for path in (*named, *others) if path.suffix in _weights.SUFFIXES and path.is_file()]
    if not found:
        raise WeightsUnavailable(f"folder '{folder}' holds no weights file", hint=_weights.WAYS_OUT)
    return found[0]


def _architecture(config: Mapping[str, Any]) -> str:
    """The name of open_clip's own model with the same image tower, so that folder and tag are one encoder."""
    from retrieval_detect.encoders._libraries import open_clip

    tower = (config["embed_dim"], config["vision_cfg"])
    for name in open_clip.list_models():
        known = open_clip.get_model_config(name)
        if (known["embed_dim"], known["vision_cfg"]) == tower:
            return str(name).removesuffix(QUICK)
    return f"custom {tower}"


def _unknown(name: str, known: list[str]) -> EncoderError:
    from retrieval_detect.encoders.registry import known_encoders

    close = difflib.get_close_matches(name, [*known_encoders(), *known], n=3)
    return EncoderError(
        f"no encoder is called {name}",
        hint=f"Did you mean {', '.join(close)}?" if close else "Write MODEL:TAG of open_clip, or timm:MODEL.",
    )


# ---------------------------------------------------------------- building


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what open_clip logs. It uses the root logger, which would also install a handler for good."""

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return "open_clip" not in Path(record.pathname).parts

    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(from_elsewhere)
    try:
        yield
    finally:
        root.removeFilter(from_elsewhere)
        root.removeHandler(handler)


def _build(source: _Source) -> tuple[nn.Module, int]:
    """The image tower, filled, and its dimension. Strict: a file of another architecture does not load."""
    from retrieval_detect.encoders._libraries import open_clip

    with _weights.loading(source.weights, source.architecture):
        model = open_clip.create_model(
            source.model,
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=source.quick_gelu,
            force_preprocess_cfg=dict(source.preprocess),
            text_cfg=_NO_TEXT,
        )
        # Not open_clip's own loader: when a safe reading fails in a certain way it tries an unsafe one.
        state = open_clip.convert.convert_state_dict(model, _weights.read_state_dict(source.weights))
        prefix = "visual."
        model.visual.load_state_dict(
            {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
        )
    visual: nn.Module = model.visual
    return visual, int(open_clip.get_model_config(source.model)["embed_dim"])


def _require_embeddable(name: str, source: _Source) -> None:
    from retrieval_detect.encoders._libraries import open_clip

    if open_clip.get_model_config(source.model)["text_cfg"].get("hf_model_name"):
        raise EncoderError(
            f"the text tower of {name} is not one of open_clip's own: it takes words only, not vectors",
            hint="Heads that learn prompts need another encoder, e.g. ViT-L-14:openai. Others do not.",
        )


def _build_text(source: _Source) -> nn.Module:
    """The network with its text tower filled, as strictly as ``_build``."""
    from retrieval_detect.encoders._libraries import open_clip

    with _weights.loading(source.weights, source.architecture):
        state = _weights.read_state_dict(source.weights)
    if all(key.startswith("visual.") for key in state):
        raise EncoderError(
            f"weights file '{source.weights}' holds the image tower alone",
            hint="Heads that learn prompts need the text tower too. Others do not.",
        )
    with _weights.loading(source.weights, source.architecture):
        # Apple's own files are renamed with the help of the true image tower.
        apple = any(key.startswith(_APPLE) for key in state)
        model: nn.Module = open_clip.create_model(
            source.model,
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=source.quick_gelu,
            **({} if apple else {"vision_cfg": _NO_IMAGE}),
        )
        state = open_clip.convert.convert_state_dict(model, state)
        if not hasattr(model, "positional_embedding"):
            state = open_clip.model.convert_to_custom_text_state_dict(state)
        own = model.state_dict()
        text = {
            key: state[key] for key in state if not key.startswith("visual.") and key not in _OPENAI_EXTRAS
        }
        for key in ("logit_scale", "logit_bias"):  # a scalar here, a vector of one there
            if key in text and key in own:
                text[key] = text[key].reshape(own[key].shape)
        model.load_state_dict({key: own[key] for key in own if key.startswith("visual.")} | text)
    return model


def _tokenizer(name: str, source: _Source) -> Any:
    from retrieval_detect.encoders._libraries import open_clip

    try:
        return open_clip.get_tokenizer(source.model)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise EncoderError(
            f"the tokenizer of {name} cannot be loaded: {next(iter(str(error).splitlines()), error)}",
            hint="Its files come from the model hub and are read by the package transformers.",
        ) from error


def _encoder(
    name: str, source: _Source, tower: tuple[nn.Module, int], *, engine: tuple[str, str]
) -> TorchEncoder:
    from retrieval_detect.encoders import _torch
    from retrieval_detect.encoders._towers import open_clip_tower
    from retrieval_detect.types import EncoderSpec

    (visual, embed_dim), (device, precision) = tower, engine
    preprocessing = _preprocessing(name, visual)
    network, taps = open_clip_tower(visual, embed_dim)
    precision = _torch.resolve_precision(precision, device, network)
    spec = EncoderSpec(
        name=name,
        architecture=f"open_clip/{source.architecture}",
        weights_sha256=source.sha256 or _weights.digest(source.weights),
        quick_gelu=_torch.has_quick_gelu(visual),
        preprocessing=preprocessing,
        layers={layer: tap.width for layer, tap in taps.items()},
        precision=precision,
        device=device,
        decoder=_torch.decoder_for(precision),
        is_clip=True,
        note=source.note,
    )
    return _torch.TorchEncoder(spec, network, taps)


def _preprocessing(name: str, visual: Any) -> Preprocessing:
    from retrieval_detect.types import Preprocessing

    config = visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else max(config["size"])
    mode = {"shortest": "clip", "squash": "squash"}.get(config["resize_mode"])
    if mode is None or config["size"] not in (size, (size, size), [size, size]):
        raise EncoderError(
            f"{name} takes {config['size']} pixels by rule {config['resize_mode']}, which rd does not do",
            hint="Choose a model with a square input.",
        )
    return Preprocessing(
        mode="squash" if mode == "squash" else "clip",
        size=size,
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
