"""``rd doctor``: what is installed, what is missing, how to mend it, and why rd behaves as it does."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import click

from retrieval_detect.cli.output import Output, human, human_bytes
from retrieval_detect.cli.params import Command, Run
from retrieval_detect.cli.settings import SETTING_NAMES, Settings, index_home, variable
from retrieval_detect.encoders.registry import (
    CLIP_ENCODER,
    DEFAULT_ENCODER,
    OFFLINE_ENCODER,
    known_encoders,
)
from retrieval_detect.errors import EncoderError, WeightsUnavailable
from retrieval_detect.store.indexes import index_names
from retrieval_detect.version import __version__

if TYPE_CHECKING:
    from retrieval_detect.teach.sizes import Size

DISTRIBUTIONS = (
    *("click", "filelock", "huggingface-hub", "jinja2", "numpy", "open_clip_torch", "pillow"),
    *("platformdirs", "pyarrow", "rich", "safetensors", "scikit-learn", "scipy"),
    *("simplejpeg", "timm", "torch"),
)
"""What rd depends on besides FAISS; the same names as in pyproject.toml."""
EXTRAS = {"web": "fastapi", "c2pa": "c2pa-python", "openvino": "openvino", "map": "umap-learn"}
"""What some people need besides: extra → a distribution of it. rd serve, provenance, @openvino, UMAP."""

_OTHER_VARIABLES = frozenset({"RD_CACHE", "RD_DEBUG"})
_LITTLE_SPACE_BYTES = 1_000_000_000
_STYLES = {"ok": "good", "warn": "warning", "missing": "bad"}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. Without ``advice`` there is nothing to do; ``fatal`` means rd cannot work."""

    name: str
    state: Literal["ok", "warn", "missing"]
    detail: str
    advice: str = ""
    fatal: bool = False


@click.command(
    "doctor",
    cls=Command,
    examples="""
        rd doctor
        rd doctor --index mine
        rd doctor --completion bash > ~/.local/share/bash-completion/completions/rd
        rd doctor --completion zsh > ~/.zfunc/_rd
        rd doctor --completion fish > ~/.config/fish/completions/rd.fish
    """,
)
@click.option(
    "--completion",
    metavar="SHELL",
    type=click.Choice(["bash", "zsh", "fish"]),
    help="Print the completion script of bash, zsh or fish instead: commands, options and index names.",
)
@click.pass_obj
def command(run: Run, completion: str | None) -> int:
    """Say what is installed, what is missing and how to mend it.

    Of the index in use it says what it is large enough for, and how many references are missing for the
    rest. Downloads nothing. The exit code is 1 if rd cannot work at all.
    """
    if completion:
        from click.shell_completion import get_completion_class

        made = get_completion_class(completion)
        assert made is not None  # noqa: S101 - one of the choices
        root = click.get_current_context().find_root().command
        click.echo(made(root, {}, "rd", "_RD_COMPLETE").source())
        return 0
    checks = list(examine(run.settings))
    usable = not any(check.fatal for check in checks)
    settings = {
        key: {"value": getattr(run.settings, key), "origin": run.settings.origin(key)}
        for key in SETTING_NAMES
    }
    index = _index(run) if usable else []
    if run.settings.format == "human":
        _show(run.output, checks, settings)
        _show_sizes(run, index)
    else:
        found = [asdict(check) for check in checks]
        enough = [asdict(size) | {"reached": size.reached} for size in index]
        run.output.record({"usable": usable, "checks": found, "settings": settings, "index": enough})
    return 0 if usable else 1


def examine(settings: Settings) -> Iterator[Check]:
    """All findings, in the order in which they should be mended."""
    yield Check(
        "rd",
        "ok",
        f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    )
    yield _packages()
    yield _extras()
    yield _faiss()
    yield from _torch()
    yield from map(_own_encoder, (CLIP_ENCODER, OFFLINE_ENCODER))
    yield from _encoder(settings)
    yield _home(settings)
    yield _indexes(settings)
    yield from _unknown_variables()


# ---------------------------------------------------------------- what is installed


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Check:
    missing = [name for name in DISTRIBUTIONS if _version(name) is None]
    if missing:
        return Check(
            "packages", "missing", ", ".join(missing), f"pip install {' '.join(missing)}", fatal=True
        )
    return Check("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in DISTRIBUTIONS))


def _extras() -> Check:
    there = [extra for extra, distribution in EXTRAS.items() if _version(distribution)]
    absent = [f"{extra} (pip install 'retrieval-detect[{extra}]')" for extra in EXTRAS if extra not in there]
    said = ", ".join(there) or "none"
    return Check("extras", "ok", said + (f"; not installed: {', '.join(absent)}" if absent else ""))


def _faiss() -> Check:
    from retrieval_detect.search._faiss import distribution_status

    status = distribution_status()
    if status.problem:
        return Check("FAISS", "missing", status.problem, status.hint, fatal=True)
    installed = ", ".join(f"{name} {version}" for name, version in status.installed.items())
    sees = f"sees {status.n_gpus} GPU" if status.gpu_symbols else "CPU only"
    return Check("FAISS", "ok", f"{installed}, {sees}")


def _torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", "missing", f"cannot be imported: {error}", "pip install torch", fatal=True)
        return
    from retrieval_detect.encoders._torch import cpu_multiplies_bfloat16

    by = "bfloat16 in hardware" if cpu_multiplies_bfloat16() else "no bfloat16 in hardware (float32 is used)"
    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} CPU threads, {by}")
    yield _gpu(torch)
    yield _torchvision()


def _gpu(torch: Any) -> Check:
    from retrieval_detect.search._faiss import distribution_status

    if not torch.cuda.is_available():
        built_for = (
            "this torch is built for the CPU" if torch.version.cuda is None else "no CUDA device is seen"
        )
        return Check("GPU", "ok", f"none: {built_for}")
    names = ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()))
    if distribution_status().n_gpus:
        return Check("GPU", "ok", f"{names}, CUDA {torch.version.cuda}")
    advice = "pip uninstall -y faiss-cpu && pip install 'retrieval-detect[gpu]'"
    return Check("GPU", "warn", f"{names}: torch can use it, FAISS cannot", advice)


def _torchvision() -> Check:
    from retrieval_detect.encoders._libraries import ensure_torchvision

    try:
        mended = ensure_torchvision()
    except (ImportError, EncoderError) as error:
        advice = "Install the torchvision release that belongs to the installed torch."
        return Check("torchvision", "missing", f"cannot be imported: {error}", advice, fatal=True)
    if mended:
        return Check("torchvision", "ok", "a CUDA build beside a CPU torch; rd works around it")
    return Check("torchvision", "ok", "works as installed")


# ---------------------------------------------------------------- encoders


def _own_encoder(name: str) -> Check:
    """Whether the weights of an encoder that needs no model hub are here."""
    try:
        if name == CLIP_ENCODER:
            from retrieval_detect.encoders.clip_b16 import find_weights
        else:
            from retrieval_detect.encoders.offline import packaged_weights as find_weights

        path = find_weights()
    except WeightsUnavailable as error:
        return Check("encoder", "warn", error.message, error.hint)
    except ImportError as error:
        return Check("encoder", "missing", f"{name}: {error}", "Mend what is missing above first.")
    return Check("encoder", "ok", f"{name}, {human_bytes(path.stat().st_size)}")


def _encoder(settings: Settings) -> Iterator[Check]:
    """The encoder that ``rd build-index`` would use, as far as can be told without loading it."""
    name, weights = settings.encoder.partition("@")[0], settings.encoder_weights
    another = name in known_encoders() or name.startswith("timm:")
    if weights is not None:
        if weights.exists():
            yield Check("encoder", "ok", f"{name}, {weights}")
        else:
            yield Check("encoder", "missing", f"{name}: {weights} is not there", "Correct encoder-weights.")
    elif name == DEFAULT_ENCODER or not another:
        yield _open_clip(name)
    elif name not in (CLIP_ENCODER, OFFLINE_ENCODER):
        yield Check("encoder", "ok", f"{name}, weights not looked for")


def _open_clip(name: str) -> Check:
    try:
        from retrieval_detect.encoders.openclip import find_weights

        path = find_weights(name)
    except WeightsUnavailable:
        advice = f"rd build-index fetches them; without a network use --encoder {OFFLINE_ENCODER}"
        return Check("encoder", "warn", f"{name}: weights are not here yet", advice)
    except EncoderError as error:
        return Check("encoder", "warn", error.message, error.hint)
    except ImportError as error:
        return Check("encoder", "missing", f"{name}: {error}", "Mend what is missing above first.")
    return Check("encoder", "ok", f"{name}, {human_bytes(path.stat().st_size)}")


# ---------------------------------------------------------------- places and settings


def _home(settings: Settings) -> Check:
    home = index_home(settings).absolute()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        return Check(
            "home", "warn", f"{home} cannot be written", "Name another folder with --home or RD_HOME."
        )
    free_bytes = shutil.disk_usage(there).free
    detail = f"{home}, {human_bytes(free_bytes)} free"
    if free_bytes < _LITTLE_SPACE_BYTES:
        return Check(
            "home", "warn", detail, "Free some space, or name another folder with --home or RD_HOME."
        )
    return Check("home", "ok", detail)


def _indexes(settings: Settings) -> Check:
    names = index_names(index_home(settings))
    if names:
        return Check("indexes", "ok", ", ".join(names))
    return Check("indexes", "warn", "none yet", "rd demo, or rd build-index --real DIR --fake DIR")


def _index(run: Run) -> list[Size]:
    """What the index in use is large enough for; nothing where none is, unless it was asked for by name."""
    from retrieval_detect.store.indexes import is_index
    from retrieval_detect.teach.sizes import sizes

    if run.settings.origin("index") != "--index" and not is_index(run.folder):
        return []
    return list(sizes(run.store().snapshot().manifest))


def _unknown_variables() -> Iterator[Check]:
    known = _OTHER_VARIABLES | {variable(key) for key in SETTING_NAMES}
    for name in sorted(name for name in os.environ if name.startswith("RD_") and name not in known):
        yield Check(
            "variable", "warn", f"{name} is set, and nothing reads it", f"Known: {', '.join(sorted(known))}"
        )


# ---------------------------------------------------------------- for people


def _show_sizes(run: Run, index: list[Size]) -> None:
    from retrieval_detect.teach.sizes import ASIDE

    if not index:
        return
    run.output.lines(f"\nIndex {run.folder.name}, what it is large enough for ({ASIDE})")
    for size in index:
        state = ("ok     ", "good") if size.reached else ("not yet", "warning")
        run.output.line(state, f"  {size.what} ({size.there:,} {size.of}, {size.needed:,} needed)")


def _show(output: Output, checks: list[Check], settings: dict[str, dict[str, Any]]) -> None:
    for check in checks:
        first, *more = wrap(check.detail, 58, break_on_hyphens=False)
        output.line((f"{check.state:<7}", _STYLES[check.state]), f"  {check.name:<11}  {first}")
        for line in more:
            output.line(f"{'':22}{line}")
        if check.advice:
            output.line(f"{'':22}{check.advice}")
    output.lines("\nSettings")
    for key, setting in settings.items():
        value = "chosen by rd" if setting["value"] is None else human(setting["value"])
        output.line(f"  {key.replace('_', '-'):<15}  {value:<28}  {setting['origin']}")
