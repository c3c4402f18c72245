"""``rd train``: heads, from the vectors that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.hyper_parameters import given, hyper_parameters, settables
from retrieval_detect.cli.params import (
    Command,
    Run,
    device_option,
    dry_run_option,
    offline_option,
)
from retrieval_detect.cli.settable import WEIGHTS, Settable, set_option
from retrieval_detect.heads.registry import KINDS, head_class
from retrieval_detect.options import check_options

if TYPE_CHECKING:
    from retrieval_detect.heads.base import Head
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.vectors import Rows

_HELP = {
    "linear": "Logistic regression, or UniversalFakeDetect's linear classifier",
    "svm": "A linear SVM, good from ten images a class on",
    "prototype": "Every generator and source as one distribution",
    "adapter": "CLIP-Adapter",
    "prompt": "Learned prompts for real and fake (CoOp)",
    "caption": "Learned captions, one a generator: detection and attribution",
    "layers": "Several stored layers together (RINE)",
    "quality": "Image quality, from scores that people gave",
    "ensemble": "Several methods as one",
}


class _Train(Command):
    """Lists the kinds of heads in its help."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The kinds, then the options."""
        with formatter.section("Kinds"):
            formatter.write_dl(list(_HELP.items()))
        super().format_options(ctx, formatter)


def _kinds(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The kinds that may be meant, for the shell."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _of_kind(params: Mapping[str, Any]) -> list[Settable]:
    kind = params.get("kind")
    return settables({name: head_class(name) for name in KINDS if kind in (None, name)})


@click.command(
    "train",
    cls=_Train,
    examples="""
        rd train linear --name lr
        rd train linear --name ufd --set optimizer=adamw
        rd train ensemble --members density,lr
        rd train quality --scores scores.csv
        rd train prompt --set help
        rd query photo.jpg --method lr
    """,
)
@click.argument("kind", shell_complete=_kinds)
@click.option("--name", metavar="NAME", help="What to call it (default: KIND).")
@click.option(
    "--scores",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Of quality: CSV with columns image (path or sha256) and score.",
)
@click.option("--members", metavar="LIST", help="Of ensemble: votes and heads to combine, as density,lr.")
@dry_run_option
@device_option
@offline_option
@set_option(WEIGHTS, found=_of_kind)
@click.pass_obj
def command(run: Run, /, kind: str, name: str | None, dry_run: bool, **options: Any) -> None:
    """Train a head on the stored references; no image is opened.

    A head gives a score beside the votes: ask for it with rd query --method NAME, and calibrate it with
    rd fit calibration --method NAME.
    """
    owner = head_class(kind)
    extra = _extra(kind, scores=options.pop("scores"), members=options.pop("members"))
    head = owner(**given(options, [f.name for f in hyper_parameters(owner)]))
    check_options(head)
    _train(run, head, name, dry_run, extra)


def _extra(kind: str, **options: str | None) -> dict[str, Any]:
    """What a kind needs besides the stored references, and no other takes."""
    from retrieval_detect.errors import UsageError

    needed = {"quality": "scores", "ensemble": "members"}.get(kind)
    for option, value in options.items():
        if value is not None and option != needed:
            raise UsageError(f"--{option} means nothing for {kind}")
    if needed and options[needed] is None:
        raise UsageError(f"{kind} needs --{needed}", hint="rd train --help says what it is")
    return {needed: options[needed]} if needed else {}


def _train(run: Run, head: Head, name: str | None, dry_run: bool, extra: dict[str, Any]) -> None:
    from retrieval_detect.cli.again import committed, same_index
    from retrieval_detect.cli.settings import index_path
    from retrieval_detect.report.words import training_lines
    from retrieval_detect.store.store import Store
    from retrieval_detect.teach.heads import check_name, commit_head

    name = name or head.kind
    if "members" in extra:
        extra["members"] = tuple(dict.fromkeys(filter(None, map(str.strip, extra["members"].split(",")))))
    check_name(name, members=extra.get("members", ()))
    store = Store(index_path(run.settings))
    snapshot = store.snapshot()
    rows = _rows(run, snapshot, head, extra)
    record = {
        "index": str(store.folder),
        "name": name,
        "kind": head.kind,
        "layers": [] if "members" in extra else list(head.layers or rows.vectors),
        "photographs": int((~rows.fake).sum()),
        "fakes": int(rows.fake.sum()),
    }
    if dry_run:
        run.output.record(record, text=[*training_lines(record), "  Nothing was trained or written."])
        return
    _fit(run, head, rows, snapshot, extra)
    record |= _held_back(snapshot, head)
    manifest = commit_head(store, name, head, of=snapshot, device=run.settings.device)
    flag = same_index(run, store.folder)
    lines = training_lines(record)
    lines.append(committed(run, store.folder, manifest))
    if head.kind != "quality":
        lines.append(f"  Use it: rd query photo.jpg --method {name}{flag}")
    run.output.record(record | {"generation": manifest.generation}, text=lines)


def _rows(run: Run, snapshot: Snapshot, head: Head, extra: dict[str, Any]) -> Rows:
    from retrieval_detect.teach.heads import scored_rows, training_set
    from retrieval_detect.teach.members import member_scores

    if "members" in extra:
        return member_scores(snapshot, extra["members"], device=run.settings.device, progress=run.output.note)
    if "scores" in extra:
        rows, extra["scores"] = scored_rows(snapshot, head, extra["scores"])
        return rows
    return training_set(snapshot, head)


def _fit(run: Run, head: Head, rows: Rows, snapshot: Snapshot, extra: dict[str, Any]) -> None:
    text = None
    if head.needs_text:
        from retrieval_detect.encoders.text import load_text_tower
        from retrieval_detect.teach.heads import require_same_weights

        settings = run.settings
        text = load_text_tower(
            snapshot.manifest.encoder.name,
            weights=settings.encoder_weights,
            device="cpu" if settings.device == "auto" else settings.device,
            offline=settings.offline,
        )
        require_same_weights(text, snapshot)
    if "scores" in extra:
        head.fit_scores(rows, extra["scores"], text=text, progress=run.output.note)  # type: ignore[attr-defined]
    else:
        head.fit(rows, text=text, progress=run.output.note)


def _held_back(snapshot: Snapshot, head: Head) -> dict[str, Any]:
    """How well it tells the rows set aside for calibration, of known generators and sources."""
    from retrieval_detect.scoring.metrics import auc
    from retrieval_detect.teach.heads import training_set

    if head.kind in ("quality", "ensemble"):
        return {"auc_calib": None}
    rows = training_set(snapshot, head, split="calib")
    if not (rows.fake.any() and (~rows.fake).any()):
        return {"auc_calib": None}
    scores = head.decision_function({layer: rows.as_encoded(layer) for layer in head.layers})
    return {"auc_calib": round(auc(scores[rows.fake], scores[~rows.fake]), 4)}
