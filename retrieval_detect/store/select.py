"""Looking into a generation: which rows match, how many there are of what, what was done when."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_detect.errors import IndexCorrupt, UsageError
from retrieval_detect.names import WRITTEN, spelling
from retrieval_detect.store.manifest import Manifest
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.sweep import kept_manifests
from retrieval_detect.types import LABELS, ORIGINAL_VIEW, UNNAMED

_OWNERS = {"generator": "fake", "source": "real"}


def select_rows(
    snapshot: Snapshot, *, content_ids: Sequence[str] = (), row_ids: Sequence[int] = (), **columns: str
) -> list[int]:
    """Row ids of the live references that meet every condition given; views go with their original.

    ``content_ids`` : hex sha256 of the files; ``columns`` : values of label, generator, source, batch or
    contributor, in any spelling (``names.spelling``), where an empty generator means fakes without one,
    an empty source photographs without one. Raises ``UsageError`` without a condition, for a digest that is
    none, and for images or rows that are not there.
    """
    if not (content_ids or row_ids or columns):
        raise UsageError("nothing says which references", hint="Give --among KEY=VALUE, --id or --row.")
    table = snapshot.scan(list({"row_id", "label", "content_id", "view", *columns}))
    keep = np.ones(len(table), dtype=bool)
    for name, value in columns.items():
        keep &= _is_called(table[name], value) & could_have(table, name)
    if content_ids or row_ids:
        stored = table["row_id"].to_numpy()
        if missing := sorted(set(row_ids) - set(stored.tolist())):
            raise UsageError(
                f"there is no reference with row id {missing[0]}", hint="See: rd bank list --by row"
            )
        keep &= np.isin(stored, [*_rows_of_images(snapshot, content_ids), *row_ids])
    images = table["content_id"].filter(pa.array(keep)).combine_chunks()
    chosen = pc.and_(_originals(table), pc.is_in(table["content_id"], value_set=images))
    return sorted(table["row_id"].filter(chosen).to_pylist())


def _is_called(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Which rows have a name, however it is spelt."""
    texts = column.cast(pa.string())
    spelt = [text for text in texts.unique().to_pylist() if spelling(text) == spelling(name)]
    found: np.ndarray = pc.is_in(texts, value_set=pa.array(spelt, pa.string())).to_numpy()
    return found


def _originals(table: pa.Table) -> pa.ChunkedArray:
    return pc.equal(table["view"].cast(pa.string()), ORIGINAL_VIEW)


def could_have(table: pa.Table, column: str) -> np.ndarray:
    """Rows that have a value in ``column``, or lack one: a photograph does not lack a generator."""
    owner = _OWNERS.get(column)
    if owner is None:
        return np.ones(len(table), dtype=bool)
    named = pc.not_equal(table[column].cast(pa.string()), UNNAMED).to_numpy()
    owned: np.ndarray = named | pc.equal(table["label"].cast(pa.string()), owner).to_numpy()
    return owned


def _rows_of_images(snapshot: Snapshot, digests: Sequence[str]) -> list[int]:
    for digest in digests:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise UsageError(
                f"{digest!r} is not a sha256", hint="Give all 64 hexadecimal digits: sha256sum FILE"
            )
    hits = snapshot.find([bytes.fromhex(digest) for digest in digests])
    found = {index for index, *_ in hits}
    if missing := [digest for number, digest in enumerate(digests) if number not in found]:
        raise UsageError(f"{len(missing)} of these images are not in the index, the first is {missing[0]}")
    return [row_id for _, row_id, _, _ in hits]


def count_by(snapshot: Snapshot, column: str | None) -> list[dict[str, Any]]:
    """Live references by a column, or (``None``) by generator and source, as rows of a table.

    Only by ``view`` do views count.
    """
    if column is None:
        return [
            {
                "label": s.label,
                "name": s.name,
                "bank": s.bank,
                "calib": s.calib,
                "references": s.bank + s.calib,
            }
            for s in snapshot.manifest.strata
            if s.bank + s.calib
        ]
    table = snapshot.scan(sorted({column, "label", "split", "view"}))
    table = table if column == "view" else table.filter(_originals(table))
    table = table.filter(pa.array(could_have(table, column)))
    values = table[column].cast(pa.string()).to_pylist()
    splits = table["split"].cast(pa.string()).to_pylist()
    rows: dict[str, dict[str, Any]] = {}
    for value, split in zip(values, splits, strict=True):
        row = rows.setdefault(value, {column: value, "bank": 0, "calib": 0, "references": 0})
        row[split] += 1
        row["references"] += 1
    return [rows[value] for value in sorted(rows)]


def list_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every live row, views too, in order of its row id."""
    columns = ("row_id", "label", "split", "generator", "source", "category", "view", "uri", "content_id")
    rows: list[dict[str, Any]] = snapshot.scan([*columns, "added_at", *WRITTEN]).sort_by("row_id").to_pylist()
    for row in rows:
        row["content_id"] = row["content_id"].hex()
        row["added_at"] = row["added_at"].strftime("%Y-%m-%dT%H:%M:%SZ")
    return rows


def kept_history(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The generations that can be gone back to, oldest first.

    ``changes`` : what each has that its parent had not, and the other way round; ``None`` where the
    parent is kept no more.
    """
    manifests = list(kept_manifests(snapshot.folder, snapshot.manifest))
    return [_history_row(then, now) for then, now in zip([None, *manifests], manifests, strict=False)]


def _history_row(then: Manifest | None, manifest: Manifest) -> dict[str, Any]:
    operation = manifest.operation
    return {
        "generation": manifest.generation,
        "created_at": manifest.created_at,
        "operation": str(operation.detail.get("command", operation.kind)),
        "added": operation.added,
        "removed": operation.removed,
        "failed": operation.failed,
        "references": sum(manifest.live_rows(label) for label in LABELS),
        "changes": _changes(then, manifest),
        "detail": dict(operation.detail),
    }


def _changes(then: Manifest | None, now: Manifest) -> dict[str, Any] | None:
    if now.parent is not None and (then is None or then.generation != now.parent):
        return None
    changes: dict[str, Any] = {}
    for label in LABELS:
        before, after = then.counts(label) if then else {}, now.counts(label)
        moved = {name: after.get(name, 0) - before.get(name, 0) for name in sorted({*before, *after})}
        changes[label] = {name: n for name, n in moved.items() if n}
    old, new = _fitted(then), _fitted(now)
    changes["fitted"] = sorted(new.keys() - old.keys())
    changes["fitted_anew"] = sorted(name for name in new.keys() & old.keys() if new[name] != old[name])
    changes["dropped"] = sorted(old.keys() - new.keys())
    changes["mistakes"] = now.n_mistakes - (then.n_mistakes if then else 0)
    changes["projection"] = now.projection if then and then.projection != now.projection else None
    return changes


def _fitted(manifest: Manifest | None) -> dict[str, str]:
    return {f"{record.kind} {record.name}": record.digest for record in (manifest.fitted if manifest else ())}


def contributors(snapshot: Snapshot) -> dict[int, list[str]]:
    """Who gave the references that came with a generation, by its number, of those that can be gone back to.

    Each is read as it was then: what came is named whether it is there still or not, unless it was purged.
    Generations that cannot be read any more are left out.
    """
    manifests = list(kept_manifests(snapshot.folder, snapshot.manifest))
    found = {}
    for then, now in zip([None, *manifests], manifests, strict=False):
        if now.operation.added and now.parent == (then.generation if then else None):
            with suppress(IndexCorrupt):
                table = Snapshot(snapshot.folder, now).scan(["row_id", "contributor"])
                came = pc.greater_equal(table["row_id"], then.next_row_id if then else 0)
                names = table["contributor"].cast(pa.string()).filter(came).unique().to_pylist()
                found[now.generation] = sorted(name for name in names if name)
    return found


def size_on_disk(folder: Path) -> int:
    """Bytes of all files of an index."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # swept since it was listed
            total += path.stat().st_size if path.is_file() else 0
    return total
