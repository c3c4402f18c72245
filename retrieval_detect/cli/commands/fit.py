"""``rd fit``: what is learnt from the references that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.params import (
    Group,
    Run,
    device_option,
    dry_run_option,
    method_option,
)
from retrieval_detect.cli.progress import progress
from retrieval_detect.cli.recipes import parse_layers
from retrieval_detect.cli.settable import ASKING, Settable, given, set_option, settables, was_set
from retrieval_detect.errors import UsageError
from retrieval_detect.projections.registry import KINDS
from retrieval_detect.report.words import calibration_lines, number

if TYPE_CHECKING:
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.scoring.highest_crops import HighestCrops


@click.group("fit", cls=Group, examples="rd fit projection white --kind whiten\nrd fit calibration")
def command() -> None:
    """Fit what verdicts need: calibration, projections."""


@command.command(
    "calibration",
    examples="""
        rd fit calibration
        rd fit calibration --regions
        rd query photo.jpg --fpr 0.01
    """,
)
@click.option(
    "--regions",
    is_flag=True,
    help="Learn how high the highest crop of a photograph scores instead, for rd query --regions.",
)
@click.option(
    "--likelihood",
    type=click.Choice(["logistic", "isotonic"]),
    default="logistic",
    help="How scores become likelihood ratios (default: logistic).",
)
@method_option
@device_option
@set_option(*ASKING)
@dry_run_option
@click.pass_obj
def calibration(run: Run, regions: bool, likelihood: Any, dry_run: bool) -> None:
    """Learn which scores photographs and fakes get, from the references set aside for it.

    A verdict then says how many photographs score as high, at the rate of false alarms you ask for,
    and a likelihood ratio. It holds for images like those set aside, and for no other cameras or sites.
    --regions needs an index with crops: rd build-index --views crops, or rd bank add --views crops.
    """
    source = click.get_current_context().get_parameter_source("likelihood")
    if regions and source is click.core.ParameterSource.COMMANDLINE:
        raise UsageError("--likelihood is of scores, and --regions learns how high crops score")
    from retrieval_detect.teach.calibrate import n_asked

    store = run.store()
    snapshot = store.snapshot()
    total = snapshot.manifest.live_rows("real", "calib") if regions else n_asked(snapshot)
    with progress(total, "Scoring", run.output) as meter:
        how: dict[str, Any] = {"device": run.settings.device, "progress": meter.advance}
        if regions:
            from retrieval_detect.teach.regions import commit_regions, fit_regions

            crops = fit_regions(snapshot, run.question(), **how)
            write, record, lines = partial(commit_regions, store, crops), *_regions_said(crops)
        else:
            from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration

            fitted = fit_calibration(snapshot, run.question(), likelihood=likelihood, **how)
            write, record, lines = partial(commit_calibration, store, fitted), *_calibration_said(fitted)
    run.commit({"index": str(store.folder), **record}, lines, write, dry_run=dry_run)


def _calibration_said(fitted: Calibration) -> tuple[dict[str, Any], list[str]]:
    record = {
        "method": fitted.method,
        "k": fitted.k,
        "photographs": {name: len(scores) for name, scores in fitted.conformal.real.items()},
        "fakes": {name: len(scores) for name, scores in fitted.conformal.fake.items()},
        "cllr": round(fitted.quality["cllr"], 4),
        "lacking": fitted.lacking(fitted.question) or None,
    }
    return record, calibration_lines(fitted)


def _regions_said(fitted: HighestCrops) -> tuple[dict[str, Any], list[str]]:
    crops = [n for n, _ in fitted.photographs]
    record = {"method": fitted.method, "k": fitted.k, "photographs": len(crops), "crops": sum(crops)}
    line = (
        f"Regions ({fitted.method}, k {fitted.k}): judged {number(sum(crops), 'crop')} of "
        f"{number(len(crops), 'photograph')}, kept the highest of each"
    )
    return record, [line]


def _of_kind(params: Mapping[str, Any]) -> list[Settable]:
    kind = params.get("kind")
    return settables({name: owner for name, owner in KINDS.items() if kind not in KINDS or kind == name})


@command.command(
    "projection",
    examples="""
        rd fit projection white --kind whiten --layers block05,proj
        rd fit projection identity
    """,
)
@click.argument("name")
@click.option(
    "--kind",
    metavar="KIND",
    help="identity, concat, whiten, lda, nca, mask, heads or nullspace; none: use NAME as it is stored.",
)
@click.option("--layers", metavar="LIST", help="Stored layers it reads (default: proj, where it is stored).")
@device_option
@dry_run_option
@set_option(found=_of_kind)
@click.pass_obj
def projection(
    run: Run, /, name: str, kind: str | None, layers: str | None, dry_run: bool, **options: Any
) -> None:
    """Fit a map of the stored vectors, and search the banks through it from now on.

    It is fitted on the references in the banks; no image is opened. Calibrations are fitted again along
    with it. Without --kind, a projection that the index has already becomes the one in use.
    """
    from retrieval_detect.ask.fitted import read_projection
    from retrieval_detect.store.schema import grouping_layer
    from retrieval_detect.teach.projections import (
        check_projection_name,
        commit_projection,
        fitted_projection,
        use_projection,
    )

    store, device = run.store(), run.settings.device
    snapshot = store.snapshot()
    record: dict[str, Any] = {"index": str(store.folder), "name": name}
    if kind is None:
        context = click.get_current_context()
        if layers or any(was_set(context, name) for name in options):
            raise UsageError("options say how to fit, and --kind is missing", hint="Give --kind KIND.")
        read_projection(snapshot, name)
        if dry_run:
            run.output.record(record, text=f"Banks would be searched through {name}. Nothing was written.")
            return
        manifest = use_projection(store, name, device=device)
        text = f"Banks are searched through {name}, generation {manifest.generation}."
        run.output.record(record | {"generation": manifest.generation}, text=text)
        return
    check_projection_name(name)
    read = parse_layers(layers) if layers else (grouping_layer(snapshot.manifest.layers),)
    fitted = fitted_projection(
        snapshot, kind, read, progress=run.output.note, options=given(options, options)
    )
    record |= {
        "kind": fitted.kind,
        "layers": list(fitted.layers),
        "d": fitted.d_out,
        "temperature": fitted.temperature,
        "facts": dict(fitted.facts),
    }
    run.commit(
        record,
        _projection_lines(record),
        lambda: commit_projection(store, name, fitted, of=snapshot, device=device),
        dry_run=dry_run,
        after=lambda manifest: [
            f"  Banks are searched through it, generation {manifest.generation}. "
            f"Undo: rd bank rollback {manifest.parent}{run.same_index}"
        ],
    )


def _projection_lines(record: Mapping[str, Any]) -> list[str]:
    """What a projection maps to what, and what it promises on generators held out."""
    inner = record["facts"].get("held_out_auc", {})
    lines = [
        f"Projection {record['name']} ({record['kind']}): {', '.join(record['layers'])} → "
        f"{record['d']} dimensions, temperature {record['temperature']:g}"
    ]
    if inner:
        said = ", ".join(f"{auc:.3f} with {n}" for n, auc in inner.items())
        lines.append(
            f"  AUC on generators and sources held out, by how many of the generator are known: {said}"
        )
    if inner and record["facts"]["labels"]:
        lines.append("  the map itself was fitted with them, so images of new ones will do worse")
    return lines
