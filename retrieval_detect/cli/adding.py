"""What build-index and bank add share: scan, plan, embed, commit, and say what happened."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_detect.ask.calibrations import too_few
from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.fitted import PLAIN
from retrieval_detect.ask.methods import calibrations
from retrieval_detect.cli.output import human_bytes
from retrieval_detect.cli.params import SOME_FAILED, one_value_each
from retrieval_detect.cli.progress import progress
from retrieval_detect.cli.recipes import (
    Recipe,
    ReferenceSet,
    find_recipe,
    parse_layers,
    parse_views,
    read_recipe,
)
from retrieval_detect.errors import UsageError
from retrieval_detect.images.codes import NOTES
from retrieval_detect.images.lists import labelled as labelled_items
from retrieval_detect.images.sources import scan
from retrieval_detect.images.thumbnails import thumbnail
from retrieval_detect.names import WRITTEN, named, printable
from retrieval_detect.report.additions import apart_lines, regression_lines
from retrieval_detect.report.words import calibration_lines, name_of, number
from retrieval_detect.store.indexes import is_index
from retrieval_detect.store.manifest import GeneratorFacts, Manifest
from retrieval_detect.store.select import size_on_disk
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.teach.apart import MENDED_BY, apart_in
from retrieval_detect.teach.build import AddReport, Index
from retrieval_detect.teach.measure import Regression, Reviewer
from retrieval_detect.teach.plans import UpdatePlan, plan
from retrieval_detect.teach.projections import fit_default
from retrieval_detect.teach.sizes import PROJECTION, sizes
from retrieval_detect.types import LABELS, Facts, ImageItem

if TYPE_CHECKING:
    from retrieval_detect.cli.output import Output
    from retrieval_detect.cli.params import Run
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.images.lists import Columns

_SHOWN_FAILURES = 10


def recipe_of(
    name: str | None,
    *,
    real: Sequence[str],
    fake: Sequence[str],
    labelled: Sequence[tuple[str, Columns]],
    layers: str | None,
    views: str | None,
    root: str,
    facts: dict[str, str],
    category_folders: bool,
) -> Recipe:
    """The recipe that was named, or the one that --real, --fake, --labelled and what they show amount to."""
    if name is not None and (real or fake or labelled or facts or category_folders):
        if (real or fake) and Path(name).exists() and Path(name).suffix != ".toml":
            hint = one_value_each(*["--real"] * bool(real), *["--fake"] * bool(fake))
            raise UsageError(f"{printable(name)!r} stands behind no option that says what it is", hint=hint)
        raise UsageError(
            "a recipe already says what the references are",
            hint="Leave out --real, --fake, --labelled, --fact and --category-folders.",
        )
    if name is not None:
        recipe = read_recipe(find_recipe(name), root=Path(root))
    elif real or fake or labelled:
        sets = [
            ReferenceSet(tuple(paths), named(Facts(label, **facts)), category_folders=category_folders)
            for label, paths in zip(LABELS, (real, fake), strict=True)
            if paths
        ]
        sets += [
            ReferenceSet((path,), named(Facts("real", **facts)), columns=columns)
            for path, columns in labelled
        ]
        recipe = Recipe(tuple(sets))
    else:
        raise UsageError(
            "there is nothing to build from",
            hint="Give --real DIR and --fake DIR, --labelled LIST, or a recipe: rd build-index --help",
        )
    if layers:
        recipe = replace(recipe, layers=parse_layers(layers))
    return replace(recipe, views=parse_views(views)) if views is not None else recipe


def teach(
    run: Run, recipe: Recipe, *, dry_run: bool, kind: str = "build-index", review: Reviewer | None = None
) -> int | None:
    """Bring an index, new or old, to hold what ``recipe`` names.

    ``review`` looks at what is added to an index that is calibrated.
    """
    started = time.monotonic()
    settings = run.settings
    if recipe.name and settings.origin("index") == "default":
        run.settings = settings = replace(settings, index=recipe.name)
    folder, device = run.folder, settings.device
    known = is_index(folder)
    index = Index.open(folder) if known else None
    thumbnails = bool(run.flags.get("thumbnails"))
    inputs = [pair for part in recipe.references for pair in _inputs(part, thumbnails=thumbnails)]
    with progress(len(inputs), "Reading", run.output) as meter:
        snapshot = index.snapshot() if index else None
        planned = plan(inputs, snapshot, views=recipe.views, progress=meter.advance)
    _say_plan(run.output, planned, kind)
    if dry_run:
        _show_plan(run.output, planned, folder, exists=known)
        return None
    if snapshot is not None:
        _require_same_layers(recipe, snapshot)
    # An index keeps its encoder whatever a variable or rd.toml prefers; only a flag may object.
    asked = settings.encoder if settings.origin("encoder") == "--encoder" else ""
    its_own = snapshot.manifest.encoder.name if snapshot else ""
    objects = asked and (asked != its_own or settings.encoder_weights is not None)
    calibrate = not run.flags.get("no_calibration")
    new = snapshot is None or not any(snapshot.manifest.live_rows(label) for label in LABELS)
    if index is None or planned.work or objects:
        encoder = run.encoder(asked or recipe.encoder or its_own)
        index = index or Index.create(folder, encoder=encoder, layers=recipe.layers)
        planned = replace(planned, generators=_generators(recipe, planned), command=kind)
        review = review or Reviewer(device=device)
        review.calibrate = calibrate and not new  # a new one is calibrated once it has its projection
        report = _embed(run, index, planned, encoder, review)
    else:
        if planned.failures:
            index.note(planned.failures)
        report = AddReport(index.snapshot().manifest, 0, 0, planned.failures, purged=planned.purged)
    if new and report.added:
        report = _with_defaults(run, index, report, calibrate=calibrate)
    if report.changed and all(report.manifest.live_rows(label, "bank") for label in LABELS):
        Detector(index.snapshot(), device=device).open_banks()  # FAISS files of new shards, before a query
    measured = review.report if review else None
    return _finish(run, planned, report, measured, time.monotonic() - started)


def _with_defaults(run: Run, index: Index, report: AddReport, *, calibrate: bool) -> AddReport:
    """With the projection and the calibration that a new index gets, where there is enough for either."""
    plain = bool(run.flags.get("plain"))
    parts = ["the projection"] * (not plain) + ["the calibration, every source left out in turn"] * calibrate
    if parts:
        run.output.note(f"Fitting {' and '.join(parts)}")
    manifest = fit_default(index.store, plain=plain, calibrate=calibrate, device=run.settings.device)
    return replace(report, manifest=manifest) if manifest else report


def _require_same_layers(recipe: Recipe, snapshot: Snapshot) -> None:
    if recipe.layers not in (stored := snapshot.manifest.layers, ()):
        raise UsageError(
            f"index {snapshot.folder.name!r} stores layers {','.join(stored)}, not {','.join(recipe.layers)}",
            hint="All references of an index have the same layers: leave --layers out, or build another.",
        )


def _embed(run: Run, index: Index, planned: UpdatePlan, encoder: Encoder, review: Reviewer) -> AddReport:
    run.output.detail(f"Encoder {encoder.spec.name}, engine {encoder.spec.engine}")
    try:
        with progress(len(planned.work), "Embedding", run.output) as meter:
            return index.apply(planned, encoder=encoder, review=review, progress=meter.advance, **run.batches)
    finally:  # people see what was measured, above all where it was refused
        if review.report is not None:
            run.output.lines(regression_lines(review.report, budget=review.budget))


def _inputs(reference_set: ReferenceSet, *, thumbnails: bool) -> Iterator[tuple[ImageItem, Facts]]:
    kept = thumbnail if thumbnails else None
    if reference_set.columns is not None:
        for item, said in _listed(reference_set, reference_set.columns):
            yield replace(item, thumbnail=kept), _with_written(said, item)
        return
    column = "generator" if reference_set.facts.label == "fake" else "source"
    for item in scan([str(Path(path).absolute()) for path in reference_set.paths]):
        facts, folders = reference_set.facts, item.relative.split("/")[:-1]
        if not getattr(facts, column) and folders:
            facts = replace(facts, **{column: folders.pop(0)})  # type: ignore[arg-type]
        if reference_set.category_folders and folders:
            facts = replace(facts, category=folders[0])
        yield replace(item, thumbnail=kept), _with_written(facts, item)


def _with_written(facts: Facts, item: ImageItem) -> Facts:
    """With what is written beside the image, where a list says nothing else."""
    beside = item.written() if item.written else {}
    return replace(
        facts, caption=facts.caption or beside.get("caption", ""), url=facts.url or beside.get("url", "")
    )


def _listed(reference_set: ReferenceSet, columns: Columns) -> Iterator[tuple[ImageItem, Facts]]:
    """Images of lists; what is known of all is said of those that say nothing else."""
    known = asdict(reference_set.facts)
    for path in reference_set.paths:
        for item, facts in labelled_items(Path(path).absolute(), columns):
            lacking = {name: known[name] for name, value in asdict(facts).items() if not value}
            yield item, replace(facts, **lacking)


def _generators(recipe: Recipe, planned: UpdatePlan) -> dict[str, GeneratorFacts]:
    """What the recipe says about the generators of the fakes that are new."""
    described = {s.facts: s for s in recipe.references if s.family or s.released_at}
    found = {}
    for facts in {p.facts for p in planned.new if p.facts.label == "fake" and p.facts.generator}:
        for given, reference_set in described.items():
            own = {name: getattr(facts, name) for name in ("generator", "category", *WRITTEN)}
            if replace(given, **own) == facts:
                found[facts.generator] = GeneratorFacts(reference_set.family, reference_set.released_at)
    return found


def _say_plan(output: Output, planned: UpdatePlan, kind: str) -> None:
    """What was found, what has no name, and what is stored under another: that stays, whatever is given."""
    output.note(f"{'':20}  {planned.summary()}")
    for label, column in (("real", "source"), ("fake", "generator")):
        unnamed = sum(p.facts.label == label and not getattr(p.facts, column) for p in planned.new)
        if unnamed:
            way = f"--{column} or sub-folders" if kind == "bank add" else "sub-folders"
            output.note(f"{'':20}  no {column} for {number(unnamed, f'{label} image')}: {way} would name it")
    if named_otherwise := planned.named_otherwise:
        called = ", ".join(f"{n:,} as {name_of(name)}" for name, n in sorted(named_otherwise.items()))
        output.warning(
            f"{number(sum(named_otherwise.values()), 'image')} given under another name than stored "
            f"({called}): the stored name stays.\n"
            "  To rename them, rd bank remove them first, then add them again."
        )


def _show_plan(output: Output, planned: UpdatePlan, folder: Path, *, exists: bool) -> None:
    record = {
        "index": str(folder),
        "exists": exists,
        "new": {label: planned.count(label) for label in LABELS},
        "views_at_most": planned.views_at_most,
        "kept": planned.kept,
        "known": planned.known,
        "named_otherwise": dict(planned.named_otherwise),
        "repeated": planned.repeated,
        "purged": planned.purged,
        "failures": len(planned.failures),
    }
    verb = "Would add" if exists else "Would build"
    new = ", ".join(f"{planned.count(label):,} {label}" for label in LABELS)
    if planned.views_at_most:
        most = "up to " * ("crops" in planned.views)
        new += f", and {most}{number(planned.views_at_most, 'view')}, each as large as an image's vectors"
    output.record(record, text=f"{verb} {folder}: {new}. Nothing was written.")


def _finish(
    run: Run, planned: UpdatePlan, report: AddReport, measured: Regression | None, elapsed_s: float
) -> int | None:
    manifest = report.manifest
    run.warn(report.failures[:_SHOWN_FAILURES])
    if len(report.failures) > _SHOWN_FAILURES:
        rest = len(report.failures) - _SHOWN_FAILURES
        run.output.warning(f"and {rest:,} more, all listed in {run.folder / 'failures.jsonl'}")
    if report.purged:
        run.output.warning(f"refused {number(report.purged, 'image')}, purged from this index before")
    size_bytes = size_on_disk(run.folder)
    effects, counted = (
        run.effects(manifest) if report.changed else ({"threshold": None, "mistakes": None}, [])
    )
    apart = apart_in(run.store().snapshot(), planned.generators_named) if report.changed else []
    record: dict[str, Any] = {
        "index": str(run.folder),
        "generation": manifest.generation,
        "added": report.added,
        "views": report.views,
        "kept": planned.kept,
        "known": planned.known,
        "named_otherwise": dict(planned.named_otherwise),
        "repeated": planned.repeated,
        "purged": report.purged,
        "failures": len(report.failures),
        "notes": dict(sorted(report.notes.items())),
        "references": {label: manifest.live_rows(label) for label in LABELS},
        "generators": manifest.counts("fake"),
        "sources": manifest.counts("real"),
        "encoder": manifest.encoder.name,
        "size_bytes": size_bytes,
        "elapsed_s": round(elapsed_s, 3),
        "measured": measured.to_json() if measured else None,
        **effects,
        "apart": [one.to_json() for one in apart],
    }
    views = f" and {number(report.views, 'view')}" if report.views else ""
    added = f"{report.added:,}{views} added, {human_bytes(size_bytes)} on disk, {elapsed_s:.1f} s"
    if len(report.failures) == planned.n_read:
        added = f"none of {number(planned.n_read, 'image')} could be used: nothing was added"
    notes = ", ".join(f"{NOTES[note]} ({n:,})" for note, n in sorted(report.notes.items()))
    lines = [*_state(run.folder, manifest), f"  {added}", *[f"  {notes}"] * bool(notes)]
    lines += [*_fitted(report), *counted] if report.changed else []
    if apart:
        mend = f"Some {MENDED_BY} of them mend most of it: rd bank add DIR --label real --source NAME"
        lines += [f"  {line}" for line in (*apart_lines(apart), mend)]
    lines += _next_steps(run, report)
    run.output.record(record, text=lines, essential=["generation"])
    return SOME_FAILED if report.failures or report.purged else None


def _fitted(report: AddReport) -> Iterator[str]:
    """What was fitted along with an addition."""
    manifest = report.manifest
    if manifest.operation.kind == "fit" and manifest.projection != PLAIN:
        yield f"  searched through projection {manifest.projection}, fitted on them (rd index info)"
    elif report.fitted:
        yield f"  fitted anew: {', '.join(f'{f.kind} {f.name}' for f in report.fitted)}"


def _state(folder: Path, manifest: Manifest) -> Iterator[str]:
    counts = ", ".join(f"{manifest.live_rows(label):,} {label}" for label in LABELS)
    generators, sources = len(manifest.names("fake")), len(manifest.names("real"))
    names = f"{number(generators, 'generator')}, {number(sources, 'source')}"
    yield (
        f"{folder.name}, generation {manifest.generation}: {counts} references ({names})"
        f" · {manifest.encoder.name}"
    )
    if held := sum(manifest.live_rows(label, "calib") for label in LABELS):
        yield f"  {held:,} of them are set aside for calibration and do not vote"


def _next_steps(run: Run, report: AddReport) -> list[str]:
    manifest, index_flag = report.manifest, run.same_index
    empty = [label for label in LABELS if not manifest.live_rows(label, "bank")]
    if empty:
        return [f"  The {empty[0]} bank is empty. Fill it: rd bank add DIR --label {empty[0]}{index_flag}"]
    if not report.changed:
        return []
    fresh = not manifest.parent or manifest.operation.kind == "fit"
    if not fresh:
        return [f"  Undo: rd bank rollback {manifest.parent}{index_flag}"]
    waits = next(size for size in sizes(manifest) if size.what == PROJECTION)
    lines = _rates(Snapshot(run.folder, manifest), index_flag)
    if not waits.reached:
        counted = f"{waits.there:,} of {waits.needed:,} {waits.of}"
        lines.append(f"  No projection yet: {counted}; what else waits: rd doctor{index_flag}")
    return [*lines, f"  Ask: rd query photo.jpg{index_flag}"]


def _rates(snapshot: Snapshot, index_flag: str) -> list[str]:
    """What a new index can promise, or what is missing for it to promise anything."""
    found = calibrations(snapshot)
    if found:
        return [f"  {line}" for line in calibration_lines(found[0])]
    if why := too_few(snapshot):
        return [f"  Uncalibrated, verdicts are unknown: {why}"]
    return [f"  Uncalibrated: verdicts are unknown until rd fit calibration{index_flag}"]
