"""``rd bank``: teach, unlearn, undo."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.commands.bank_mistake import mistake
from retrieval_detect.cli.commands.bank_review import check, discover
from retrieval_detect.cli.output import Column, human_bytes
from retrieval_detect.cli.params import (
    Group,
    Run,
    calibration_option,
    category_folders_option,
    computing_options,
    device_option,
    dry_run_option,
    fact_option,
    thumbnails_option,
    views_option,
    yes_option,
)
from retrieval_detect.cli.parts import fields_option
from retrieval_detect.cli.recipes import Recipe, ReferenceSet, check_date, parse_views
from retrieval_detect.errors import UsageError
from retrieval_detect.names import NAMED, checked, named, printable, shown, spelling
from retrieval_detect.report.words import changes, name_of, number
from retrieval_detect.texts import decoded
from retrieval_detect.types import Facts, Label

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import Manifest

_BY = (
    *("label", "generator", "source", "split", "batch", "contributor", "view"),
    *("row", "generation", "mistake"),
)


@click.group(
    "bank",
    cls=Group,
    examples="""
        rd bank add new/ --label fake --generator newgen
        rd bank remove --among generator=newgen --reason "licence withdrawn"
        rd bank list --by generator
        rd bank rollback 7
    """,
)
def command() -> None:
    """Add, remove and list references; undo."""


# ---------------------------------------------------------------- add


@command.command(
    "add",
    examples="""
        rd bank add new/ --label fake --generator newgen --fact released-at=2026-10-01
        rd bank add phone-photos/ --label real --source my-phone --fact licence=CC0 --fact batch=autumn
    """,
    headings={
        "What they are": "--label --generator --source --fact --category-folders",
        "How they are added": "--views --thumbnails --fpr-budget --no-calibration --dry-run",
    },
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--label", required=True, type=click.Choice(["real", "fake"]), help="What all these images are."
)
@click.option("--generator", default="", help="The model that made them (default: sub-folders).")
@click.option("--source", default="", help="The dataset or site they came from (default: sub-folders).")
@fact_option("family", "released-at")
@category_folders_option
@views_option
@thumbnails_option
@click.option(
    "--fpr-budget",
    metavar="POINTS",
    type=click.FloatRange(0),
    default=1.0,
    help="How far false alarms may rise on a calibrated index (default: 1 point).",
)
@calibration_option
@computing_options()
@dry_run_option
@click.pass_obj
def add(
    run: Run,
    /,
    paths: tuple[str, ...],
    dry_run: bool,
    label: Label,
    generator: str,
    source: str,
    fact: dict[str, str],
    views: str | None,
    category_folders: bool,
    fpr_budget: float,
) -> int | None:
    """Add references to an index; only what is new is embedded.

    --fact family is a generator's kind, such as 'latent diffusion', released-at its day as YYYY-MM-DD; batch
    names a delivery, and none outweighs one generator.

    On a calibrated index the change is measured first: who is found, which photographs are flagged.
    It is refused, and nothing is added, where false alarms would rise by more than --fpr-budget.
    """
    from retrieval_detect.cli.adding import teach
    from retrieval_detect.teach.measure import Reviewer

    run.index()
    family, released_at = (fact.pop(name, "") for name in ("family", "released_at"))
    if label == "real" and (generator or family or released_at):
        raise click.UsageError("a photograph has no generator: --generator goes with --label fake.")
    released = check_date(released_at, where="--fact released-at")
    facts = named(Facts(label, generator=generator, source=source, **fact))
    reference_set = ReferenceSet(paths, facts, checked(family, "family"), released, category_folders)
    review = Reviewer(budget=fpr_budget, device=run.settings.device)
    recipe = Recipe((reference_set,), views=parse_views(views or ""))
    return teach(run, recipe, dry_run=dry_run, kind="bank add", review=review)


# ---------------------------------------------------------------- remove


@command.command(
    "remove",
    examples="""
        rd bank remove --among generator=newgen --dry-run
        rd bank remove --id 3a7b…e1 --reason mislabelled --yes
    """,
)
@fields_option(
    "--among",
    ("label", *NAMED),
    help=f"Those of which this holds, repeated: label, {', '.join(NAMED)} (generator= : without a name).",
)
@click.option("--id", "ids", multiple=True, metavar="SHA256", help="An image, by the sha256 of its file.")
@click.option("--row", "rows", multiple=True, type=int, metavar="N", help="A reference, by its row id.")
@click.option(
    "--from-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Images by sha256, one a line, as sha256sum prints them.",
)
@click.option("--reason", default="", help="Why; kept in the history.")
@calibration_option
@dry_run_option
@yes_option
@click.pass_obj
def remove(
    run: Run,
    /,
    ids: tuple[str, ...],
    rows: tuple[int, ...],
    from_file: Path | None,
    reason: str,
    dry_run: bool,
    yes: bool,
    among: dict[str, str],
) -> int | None:
    """Take references out of the banks; they stop voting at once.

    All conditions must hold. The vectors stay on disk, so that rd bank rollback can undo it, until
    rd bank compact --purge erases them. What was fitted on them is fitted anew along with it, as with
    rd bank add, and takes as long; what cannot be is named, and refuses nothing.
    """
    from retrieval_detect.store.select import select_rows
    from retrieval_detect.teach.refit import follows

    index = run.index()
    snapshot = index.snapshot()
    listed = _digests(from_file) if from_file else []
    conditions = {name: spelling(value) for name, value in among.items()}
    wanted = select_rows(snapshot, content_ids=[*ids, *listed], row_ids=rows, **conditions)
    names = [*map(name_of, conditions.values()), *(["chosen images"] if ids or rows or listed else [])]
    what = f"{number(len(wanted), 'reference')} ({', '.join(names)})"
    if dry_run:
        left = snapshot.without(wanted)
        fitted = [f"{f.kind} {f.name}" for f in snapshot.manifest.fitted if follows(snapshot, left, f)]
        lines = [f"Would remove {what}. Nothing was written."]
        lines += [f"  Would be fitted anew along with it: {', '.join(fitted)}"] * bool(fitted)
        run.output.record({"would_remove": len(wanted), "would_fit": fitted}, text=lines)
        return None
    if wanted and not run.output.confirm(f"Remove {what}?", yes=yes):
        return _declined(run)
    detail = conditions | {"command": "bank remove"}
    manifest = index.remove(
        wanted,
        reason=printable(reason),
        detail=detail,
        calibrate=not run.flags.get("no_calibration"),
        device=run.settings.device,
    )
    _committed(run, manifest, {"removed": len(wanted)}, f"Removed {what}.", before=snapshot.manifest)
    return None


def _digests(file: Path) -> list[str]:
    """The first word of each line: the output of sha256sum names the file behind it.

    A list of nothing is refused: passed over, it would leave it to the other conditions what goes.
    """
    lines = decoded(file.read_bytes(), str(file), file_names=True).split("\n")
    found = [line.split()[0].removeprefix("\\") for line in lines if line.strip()]
    if not found:
        raise UsageError(f"the list {printable(str(file))} names no image")
    return found


def _declined(run: Run) -> int:
    run.output.note("Nothing was changed.")
    return 1


def _committed(
    run: Run, manifest: Manifest, record: dict[str, Any], text: str, *, before: Manifest | None = None
) -> None:
    """Say what was committed and how to go back; ``before`` : beside which something may be fitted anew."""
    from retrieval_detect.ask.anew import command as fit_again
    from retrieval_detect.ask.calibrations import in_force
    from retrieval_detect.store.snapshot import Snapshot

    snapshot, same = Snapshot(run.folder, manifest), run.same_index
    effects, counted = run.effects(manifest)
    lines = [text, *counted, run.committed(manifest)]
    if before is not None:
        fitted = [f"{f.kind} {f.name}" for f in manifest.fitted if f not in before.fitted]
        record |= {"fitted": fitted}
        lines += [f"  Fitted anew along with it: {', '.join(fitted)}"] * bool(fitted)
    stale = {f"{f.kind} {f.name}": f for f in snapshot.stale()}
    aside = [name for name, f in stale.items() if not in_force(snapshot, f)]
    lines += [
        f"  {name} was fitted on other references than these. Fit it anew: {fit_again(snapshot, f)}{same}"
        for name, f in stale.items()
        if name not in aside
    ]
    if aside:
        lines.append(
            f"  {', '.join(aside)} {'are' if len(aside) > 1 else 'is'} of other references than these, "
            f"through projections that are not in force. See: rd index fitted list{same}"
        )
    record |= {"generation": manifest.generation, "stale": list(stale), **effects}
    run.output.record(record, text=lines)


# ---------------------------------------------------------------- look


@command.command(
    "list",
    examples="""
        rd bank list --by generator
        rd bank list --by row --format csv
        rd bank list --by generation
    """,
)
@click.option(
    "--by",
    metavar="WHAT",
    type=click.Choice(_BY),
    help=f"{', '.join(_BY)} (default: generators and sources). generation: what came, what went and what was "
    "fitted in each that is kept, oldest first. mistake: those that are kept, judged again.",
)
@click.pass_obj
def list_(run: Run, by: str | None) -> None:
    """Say what is in the banks, or what came and went."""
    from retrieval_detect.store.manifest import read_current
    from retrieval_detect.store.select import count_by, kept_history, list_rows
    from retrieval_detect.store.snapshot import Snapshot

    columns: list[str | Column]
    if by == "generation":  # read unchecked: it says where to go back to
        rows = kept_history(Snapshot(run.folder, read_current(run.folder)))
        when, what = Column("created_at", "when"), Column("changes", "what", changes)
        columns = ["generation", when, "operation", "added", "removed", "references", what]
    elif by == "mistake":
        from retrieval_detect.review.mistakes import judge_mistakes

        judged = judge_mistakes(run.index().snapshot(), device=run.settings.device)
        rows = [asdict(mistake) for mistake in judged]
        short = Column("content_id", "sha256", lambda text: text[:12])
        columns = [short, "label", "verdict", Column("score", show="{:+.2f}".format), "right", "because"]
    elif by == "row":
        rows = list_rows(run.index().snapshot())
        columns = ["row_id", "label", "split", "generator", "source", "uri"]
    else:
        rows = count_by(run.index().snapshot(), by)
        columns = [*([by] if by else ["label", "name"]), "bank", "calib", "references"]
    run.output.table(rows, columns)


# ---------------------------------------------------------------- undo and erase


@command.command("rollback", examples="rd bank list --by generation\nrd bank rollback 7")
@click.argument("generation", type=int)
@dry_run_option
@click.pass_obj
def rollback(run: Run, generation: int, dry_run: bool) -> None:
    """Go back to an older generation, as a new one: nothing is lost, and this can be undone too."""
    store = run.store()
    if dry_run:
        store.kept(generation)
        text = f"Would go back to generation {generation}. Nothing was written."
        run.output.record({"would_roll_back_to": generation}, text=text)
        return
    with store.writer(checked=False) as writer:
        manifest = writer.rollback(generation)
    _committed(
        run, manifest, {"rolled_back_to": generation}, f"Back at the references of generation {generation}."
    )


@command.command("compact", examples="rd bank compact\nrd bank compact --purge --yes")
@click.option("--purge", is_flag=True, help="Erase removed references in every generation, for good.")
@dry_run_option
@yes_option
@click.pass_obj
def compact(run: Run, purge: bool, dry_run: bool, yes: bool) -> int | None:
    """Rewrite the index without its removed references.

    --purge also erases their vectors and file names from every older generation, so that none can
    be gone back to, and refuses the same images for ever. Reports and copies that were handed out
    are out of its reach.
    """
    from retrieval_detect.store.select import size_on_disk
    from retrieval_detect.teach.erasing import purge as erase

    index = run.index()
    if purge:
        removed = len(index.store.erasable())
        what = f"{number(removed, 'removed image')} and every older generation for good"
    else:
        removed = len(index.snapshot().dead)
        what = number(removed, "removed reference")
    if dry_run:
        text = f"Would {'erase' if purge else 'drop'} {what}. Nothing was written."
        run.output.record({"would_drop": removed, "purge": purge}, text=text)
        return None
    if not (purge or removed):
        record = {"dropped": 0, "purge": False, "generation": index.snapshot().manifest.generation}
        run.output.record(record, text="Nothing is removed, so there is nothing to drop.")
        return None
    if purge and not run.output.confirm(f"Erase {what}?", yes=yes):
        return _declined(run)
    before = size_on_disk(index.folder)
    if purge:
        manifest = erase(index.store)
    else:
        with index.store.writer() as writer:
            manifest = writer.compact()
    after = size_on_disk(index.folder)
    sizes = f"{human_bytes(before)} before, {human_bytes(after)} now"
    record = {"dropped": removed, "purge": purge, "size_bytes_before": before, "size_bytes": after}
    if purge:
        last = f"  Committed as generation {manifest.generation}, the only one there is."
        run.output.record(
            record | {"generation": manifest.generation}, text=[f"Erased {what}; {sizes}.", last]
        )
        return None
    note = "older generations keep their files until ten changes later" if after >= before else sizes
    _committed(run, manifest, record, f"Dropped {what}; {note}.")
    return None


# ---------------------------------------------------------------- names


@command.command(
    "rename",
    examples="""
        rd bank rename
        rd bank rename generator "sd xl" sdxl
    """,
)
@click.argument("column", required=False, type=click.Choice(NAMED), metavar="[COLUMN]")
@click.argument("old", required=False, metavar="[OLD]")
@click.argument("new", required=False, metavar="[NEW]")
@device_option
@dry_run_option
@click.pass_obj
def rename(run: Run, column: str | None, old: str | None, new: str | None, dry_run: bool) -> None:
    """Rename generators, sources and other names; a new name that is there already merges the two.

    COLUMN is generator, source, category, licence, contributor, batch, tags or pair_id. Without it every
    name that rd index verify reports as spelt in several ways gets the one that rd would give it. What was
    fitted by the old names is fitted anew.
    """
    from retrieval_detect.store.renaming import misspelt
    from retrieval_detect.teach.renaming import new_name
    from retrieval_detect.teach.renaming import rename as commit

    if column is not None and (old is None or new is None):
        raise click.UsageError("give the old name and the new one, or nothing.")
    index = run.index()
    snapshot = index.snapshot()
    names = misspelt(snapshot) if column is None else new_name(snapshot, column, old or "", new or "")
    record = {"names": names}
    said = [f"{c} {shown(a)} → {shown(b)}" for c, found in names.items() for a, b in sorted(found.items())]
    if dry_run or not names:
        lines = [f"Would call {change}." for change in said] or ["All names are spelt as rd spells them."]
        run.output.record(record, text=[*lines, "Nothing was written."])
        return
    manifest = commit(index.store, names, detail={"command": "bank rename"}, device=run.settings.device)
    images = manifest.operation.detail["references"]
    text = f"Renamed {number(images, 'reference')}: {'; '.join(said)}."
    _committed(run, manifest, record | {"references": images}, text)


command.add_command(mistake)
command.add_command(check)
command.add_command(discover)
