"""Spellings of the command line that went, each with the one that took its place: the only such table."""

from __future__ import annotations

from collections.abc import Container, Mapping

COMMANDS: Mapping[str, str] = {
    "bank history": "rd bank list --by generation",
    "completion": "rd doctor --completion SHELL",
    "fit regions": "rd fit calibration --regions",
    "head list": "rd index fitted list",
    "head remove": "rd index fitted remove head NAME",
    "index list": "rd index info --all",
    "report list": "rd report CASE",
    "report verify": "rd report CASE --verify",
    "train finetune": "rd finetune",
}
"""Commands, as typed behind ``rd``."""

OPTIONS: Mapping[str, Mapping[str, str]] = {
    "bank add": {
        "--batch": "--fact batch=NAME",
        "--category": "--fact category=NAME",
        "--contributor": "--fact contributor=NAME",
        "--family": "--fact family=NAME",
        "--licence": "--fact licence=NAME",
        "--released-at": "--fact released-at=DATE",
        "--tags": "--fact tags=WORDS",
    },
    "bank remove": {
        f"--{key}": f"--among {key}=NAME" for key in ("batch", "contributor", "generator", "label", "source")
    },
    "build-index": {"--category": "--fact category=NAME"},
    "query": {
        "--blind": "--evidence blind",
        "--blur-faces": "--report FILE,blur-faces",
        "--heatmap": "--regions --out FILE.png",
        "--influence": "--evidence influence",
        "--no-thumbnails": "--report FILE,no-thumbnails",
        "--null": "--from-file FILE,null",
        "-0": "--from-file FILE,null",
        "--confidence": "--fpr RATE,confidence=P",
        "--fdr": "--fpr fdr=SHARE",
        "--source": "--within source=NAME",
        "--vectors": "rd rescore VECTORS",
        "--changed-since": "rd rescore VECTORS --changed-since GENERATION",
    },
}
"""Options of a command, as typed behind it."""


def command_now(path: str, name: str) -> str | None:
    """What to say to someone who typed ``name`` behind the command ``path``, if that is an old command."""
    now = COMMANDS.get(_typed(path, name))
    return now and f"{path} {name} is now: {now}"


def option_now(path: str, option: str, settable: Container[str]) -> str | None:
    """What to say to someone who gave ``option`` to the command ``path``, if it is an old one.

    ``settable`` : the command's names of ``--set``, which were options of these names.
    """
    name = option.lstrip("-")
    now = OPTIONS.get(_typed(path), {}).get(option)
    for bare, value in ((name, "VALUE"), (name.removeprefix("no-"), "no")):
        if now is None and bare.replace("-", "_") in settable:
            now = f"--set {bare}={value}"
    return now and f"{path} {option} is now: {now}"


def _typed(path: str, *more: str) -> str:
    return " ".join([*path.split()[1:], *more])
