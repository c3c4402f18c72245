"""``rd fit``: what is learnt from the references that are stored."""

from __future__ import annotations

import click

from retrieval_detect.cli._params import Group, Run, device_option, dry_run_option, k_option, method_option


@click.group("fit", cls=Group, examples="rd fit calibration\nrd fit calibration --method nearest")
def command() -> None:
    """Fit what verdicts need: calibration."""


@command.command("calibration", examples="rd fit calibration\nrd query photo.jpg --fpr 0.01")
@click.option(
    "--likelihood",
    type=click.Choice(["logistic", "isotonic"]),
    default="logistic",
    help="How scores become likelihood ratios (default: logistic).",
)
@method_option
@k_option
@device_option
@dry_run_option
@click.pass_obj
def calibration(run: Run, likelihood: str, dry_run: bool) -> None:
    """Learn which scores photographs and fakes get, from the references set aside for it.

    A verdict then says how many photographs score as high, at the rate of false alarms you ask for,
    and a likelihood ratio. It holds for images like those set aside, and for no other cameras or sites.
    """
    from retrieval_detect.calibrate import commit_calibration, fit_calibration
    from retrieval_detect.cli._again import same_index
    from retrieval_detect.cli._progress import progress
    from retrieval_detect.config import index_path
    from retrieval_detect.report.words import calibration_lines
    from retrieval_detect.store.store import Store
    from retrieval_detect.types import LABELS

    settings = run.settings
    store = Store(index_path(settings))
    snapshot = store.snapshot()
    total = sum(snapshot.manifest.live_rows(label, "calib") for label in LABELS)
    with progress(total, "Scoring", run.output) as meter:
        fitted = fit_calibration(
            snapshot,
            method=settings.method,
            k=settings.k,
            likelihood=likelihood,  # type: ignore[arg-type]
            device=settings.device,
            progress=meter.advance,
        )
    record = {
        "index": str(store.folder),
        "method": fitted.method,
        "k": fitted.k,
        "photographs": {name: len(scores) for name, scores in fitted.conformal.real.items()},
        "fakes": {name: len(scores) for name, scores in fitted.conformal.fake.items()},
        "cllr": round(fitted.quality["cllr"], 4),
    }
    lines = calibration_lines(fitted)
    if dry_run:
        run.output.record(record, text=[*lines, "  Nothing was written."])
        return
    manifest = commit_calibration(store, fitted)
    flag = same_index(run, store.folder)
    lines.append(
        f"  Committed as generation {manifest.generation}. Undo: rd bank rollback {manifest.parent}{flag}"
    )
    run.output.record(record | {"generation": manifest.generation}, text=lines)
