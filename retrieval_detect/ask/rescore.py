"""Stored embeddings judged again: files of ``rd embed`` → verdicts, streamed or as Parquet shards.

Images were embedded once; whenever references were added or removed, their verdicts follow from the
vectors alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval_detect.ask.banks import Asked
from retrieval_detect.ask.coverage import covered, similarities
from retrieval_detect.ask.detector import Detector
from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.files import TEMPORARY, DigestCache, sha256_bytes, write_atomically
from retrieval_detect.images.passed import left_out
from retrieval_detect.scoring.answers import UNCALIBRATED
from retrieval_detect.scoring.conformal import traits_of
from retrieval_detect.scoring.vote import nobody_left
from retrieval_detect.store.exchange import EmbeddingsFile
from retrieval_detect.store.ledger import Finished, Ledger
from retrieval_detect.store.manifest import FileRecord
from retrieval_detect.store.schema import CONTENT_ID_BYTES
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.sweep import kept_generations, kept_snapshot
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.ask.methods import Answers
    from retrieval_detect.scoring.answers import Answer
    from retrieval_detect.store.exchange import EmbeddedRows
    from retrieval_detect.types import Int64
    from retrieval_detect.verdicts import Question

ROWS_A_SHARD = 65_536
_ROWS_AT_ONCE = 2048
"""Enough for the search to run at its peak; some tens of MB of neighbours."""
STATE = "state.jsonl"
_LOCK = ".lock"
_VERSION = 2

NUMBERS = (
    *("score", "p_real", "p_new", "p_fake", "p_typical", "log10_lr"),
    *("nearest_fake", "nearest_real", "coverage"),
)
SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.binary(CONTENT_ID_BYTES)),
        pa.field("uri", pa.string(), nullable=False),
        *(pa.field(name, pa.string()) for name in ("verdict", "reason", "reach")),
        *(pa.field(name, pa.float64()) for name in NUMBERS),
        pa.field("top_generator", pa.string()),
        pa.field("error", pa.string()),
    ]
)
"""A row an image, in the order of the input. What is not known is null: all but ``error`` where it failed,
p-values and ratios without a calibration. ``score`` : positive = fake. ``coverage`` : see
``Verdict.coverage``, the similarity. ``top_generator`` : of the nearest
fakes, by share of the density, or of those that the head asked tells apart; the true tool may be absent."""
_TEXTS = ("verdict", "reason", "reach", "top_generator", "error")
BEFORE = [pa.field("verdict_before", pa.string()), pa.field("score_before", pa.float64())]
"""Beside them, where another generation is compared with."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of some rows: how many were asked about, failed and are shown, and their verdicts."""

    rows: int = 0
    failed: int = 0
    shown: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.rows + other.rows,
            self.failed + other.failed,
            self.shown + other.shown,
            self.verdicts + other.verdicts,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        counts = {"rows": self.rows, "failed": self.failed, "shown": self.shown}
        return {**counts, "verdicts": dict(self.verdicts)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tally:
        """Inverse of ``to_json``."""
        return cls(data["rows"], data["failed"], data["shown"], Counter(data["verdicts"]))


@dataclass(frozen=True, slots=True)
class Piece:
    """What becomes one shard of verdicts: consecutive row groups of one file."""

    file: EmbeddingsFile
    name: str
    row_groups: tuple[int, ...]


class Rescoring:
    """One question about stored embeddings, to one generation of an index.

    ``source`` : an embeddings file, or a folder of them. ``since`` : a kept generation; only verdicts that
    differ from those it gives to the same question are shown. All files are checked here; see
    ``EmbeddingsFile`` and ``Detector.checked`` for what is raised.
    """

    def __init__(
        self,
        detector: Detector,
        question: Question,
        source: Path,
        *,
        since: int | None = None,
        device: str = "auto",
    ) -> None:
        before = None if since is None else _detector_of(detector.snapshot, since, device=device)
        self._judge = _Judge(detector, question)
        self._before = None if before is None else _Judge(before, question)
        judges = [self._judge, self._before] if self._before else [self._judge]
        self._layers = tuple(dict.fromkeys(layer for judge in judges for layer in judge.layers))
        self.files = [EmbeddingsFile(path) for path in _paths(source)]
        for file in self.files:
            file.require(detector.snapshot.manifest.encoder, self._layers)
        self._about: dict[str, Any] = {
            "version": _VERSION,
            "question": asdict(self._judge.question),
            "index": _identity(detector),
            "since": None if before is None else _identity(before),
        }

    @property
    def generation(self) -> int:
        """The one that judges."""
        return int(self._about["index"]["generation"])

    @property
    def would_flag(self) -> tuple[float | None, float | None]:
        """See ``Calibration.would_flag``; nothing is known without a calibration."""
        found = self._judge.calibration
        return found.would_flag(self._judge.question) if found else (None, None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was fitted on other references than there are now."""
        return self._judge.warnings

    @property
    def n_rows(self) -> int:
        """Images in all files."""
        return sum(sum(file.row_groups) for file in self.files)

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the tables; the index, its generation and the question are in the metadata."""
        fields = [*SCHEMA, *(BEFORE if self._before else [])]
        return pa.schema(fields, metadata={"rescored": json.dumps(self._about, sort_keys=True)})

    def pieces(self) -> Iterator[Piece]:
        """All there is to do, in order."""
        for file in self.files:
            for number, groups in enumerate(_grouped(file.row_groups)):
                yield Piece(file, f"{file.path.stem}.{number:05d}.parquet", groups)

    def tables(self, piece: Piece) -> Iterator[tuple[pa.Table, Tally]]:
        """Verdicts of some thousand rows at a time, with what came of them."""
        for rows in piece.file.rows(piece.row_groups, self._layers, at_once=_ROWS_AT_ONCE):
            table = self._judge.verdicts(rows)
            failed = len(table) - table["error"].null_count
            if self._before:
                table = _changed(table, self._before.verdicts(rows))
            counts = pc.value_counts(table["verdict"].drop_null()).to_pylist()
            verdicts = Counter({count["values"]: count["counts"] for count in counts})
            tally = Tally(len(rows.phash), failed, len(table), verdicts)
            yield table.cast(self.schema), tally

    def key(self, piece: Piece, digests: DigestCache) -> str:
        """Digest of all that a shard of verdicts follows from: index, question, and the rows."""
        about = self._about | {"input": digests.sha256(piece.file.path), "row_groups": piece.row_groups}
        return sha256_bytes(json.dumps(about, sort_keys=True).encode())


def write_verdicts(rescoring: Rescoring, out: Path, *, progress: Callable[[int], None]) -> tuple[Tally, int]:
    """Write a folder of Parquet shards; what is finished there already, of the same, is kept.

    Returns what came of all rows, and how many shards were there before. Each shard appears whole; what the
    folder holds of another question, generation or input is replaced. ``progress`` : told rows done.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not {STATE, _LOCK} & {path.name for path in out.iterdir()} and any(out.iterdir()):
        raise UsageError(f"{out} holds other things than verdicts", hint="Give a new or empty folder.")
    try:
        with filelock.FileLock(out / _LOCK, timeout=0):
            return _write_all(rescoring, out, progress)
    except filelock.Timeout:
        raise UsageError(f"another rd is writing to {out}", hint="Wait, or give another folder.") from None


def _write_all(rescoring: Rescoring, out: Path, progress: Callable[[int], None]) -> tuple[Tally, int]:
    for leftover in out.glob(f"{TEMPORARY}*"):
        leftover.unlink()
    digests, ledger = DigestCache.for_user(), Ledger(out / STATE)
    keys = {piece.name: rescoring.key(piece, digests) for piece in rescoring.pieces()}
    ledger.keep(keys, digests)
    digests.save()
    total, n_kept = Tally(), len(ledger)
    for piece in rescoring.pieces():
        if known := ledger.finished(piece.name):
            tally = Tally.from_json(known.facts)
            progress(tally.rows)
        else:
            tally = _write_piece(rescoring, piece, out / piece.name, progress)
            record = FileRecord.of(out / piece.name)
            ledger.add(Finished(piece.name, keys[piece.name], record, tally.to_json()))
        total += tally
    return total, n_kept


def _write_piece(rescoring: Rescoring, piece: Piece, path: Path, progress: Callable[[int], None]) -> Tally:
    total = Tally()

    def write(file: BinaryIO) -> None:
        nonlocal total
        waiting: list[pa.Table] = []
        with pq.ParquetWriter(file, rescoring.schema, compression="zstd") as writer:
            for table, tally in rescoring.tables(piece):
                total += tally
                waiting.append(table)
                if sum(map(len, waiting)) >= ROWS_A_SHARD:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting.clear()
                progress(tally.rows)
            if waiting:
                writer.write_table(pa.concat_tables(waiting))

    write_atomically(path, write)
    return total


# ---------------------------------------------------------------- judging


class _Judge:
    """One generation, asked one question about blocks of rows."""

    def __init__(self, detector: Detector, question: Question) -> None:
        self.question = detector.checked(question)
        self.layers = detector.methods.layers(self.question)
        self.calibration = detector.calibration(self.question)
        found = self.calibration
        stale = [detector.stale_note(found)] if found and detector.is_stale(found) else []
        self.warnings = (*detector.stale_parts(self.question), *stale)
        self._methods = detector.methods

    def verdicts(self, rows: EmbeddedRows) -> pa.Table:
        """A table of ``SCHEMA``, a row for each of ``rows``."""
        n = len(rows.phash)
        numbers = {name: np.full(n, np.nan) for name in NUMBERS}
        texts = {name: np.full(n, None, object) for name in _TEXTS}
        for i, what in rows.wrong.items():
            texts["error"][i] = f"bad-vector: {what}"
        usable = np.setdiff1d(np.arange(n), list(rows.wrong))
        asked = Asked(rows.content_ids.to_pylist(), rows.phash, rows.vectors)
        if rows.wrong:
            asked = asked.take(usable)
        parts = self._methods.ask_all(asked, self.question) if usable.size else ()
        for positions, answers in parts:
            at = usable[positions]
            if isinstance(answers, VectorError):
                texts["error"][at] = f"bad-vector: {answers.message}"
                continue
            unheard = [f"no-voters: {nobody_left(label).message}" for label in answers.missing]
            texts["error"][at[~answers.voted]] = unheard
            at = at[answers.voted]  # of the others, nothing more is known
            said = self._judged(answers, rows, at, numbers)
            for name in ("verdict", "reason", "reach"):
                texts[name][at] = [getattr(one, name) for one in said]
            texts["top_generator"][at] = self._methods.top_generators(answers, self.question)
        columns = {"content_id": rows.content_ids, "uri": rows.uris, **texts}
        columns |= {name: pa.array(values, from_pandas=True) for name, values in numbers.items()}
        return pa.table([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)

    def _judged(
        self, answers: Answers, rows: EmbeddedRows, at: Int64, numbers: dict[str, Any]
    ) -> list[Answer]:
        """What is said of rows ``at``; what else is known of them goes to ``numbers``."""
        found = {"score": answers.scores}
        found |= {f"nearest_{label}": answers.voters[label].similarities[:, 0] for label in LABELS}
        found["coverage"] = similarities(answers)
        if self.calibration is None:
            said = [UNCALIBRATED] * len(answers.scores)
        else:
            sizes = zip(rows.width[at].tolist(), rows.height[at].tolist(), strict=True)
            traits = traits_of([rows.formats[i] for i in at], sizes)
            near, asked = covered(self._methods, answers), (answers.scores, answers.typical, self.question)
            judged = self.calibration.judge(*asked, traits=traits, covered=near)
            found |= {"p_real": judged.p_real, "p_fake": judged.p_fake, "p_typical": judged.p_typical}
            found |= {"p_new": judged.p_new, "log10_lr": judged.log10_lr}
            said = list(judged.answers)
        for name, values in found.items():
            numbers[name][at] = values
        return said


def _changed(now: pa.Table, before: pa.Table) -> pa.Table:
    """The rows of ``now`` whose verdict differs, with what it was; uncalibrated, whose nearer bank does."""
    said = [pc.fill_null(table["verdict"], "") for table in (now, before)]
    nearer = [pc.fill_null(pc.greater(table["score"], 0), False) for table in (now, before)]
    uncalibrated = [
        pc.fill_null(pc.equal(table["reason"], UNCALIBRATED.reason), False) for table in (now, before)
    ]
    turned = pc.and_(pc.and_(*uncalibrated), pc.not_equal(*nearer))
    for name in ("verdict", "score"):
        now = now.append_column(f"{name}_before", before[name])
    return now.filter(pc.or_(pc.not_equal(*said), turned))


# ---------------------------------------------------------------- what is asked of whom


def _paths(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = sorted(path for path in source.glob("*.parquet") if not left_out(path.name))
    if not found:
        raise UsageError(f"there is no .parquet file in {source}", hint="Write some: rd embed DIR --out FILE")
    return found


def _grouped(row_groups: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Row groups of a file, so many together that they have some ``ROWS_A_SHARD`` rows."""
    groups: list[int] = []
    n = 0
    for number, rows in enumerate(row_groups):
        groups.append(number)
        n += rows
        if n >= ROWS_A_SHARD:
            yield tuple(groups)
            groups, n = [], 0
    if groups:
        yield tuple(groups)


def _identity(detector: Detector) -> dict[str, Any]:
    """Which generation of which index: the digest tells those of other indexes apart."""
    manifest = json.dumps(detector.snapshot.manifest.to_json(), sort_keys=True)
    reference = detector.reference
    facts = {"name": reference.name, "generation": reference.generation, "fingerprint": reference.fingerprint}
    return facts | {"manifest": sha256_bytes(manifest.encode())}


def _detector_of(snapshot: Snapshot, generation: int, *, device: str) -> Detector:
    """A detector over an older generation of the same index."""
    now = snapshot.manifest.generation
    if generation >= now:
        raise UsageError(
            f"verdicts are compared with an older generation: {generation} is not, {now} is in force"
        )
    kept = kept_generations(snapshot.folder, snapshot.manifest)
    if generation not in kept:
        raise UsageError(
            f"generation {generation} of index {snapshot.folder.name!r} is not there any more",
            hint=f"There are {', '.join(map(str, kept[:-1])) or 'none'} (rd bank list --by generation). "
            "Without --changed-since all verdicts are written.",
        )
    before = kept_snapshot(snapshot.folder, generation)
    for label in LABELS:
        if not before.manifest.live_rows(label, "bank"):
            raise UsageError(f"generation {generation} gave no verdicts: its {label} bank was empty")
    return Detector(before, device=device)
