"""``rd index``: what is there, and whether it is whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.commands.index_fitted import fitted
from retrieval_detect.cli.commands.index_map import map_
from retrieval_detect.cli.commands.index_share import export, import_
from retrieval_detect.cli.commands.index_tune import search_line, tune
from retrieval_detect.cli.output import Column, human_bytes
from retrieval_detect.cli.params import Group, Run, offline_option
from retrieval_detect.cli.settable import WEIGHTS, set_option
from retrieval_detect.cli.settings import index_home
from retrieval_detect.errors import RdError
from retrieval_detect.report.words import counted, number, risk_lines
from retrieval_detect.store.indexes import index_names
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.store.manifest import FittedKind
    from retrieval_detect.store.snapshot import Snapshot

_RATES = (0.1, 0.05, 0.01, 0.001, 0.0001)
"""Of false alarms, for a picture and for a queue of millions; those that the counts can show are told."""


@click.group(
    "index", cls=Group, examples="rd index info --all\nrd index info\nrd index verify --index default"
)
def command() -> None:
    """Describe, check and share indexes."""


command.add_command(fitted)
command.add_command(tune)
command.add_command(export)
command.add_command(import_)
command.add_command(map_)


@command.command("info", examples="rd index info\nrd index info --index trial --json\nrd index info --all")
@click.option("--all", "every", is_flag=True, help="One line for each index in the home instead.")
@click.pass_obj
def info(run: Run, every: bool) -> None:
    """Describe one index: encoder, banks, how it was made."""
    if every:
        _list(run)
        return
    from retrieval_detect.ask.methods import calibrations

    snapshot = run.snapshot()
    found = next(iter(calibrations(snapshot)), None)
    record = _info(snapshot) | {"new_sources": found and _risk(found)}
    lines = [f"{name:<12} {value}" for name, value in _info_pairs(record)]
    run.output.record(record, text=[*lines, *(risk_lines(found) if found else ())])


def _risk(found: Calibration) -> dict[str, Any]:
    """What photographs of new sources, and images of new generators, come out as; see ``risk_lines``."""
    possible = [rate for rate in _RATES if not math.isinf(found.threshold(rate))]
    rates = {str(rate): found.shares_flagged(rate) for rate in possible}
    return {
        "why_not": found.new.why or None,
        "smallest_rate": {"known": 1 / (found.conformal.n_real() + 1), "new": found.new.smallest},
        "sources": {
            name: {
                "photographs": len(one.scores),
                "taken_for": one.taken_for,
                "nearest": list(one.nearest),
                "flagged": {rate: shares[name][1] for rate, shares in rates.items()},
                "flagged_known": {rate: _number(shares[name][0]) for rate, shares in rates.items()},
            }
            for name, one in found.new.sources.items()
        },
        "generators": {
            name: {"images": len(one.scores), "real_like": one.real_like, "taken_for": one.taken_for}
            for name, one in found.new.generators.items()
        },
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _list(run: Run) -> None:
    """One line for each index in the home."""
    from retrieval_detect.store.manifest import read_current
    from retrieval_detect.store.select import size_on_disk

    home = index_home(run.settings)
    rows = []
    for name in index_names(home):
        row: dict[str, Any] = {"name": name, "size_bytes": size_on_disk(home / name)}
        row |= dict.fromkeys(("encoder", "real", "fake", "generators", "generation", "error"))
        try:
            manifest = read_current(home / name)
        except RdError as error:
            row["error"] = error.message
            run.output.warning(f"index {name}: {error.message}")
        else:
            row |= {"encoder": manifest.encoder.name, "generation": manifest.generation}
            row |= {label: manifest.live_rows(label) for label in LABELS}
            row["generators"] = len(manifest.names("fake"))
        rows.append(row)
    if not rows:
        run.output.note(f"There is no index in {home}. Build one: rd build-index --real DIR --fake DIR")
    shown = ("name", "encoder", "real", "fake", "generators", "generation")
    run.output.table(rows, [*shown, Column("size_bytes", "size", human_bytes)])


def _info(snapshot: Snapshot) -> dict[str, Any]:
    from retrieval_detect.store.failures import read_failures
    from retrieval_detect.store.rows import PARQUET
    from retrieval_detect.store.select import size_on_disk
    from retrieval_detect.teach.tune import describe

    manifest = snapshot.manifest
    spec = manifest.encoder
    return {
        "name": snapshot.folder.resolve().name,
        "path": str(snapshot.folder),
        "generation": manifest.generation,
        "created_at": manifest.created_at,
        "format_version": manifest.version,
        "encoder": spec.name,
        "is_clip": spec.is_clip,
        "encoder_note": spec.note,
        "engine": spec.engine,
        "fingerprint": spec.fingerprint,
        "weights_sha256": spec.weights_sha256,
        "layers": {layer: spec.layers[layer] for layer in manifest.layers},
        "projection": manifest.projection,
        "search": describe(snapshot),
        "references": {
            label: {"bank": manifest.live_rows(label, "bank"), "calib": manifest.live_rows(label, "calib")}
            for label in LABELS
        },
        "generators": manifest.counts("fake"),
        "sources": manifest.counts("real"),
        "removed": len(snapshot.dead),
        "purged": len(manifest.purge.digests),
        "mistakes": manifest.n_mistakes,
        "failures": len(read_failures(snapshot.folder)),
        "projections": _fitted(snapshot, "projection"),
        "heads": _fitted(snapshot, "head"),
        "calibrations": {name: {"stale": f["stale"]} for name, f in _fitted(snapshot, "calibration").items()},
        "shards": len(manifest.shards),
        "shards_of_format_1": sum(PARQUET in shard.files for shard in manifest.shards),
        "size_bytes": size_on_disk(snapshot.folder),
        "tools": dict(manifest.tools),
    }


def _fitted(snapshot: Snapshot, kind: FittedKind) -> dict[str, dict[str, Any]]:
    """What was fitted, of which kind it is, and whether on other references than there are now."""
    stale = snapshot.stale()
    fitted = (f for f in snapshot.manifest.fitted if f.kind == kind)
    return {f.name: {"kind": f.method, "stale": f in stale} for f in fitted}


def _named(fitted: dict[str, dict[str, Any]]) -> str:
    notes = {
        name: ", ".join([*([facts["kind"]] if "kind" in facts else []), *["stale"] * facts["stale"]])
        for name, facts in fitted.items()
    }
    return ", ".join(f"{name} ({note})" if note else name for name, note in notes.items())


def _info_pairs(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    version, shards = record["format_version"], record["shards"]
    old = record["shards_of_format_1"] if version > 1 else 0
    kind = record["encoder_note"] or ("CLIP" if record["is_clip"] else "not CLIP")
    others = {"identity": {"stale": False}} | record["projections"]
    banks = [
        f"{counts['bank']:,} {label} ({counts['calib']:,} more set aside for calibration)"
        for label, counts in record["references"].items()
    ]
    yield "index", f"{record['name']}, generation {record['generation']} of {record['created_at']}"
    yield "path", record["path"]
    yield "format", f"{version}" + (f", {old} of {shards} shards still of 1" if old else "")
    yield "encoder", f"{record['encoder']} ({kind})"
    yield "engine", record["engine"]
    yield "fingerprint", record["fingerprint"][:16]
    yield "layers", ", ".join(f"{layer} ({d})" for layer, d in record["layers"].items())
    yield "banks", ", ".join(banks)
    yield "generators", counted(record["generators"])
    yield "sources", counted(record["sources"])
    yield "removed", f"{record['removed']:,} (purged for good: {record['purged']:,})"
    yield "failures", f"{number(record['failures'], 'input')} could not be used"
    if record["mistakes"]:
        yield "mistakes", f"{record['mistakes']:,} kept (rd bank list --by mistake)"
    yield "projection", record["projection"] + (f", of {_named(others)}" if record["projections"] else "")
    yield "search", search_line(record["search"])
    yield "heads", _named(record["heads"]) or "none"
    unsure = "none: scores say which bank is nearer, not how sure that is"
    yield "calibration", _named(record["calibrations"]) or unsure
    yield "size", f"{human_bytes(record['size_bytes'])} in {number(shards, 'shard')}"


@command.command("verify", examples="rd index verify\nrd index verify --sample 32")
@click.option(
    "--sample", metavar="N", type=click.IntRange(0), default=0, help="Also embed N references again."
)
@offline_option
@set_option(WEIGHTS)
@click.pass_obj
def verify(run: Run, sample: int) -> int | None:
    """Reread every byte of an index and check that FAISS agrees with the store."""
    from retrieval_detect.review.whole import verify as examine
    from retrieval_detect.store.manifest import read_current
    from retrieval_detect.store.renaming import twins
    from retrieval_detect.store.snapshot import Snapshot

    folder, settings = run.folder, run.settings
    snapshot = Snapshot(folder, read_current(folder))
    found = examine(snapshot, sample=sample, weights=settings.encoder_weights, offline=settings.offline)
    names = {} if found.problems else twins(snapshot)
    n_files = sum(1 for _ in snapshot.files())
    record = {
        "index": str(folder),
        "generation": snapshot.manifest.generation,
        "format_version": snapshot.manifest.version,
        "files": n_files,
        "sampled": found.sampled,
        "compared": found.compared,
        "problems": list(found.problems),
        "left_out": list(found.left_out),
        "names": names,
    }
    if found.problems:
        go_on = (
            "  Go back to a whole generation (rd bank list --by generation), restore the files from a copy, "
            "or rebuild."
        )
        problems = [f"  {problem}" for problem in found.problems]
        said = f"{folder}: {number(len(problems), 'problem')}"
        run.output.record(record, text=[said, *problems, go_on])
        return 1
    manifest = snapshot.manifest
    lines = [
        f"{folder}: whole ({n_files} files, generation {manifest.generation}, format {manifest.version})"
    ]
    if sample:
        images = number(found.sampled, "sampled image")
        lines.append(f"  {found.compared} of {images} embedded again: they agree")
    if found.compared < found.sampled:
        lines.append(f"  {found.sampled - found.compared} could not be: their files are gone or have changed")
    lines += [f"  {what}" for what in found.left_out]
    lines += _misspelt(names)
    run.output.record(record, text=lines)
    return None


def _misspelt(names: dict[str, list[list[str]]]) -> Iterator[str]:
    """What is one name and spelt in several ways, or in one that rd would not give it."""
    for column, alike in names.items():
        for spellings in alike:
            ways = f"in {len(spellings)} ways" if len(spellings) > 1 else "unusually"
            yield f"  {column} is spelt {ways}: {', '.join(map(ascii, spellings))}"
    if names:
        yield "  Names that look alike are not one until they are spelt alike: rd bank rename"
