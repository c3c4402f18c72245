"""``rd train``: heads, from the vectors that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.params import (
    Command,
    Run,
    device_option,
    dry_run_option,
    offline_option,
)
from retrieval_detect.cli.recipes import parts_of
from retrieval_detect.cli.settable import WEIGHTS, Settable, given, hyper_parameters, set_option, settables
from retrieval_detect.errors import UsageError
from retrieval_detect.heads.registry import KINDS, head_class
from retrieval_detect.options import check_options
from retrieval_detect.report.words import training_lines

if TYPE_CHECKING:
    from retrieval_detect.heads.base import Head
    from retrieval_detect.store.snapshot import Snapshot

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
    from retrieval_detect.teach.heads import check_name, commit_head, scored_rows, training_set
    from retrieval_detect.teach.members import member_scores

    owner = head_class(kind)
    scores, members = _extra(kind, scores=options.pop("scores"), members=options.pop("members"))
    head = owner(**given(options, [f.name for f in hyper_parameters(owner)]))
    check_options(head)
    name = name or head.kind
    of = parts_of(members)
    check_name(name, members=of)
    store, device = run.store(), run.settings.device
    snapshot = store.snapshot()
    ratings = None
    if members is not None:
        rows = member_scores(snapshot, of, device=device, progress=run.output.note)
    elif scores is not None:
        rows, ratings = scored_rows(snapshot, head, scores)
    else:
        rows = training_set(snapshot, head)
    record = {
        "index": str(store.folder),
        "name": name,
        "kind": head.kind,
        "layers": [] if members is not None else list(head.layers or rows.vectors),
        "photographs": int((~rows.fake).sum()),
        "fakes": int(rows.fake.sum()),
    }
    if dry_run:
        run.output.record(record, text=[*training_lines(record), "  Nothing was trained or written."])
        return
    text = _text_tower(run, snapshot) if head.needs_text else None
    if ratings is not None:
        head.fit_scores(rows, ratings, text=text, progress=run.output.note)  # type: ignore[attr-defined]
    else:
        head.fit(rows, text=text, progress=run.output.note)
    record["auc_calib"] = _held_back(snapshot, head)
    manifest = commit_head(store, name, head, of=snapshot, device=device)
    lines = [*training_lines(record), run.committed(manifest)]
    if head.kind != "quality":
        lines.append(f"  Use it: rd query photo.jpg --method {name}{run.same_index}")
    run.output.record(record | {"generation": manifest.generation}, text=lines)


def _extra(kind: str, *, scores: str | None, members: str | None) -> tuple[str | None, str | None]:
    """What a kind needs besides the stored references, and no other takes."""
    needed = {"quality": "scores", "ensemble": "members"}.get(kind)
    for option, value in (("scores", scores), ("members", members)):
        if value is not None and option != needed:
            raise UsageError(f"--{option} means nothing for {kind}")
        if value is None and option == needed:
            raise UsageError(f"{kind} needs --{needed}", hint="rd train --help says what it is")
    return scores, members


def _text_tower(run: Run, snapshot: Snapshot) -> Any:
    from retrieval_detect.encoders.text import load_text_tower
    from retrieval_detect.teach.heads import require_same_weights

    running = run.running | ({"device": "cpu"} if run.settings.device == "auto" else {})
    text = load_text_tower(snapshot.manifest.encoder.name, **running)
    require_same_weights(text, snapshot)
    return text


def _held_back(snapshot: Snapshot, head: Head) -> float | None:
    """How well it tells the rows set aside for calibration, of known generators and sources: the AUC."""
    from retrieval_detect.scoring.metrics import auc
    from retrieval_detect.teach.heads import training_set

    if head.kind in ("quality", "ensemble"):
        return None
    rows = training_set(snapshot, head, split="calib")
    if not (rows.fake.any() and (~rows.fake).any()):
        return None
    scores = head.decision_function({layer: rows.as_encoded(layer) for layer in head.layers})
    return round(auc(scores[rows.fake], scores[~rows.fake]), 4)
