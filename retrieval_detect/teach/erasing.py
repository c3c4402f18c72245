"""Purging: what was removed is erased for good, and its names in whatever was fitted on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.calibrations import calibration_name
from retrieval_detect.ask.fitted import CALIBRATION, COVERAGE, REGIONS, Kind, Rates, files_of, read
from retrieval_detect.ask.methods import Methods, rates
from retrieval_detect.ask.regions import CropMethods
from retrieval_detect.heads.base import unnamed
from retrieval_detect.scoring.calibration import Calibration
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.writer import with_records
from retrieval_detect.types import UNNAMED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.store.manifest import FittedRecord, Manifest
    from retrieval_detect.store.store import Store
    from retrieval_detect.store.writer import Writer

    Float64 = NDArray[np.float64]


def purge(store: Store) -> Manifest:
    """Erase removed references in every generation; see ``Writer.compact``.

    Heads, calibrations and coverage that were fitted on them go on as they were, and as stale as they were,
    but name no generator and no source that no reference has.
    """
    with store.writer() as writer:
        return writer.compact(purge=True, review=partial(_nameless, writer))


def _nameless(writer: Writer, new: Snapshot) -> list[FittedRecord]:
    heads = list(_heads(writer, new))
    fitted = with_records(new.manifest.fitted, heads) if heads else new.manifest.fitted
    after = Snapshot(new.folder, replace(new.manifest, fitted=fitted))
    bare = partial(_without_names, manifest=new.manifest)
    calibrations = _rates(writer, CALIBRATION, (Methods(new), Methods(after)), bare)
    regions = _rates(writer, REGIONS, (CropMethods(new), CropMethods(after)), lambda found: found)
    return [*heads, *calibrations, *regions, *_coverage(writer, new)]


def _heads(writer: Writer, new: Snapshot) -> Iterator[FittedRecord]:
    names = {*new.manifest.names("fake"), *new.manifest.names("real")}
    for record in new.manifest.fitted:
        if record.kind == "head":
            files = files_of(new, record)
            bare = unnamed(files["json"], names)
            if bare != files["json"]:
                yield _again(writer, record, files | {"json": bare})


def _rates(
    writer: Writer, kind: Kind[Rates], methods: tuple[Methods, Methods], nameless: Callable[[Rates], Rates]
) -> Iterator[FittedRecord]:
    """Without names that are gone, and of the scores that a head gives under its new digest."""
    before, after = methods
    new, renamed = before.snapshot, before.snapshot.manifest.fitted != after.snapshot.manifest.fitted
    for found in rates(new, kind):
        record = new.fitted(kind.name, calibration_name(found.method, found.projection))
        bare = nameless(found)
        if renamed and found.scorer == before.scorer(found.question):
            bare = replace(bare, scorer=after.scorer(found.question))
        if record is not None and bare.to_json() != found.to_json():
            yield _again(writer, record, kind.to_files(bare, new.manifest.encoder))


def _coverage(writer: Writer, new: Snapshot) -> Iterator[FittedRecord]:
    sources = new.manifest.names("real")
    for record in new.manifest.fitted:
        found = read(new, COVERAGE, record.name) if record.kind == COVERAGE.name else None
        if found is not None and not set(found.left_out) <= set(sources):
            bare = replace(found, left_out=_pooled(found.left_out, sources))
            yield _again(writer, record, COVERAGE.to_files(bare, new.manifest.encoder))


def _without_names(found: Calibration, manifest: Manifest) -> Calibration:
    generators, sources = manifest.names("fake"), manifest.names("real")
    return replace(
        found,
        conformal=replace(
            found.conformal,
            real=_pooled(found.conformal.real, sources),
            fake=_pooled(found.conformal.fake, generators),
        ),
        generators={name: scores for name, scores in found.generators.items() if name in generators},
        new=found.new.without_names(sources=sources, generators=generators),
    )


def _pooled(scores: Mapping[str, Float64], names: Collection[str]) -> dict[str, Float64]:
    """Scores by name; those of other names together, without one."""
    parts: dict[str, list[Float64]] = defaultdict(list)
    for name, values in scores.items():
        parts[name if name in names else UNNAMED].append(values)
    return {name: np.sort(np.concatenate(parts[name])) for name in sorted(parts)}


def _again(writer: Writer, record: FittedRecord, files: Mapping[str, bytes]) -> FittedRecord:
    """The same thing in other files."""
    made = writer.write_fitted(
        record.kind, record.name, method=record.method, files=files, rows=(record.rows_digest, record.strata)
    )
    return replace(made, until=record.until, n_rows=record.n_rows)
