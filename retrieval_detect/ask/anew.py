"""The command that fits again what an index holds: with the options that it was fitted with."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from retrieval_detect.ask.fitted import CALIBRATION, REGIONS, load_head, read, read_fitted
from retrieval_detect.heads.registry import head_class
from retrieval_detect.projections.registry import fitting_class
from retrieval_detect.scoring.vote import DEFAULT_K
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.scoring.highest_crops import HighestCrops
    from retrieval_detect.store.manifest import FittedRecord
    from retrieval_detect.store.snapshot import Snapshot


def command(snapshot: Snapshot, record: FittedRecord) -> str:
    """What a reader is to type, as one line of a shell."""
    words = {"calibration": _calibration, "regions": _regions, "projection": _projection, "head": _head}
    return words.get(record.kind, _along)(snapshot, record)


def calibration_command(snapshot: Snapshot, found: Calibration) -> str:
    """The same of a calibration that is read already."""
    likelihood = [] if found.likelihood_method == "logistic" else ["--likelihood", found.likelihood_method]
    return shlex.join(["rd", "fit", "calibration", *_asked(snapshot, found), *likelihood])


def _calibration(snapshot: Snapshot, record: FittedRecord) -> str:
    found = read(snapshot, CALIBRATION, record.name)
    return "rd fit calibration" if found is None else calibration_command(snapshot, found)


def _along(snapshot: Snapshot, record: FittedRecord) -> str:  # noqa: ARG001
    """Of what is fitted along with the calibration of the default method."""
    return "rd fit calibration"


def _regions(snapshot: Snapshot, record: FittedRecord) -> str:
    found = read(snapshot, REGIONS, record.name)
    return shlex.join(["rd", "fit", "calibration", "--regions", *(_asked(snapshot, found) if found else ())])


def _asked(snapshot: Snapshot, found: Calibration | HighestCrops) -> Iterator[str]:
    if found.method != Question().method:
        yield from ("--method", found.method)
    if found.method in DEFAULT_K and found.k != DEFAULT_K[found.method]:  # type: ignore[index]
        yield from ("--set", f"k={found.k}")
    if found.projection != snapshot.manifest.projection:
        yield from ("--set", f"projection={found.projection}")


def _projection(snapshot: Snapshot, record: FittedRecord) -> str:
    found, in_force = read_fitted(snapshot, record.name), snapshot.manifest.projection
    options = _options(fitting_class(found.kind), found.facts.get("options", {}))
    words = ["rd", "fit", "projection", record.name, "--kind", found.kind, "--layers", ",".join(found.layers)]
    # Fitting also searches through it from then on.
    back = "" if record.name == in_force else f" && {shlex.join(['rd', 'fit', 'projection', in_force])}"
    return shlex.join([*words, *options]) + back


def _head(snapshot: Snapshot, record: FittedRecord) -> str:
    head, kind = load_head(snapshot, record.name), record.method
    if not record.strata:  # trained elsewhere
        return shlex.join(["rd", "head", "import", "FILE", "--name", record.name])
    given = {f.name: getattr(head, f.name) for f in fields(head)}
    words = ["rd", "train", kind, "--name", record.name]
    words += ["--members", ",".join(head.members)] if head.members else []
    words += ["--scores", "FILE"] if kind == "quality" else []
    return shlex.join([*words, *_options(head_class(kind), given)])


def _options(owner: type, given: Mapping[str, Any]) -> Iterator[str]:
    """Those that a command offers, where they are not what it takes anyway."""
    for field in fields(owner):
        value = given.get(field.name, field.default)
        if "help" not in field.metadata or value == field.default:
            continue
        said = ("yes" if value else "no") if isinstance(value, bool) else value
        yield from ("--set", f"{field.name.replace('_', '-')}={said}")
