"""The one door to FAISS: which distribution is installed, on which device, and its errors in words.

faiss-cpu, faiss-gpu and faiss-gpu-cuvs write to the same folder. pip installs them over one another
without a word, after which symbols are missing or wrong, so the metadata is asked before the import.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from retrieval_detect.errors import FaissUnavailable, SearchError, UsageError

EXTRAS = {"faiss-cpu": "cpu", "faiss-gpu": "gpu", "faiss-gpu-cuvs": "gpu-cuvs"}
"""The official distributions, and the extra of rd that brings each."""

STRANGERS = ("faiss", "faiss-gpu-cu11", "faiss-gpu-cu12")
"""Other distributions that write to the folder ``faiss``."""

OLDEST = (1, 15)
_LARGEST_VECTOR_BYTES = 1 << 38
"""No shard is that large; a file that claims more is damaged, and must not make FAISS allocate it."""


@dataclass(frozen=True, slots=True)
class FaissStatus:
    """What ``rd doctor`` prints. ``problem`` and ``hint`` are empty where FAISS can be used.

    ``installed`` maps each distribution found to its version; ``gpu_symbols`` says whether the build
    has GPU code, ``n_gpus`` how many devices that code can see.
    """

    installed: Mapping[str, str]
    problem: str = ""
    hint: str = ""
    gpu_symbols: bool = False
    n_gpus: int = 0
    compile_options: str = ""


def installed_distributions() -> dict[str, str]:
    """Name → version of every distribution present that writes to the folder ``faiss``."""
    found = {}
    for name in (*EXTRAS, *STRANGERS):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def check_distributions(found: Mapping[str, str]) -> str:
    """The name of the one usable distribution; ``FaissUnavailable`` with the pip line otherwise."""
    if not found:
        raise FaissUnavailable("FAISS is not installed", hint="pip install 'retrieval-detect[cpu]'")
    names = " and ".join(found)
    best = next((name for name in reversed(EXTRAS) if name in found), None)
    if best is None:
        extra = "gpu" if "gpu" in names else "cpu"
        raise FaissUnavailable(
            f"{names} is not a FAISS that rd supports",
            hint=f"pip uninstall -y {' '.join(found)} && pip install 'retrieval-detect[{extra}]'",
        )
    wanted = f"'{best}>={OLDEST[0]}.{OLDEST[1]},<2'"
    if len(found) > 1:
        raise FaissUnavailable(
            f"{names} are installed over one another",
            hint=f"pip uninstall -y {' '.join(found)} && pip install --force-reinstall {wanted}",
        )
    if tuple(int(part) for part in re.findall(r"\d+", found[best])[:2]) < OLDEST:
        raise FaissUnavailable(f"{best} {found[best]} is too old", hint=f"pip install --upgrade {wanted}")
    return best


@cache
def faiss() -> Any:
    """The FAISS module, checked and set up on first use."""
    name = check_distributions(installed_distributions())
    if name != "faiss-cpu":
        # Processes died where a CUDA build of FAISS was loaded before a torch of another CUDA version.
        with suppress(ImportError):
            importlib.import_module("torch")
    try:
        module = importlib.import_module("faiss")
    except (ImportError, RuntimeError, OSError) as error:
        raise FaissUnavailable(
            f"{name} is installed but cannot be loaded: {error}",
            hint=f"pip install --force-reinstall 'retrieval-detect[{EXTRAS[name]}]'",
        ) from error
    module.set_deserialization_vector_byte_limit(_LARGEST_VECTOR_BYTES)
    return module


@contextmanager
def faiss_errors(action: str) -> Iterator[None]:
    """Turn what FAISS raises inside the block into ``SearchError``.

    ``action`` completes "FAISS could not …". Its Python side raises bare ``AssertionError``, its C++
    side ``RuntimeError`` with source lines; neither means anything to a reader.
    """
    try:
        yield
    except (AssertionError, RuntimeError, MemoryError) as error:
        if isinstance(error, SearchError):
            raise
        lines = str(error).strip().splitlines()
        raise SearchError(
            f"FAISS could not {action}: {lines[-1] if lines else type(error).__name__}"
        ) from error


def _n_gpus(module: Any) -> int:
    return int(module.get_num_gpus()) if hasattr(module, "StandardGpuResources") else 0


def distribution_status() -> FaissStatus:
    """Everything about FAISS that decides what rd can do here; never raises."""
    found = installed_distributions()
    try:
        module = faiss()
    except FaissUnavailable as error:
        return FaissStatus(found, problem=error.message, hint=error.hint)
    return FaissStatus(
        found,
        gpu_symbols=hasattr(module, "StandardGpuResources"),
        n_gpus=_n_gpus(module),
        compile_options=str(module.get_compile_options()).strip(),
    )


def gpu_ordinal(device: str) -> int | None:
    """Which GPU ``device`` (``auto``, ``cpu``, ``cuda`` or ``cuda:n``) means; ``None`` is the CPU."""
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise UsageError(f"'{device}' is no device", hint="use auto, cpu, cuda or cuda:n")
    if device == "cpu":
        return None
    module = faiss()
    count, ordinal = _n_gpus(module), int(match[1] or 0)
    if ordinal < count:
        return ordinal
    if device == "auto":
        return None
    if not hasattr(module, "StandardGpuResources"):
        raise FaissUnavailable(
            f"{device} was asked for, but this FAISS is built for the CPU only",
            hint="pip uninstall -y faiss-cpu && pip install 'retrieval-detect[gpu]', or use --device cpu",
        )
    seen = "no GPU" if count == 0 else f"{count} GPU" + "s" * (count > 1)
    raise FaissUnavailable(f"{device} was asked for, but FAISS sees {seen}", hint="use --device auto or cpu")
