"""Manifests: one JSON file a generation, and CURRENT, whose rename is the commit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

from retrieval_detect.errors import FormatUnsupported, IndexCorrupt, IndexNotFound
from retrieval_detect.files import sha256_bytes, sha256_file, write_bytes, write_json
from retrieval_detect.store.layout import CURRENT, FITTED, MANIFESTS, MISTAKES
from retrieval_detect.store.schema import FORMAT, READ_VERSIONS, VERSION
from retrieval_detect.types import LABELS, SPLITS, EncoderSpec, Label, Split

_NAME = re.compile(r"[0-9a-f]{16}")
_LAYER = re.compile(r"[a-z][a-z0-9]*")
_ID = re.compile(r"[0-9a-f]+")
_SUFFIX = re.compile(r"json|safetensors")
_SHARD_FILE = re.compile(r"rows\.(arrow|parquet)|[a-z][a-z0-9]*\.npy")
FITTED_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What a projection, head or calibration may be called; names become file names."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file must be."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """The record of a file as it is now."""
        return cls(path.stat().st_size, sha256_file(path))

    def holds(self, path: Path, sha256: Callable[[Path], str] = sha256_file) -> bool:
        """Whether a file is this one. Size first: a truncated file is found without reading it."""
        return path.stat().st_size == self.bytes and sha256(path) == self.sha256


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """An immutable set of rows of one label and one split. ``files``: suffix → record."""

    id: str
    label: Label
    split: Split
    rows: int
    first_row_id: int
    last_row_id: int
    files: Mapping[str, FileRecord]


@dataclass(frozen=True, slots=True)
class TombstoneRecord:
    """Rows removed by one operation."""

    id: str
    rows: int
    file: FileRecord


@dataclass(frozen=True, slots=True)
class MistakesRecord:
    """The mistakes that are kept: how many, and the file they are in."""

    rows: int
    file: FileRecord


FittedKind: TypeAlias = Literal["projection", "head", "calibration", "regions", "coverage"]
RowStratum: TypeAlias = tuple[Label, Split]
ALL_ROWS: tuple[RowStratum, ...] = tuple((label, split) for label in LABELS for split in SPLITS)
GROWTH = 0.2
"""Share of new rows from which on a map of the old ones is out of date."""
BANK_ROWS: tuple[RowStratum, ...] = tuple((label, "bank") for label in LABELS)


@dataclass(frozen=True, slots=True)
class FittedRecord:
    """Something fitted on stored rows.

    ``method`` says how; ``files`` : suffix → record; ``rows_digest`` names the rows of ``strata`` it
    was fitted with (``Snapshot.rows_digest``): where it differs from today's, the thing is stale.

    What may lag behind additions names the first row id it has not seen, ``until``, and how many rows it
    has, ``n_rows``: it is stale once one of those is removed, or more than ``GROWTH`` as many have come.
    """

    kind: FittedKind
    name: str
    method: str
    files: Mapping[str, FileRecord]
    rows_digest: str
    strata: tuple[RowStratum, ...] = ALL_ROWS
    until: int | None = None
    n_rows: int = 0

    @property
    def digest(self) -> str:
        """Short digest of its files: changes with everything it does."""
        return sha256_bytes("".join(f.sha256 for _, f in sorted(self.files.items())).encode())[:12]


@dataclass(frozen=True, slots=True)
class Stratum:
    """A generator (of fakes) or a source (of photographs): live rows a split, groups ever formed."""

    label: Label
    name: str
    bank: int = 0
    calib: int = 0
    groups: int = 0

    def plus(self, *, bank: int = 0, calib: int = 0, groups: int = 0) -> Stratum:
        """The same with so many more."""
        return Stratum(self.label, self.name, self.bank + bank, self.calib + calib, self.groups + groups)


@dataclass(frozen=True, slots=True)
class GeneratorFacts:
    """What is known of a generator besides its references; ``released_at`` as YYYY-MM-DD."""

    family: str = ""
    released_at: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """What made a generation."""

    kind: str
    added: int = 0
    removed: int = 0
    failed: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Purge:
    """What was erased for good.

    Nothing goes back below generation ``floor``; ``digests`` are HMAC-SHA256 of content ids.
    """

    floor: int = 0
    key: str = ""
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TunedBank:
    """How one bank is searched.

    ``shards`` : ids of those that its FAISS index was built over; all others are compared row by row.
    ``rows`` : how many these had. ``effort`` : lists probed, or length of the candidate list of a graph.
    ``recall`` : k → mean share of the k nearest that were found, 0…1, by ``n_queries`` references of the
    split ``split``.
    """

    shards: tuple[str, ...]
    rows: int
    effort: int
    recall: Mapping[str, float]
    n_queries: int
    split: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """The approximate search of an index; it holds for the projection with the id ``projection`` alone.

    ``target`` : the recall that was asked for.
    """

    projection: str
    kind: str
    target: float
    banks: Mapping[Label, TunedBank]

    @property
    def digest(self) -> str:
        """Short digest: another may mean other neighbours."""
        return _short(asdict(self))

    def shards(self, label: Label, present: Collection[str]) -> tuple[str, ...]:
        """The shards under a bank's FAISS index, of those that are there still."""
        return tuple(shard for shard in self.banks[label].shards if shard in present)

    def stem(self, label: Label, present: Collection[str]) -> str:
        """Name of a bank's FAISS index: what it is made of, and nothing of how it is searched."""
        return f"{label}-{_short([label, self.kind, self.shards(label, present)])}"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tuned:
        """Inverse of ``asdict``; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        banks = {label: _tuned_bank(data["banks"][label]) for label in LABELS}
        ids = [data["projection"], *(shard for bank in banks.values() for shard in bank.shards)]
        if not all(_ID.fullmatch(id_) for id_ in ids):
            raise ValueError("approximate search is recorded of what has no name")
        return cls(data["projection"], str(data["kind"]), float(data["target"]), banks)


def _tuned_bank(data: Mapping[str, Any]) -> TunedBank:
    recall = {str(int(k)): float(share) for k, share in data["recall"].items()}
    return TunedBank(**dict(data) | {"shards": tuple(data["shards"]), "recall": recall})


def _short(facts: Any) -> str:
    return sha256_bytes(json.dumps(facts, sort_keys=True).encode())[:16]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One generation of an index: everything a reader needs, by name and checksum.

    ``version`` : of the format that it was written in.
    """

    generation: int
    parent: int | None
    created_at: str
    operation: Operation
    encoder: EncoderSpec
    layers: tuple[str, ...]
    canaries: Mapping[str, FileRecord]
    next_row_id: int = 0
    shards: tuple[ShardRecord, ...] = ()
    tombstones: tuple[TombstoneRecord, ...] = ()
    strata: tuple[Stratum, ...] = ()
    generators: Mapping[str, GeneratorFacts] = field(default_factory=dict)
    engines: Mapping[str, float] = field(default_factory=dict)
    projection: str = "identity"
    purge: Purge = field(default_factory=Purge)
    fitted: tuple[FittedRecord, ...] = ()
    tuned: Tuned | None = None
    mistakes: MistakesRecord | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    def live_rows(self, label: Label, split: Split | None = None) -> int:
        """Live references of one label, in one split or in both."""
        splits = (split,) if split else SPLITS
        return sum(getattr(s, name) for s in self.strata if s.label == label for name in splits)

    @property
    def n_mistakes(self) -> int:
        """How many mistakes are kept."""
        return self.mistakes.rows if self.mistakes else 0

    def names(self, label: Label) -> list[str]:
        """Generators or sources that have live references, sorted."""
        return sorted(self.counts(label))

    def counts(self, label: Label) -> dict[str, int]:
        """Live references of each generator or source that has some, by name."""
        return {s.name: s.bank + s.calib for s in self.strata if s.label == label and s.bank + s.calib}

    def of_live_rows(self) -> Manifest:
        """Without the generators and sources that no live row has."""
        strata = tuple(s for s in self.strata if s.bank + s.calib)
        named = {s.name for s in strata if s.label == "fake"}
        known = {name: facts for name, facts in self.generators.items() if name in named}
        return replace(self, strata=strata, generators=known)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        body = asdict(self) | {"encoder": self.encoder.to_json(), "fingerprint": self.encoder.fingerprint}
        return {"format": FORMAT} | body

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """Strict inverse of ``to_json``.

        Raises ``FormatUnsupported`` for another format or version, ``KeyError``, ``TypeError`` or
        ``ValueError`` for anything that is not a manifest.
        """
        if data["format"] != FORMAT or data["version"] not in READ_VERSIONS:
            raise FormatUnsupported(
                f"the index has format {data['format']!r}, version {data['version']!r}; "
                f"this version of rd reads {FORMAT!r}, versions {' and '.join(map(str, READ_VERSIONS))}",
                hint="Install a newer retrieval-detect, or rebuild the index.",
            )
        # Fields that a later minor version adds have defaults: older manifests lack them.
        body = {name: data[name] for name in cls.__slots__ if name in data}
        return cls(
            **body
            | {
                "operation": Operation(**data["operation"]),
                "encoder": EncoderSpec.from_json(data["encoder"]),
                "layers": tuple(_checked(_LAYER, layer) for layer in data["layers"]),
                "canaries": {_checked(_LAYER, k): FileRecord(**v) for k, v in data["canaries"].items()},
                "shards": tuple(_shard(record) for record in data["shards"]),
                "tombstones": tuple(
                    TombstoneRecord(_checked(_NAME, t["id"]), t["rows"], FileRecord(**t["file"]))
                    for t in data["tombstones"]
                ),
                "strata": tuple(Stratum(**record) for record in data["strata"]),
                "generators": {k: GeneratorFacts(**v) for k, v in data["generators"].items()},
                "purge": Purge(**data["purge"] | {"digests": tuple(data["purge"]["digests"])}),
                "fitted": tuple(_fitted(record) for record in data.get("fitted", ())),
                "tuned": Tuned.from_json(data["tuned"]) if data.get("tuned") else None,
                "mistakes": _mistakes(data["mistakes"]) if data.get("mistakes") else None,
            }
        )


def _checked(pattern: re.Pattern[str], name: str) -> str:
    # Names become file names: nothing from a manifest may point out of the index.
    if not pattern.fullmatch(name):
        raise ValueError(f"{name!r} is no name of this format")
    return name


def _shard(data: Mapping[str, Any]) -> ShardRecord:
    _checked(_NAME, data["id"])
    if data["label"] not in LABELS or data["split"] not in SPLITS:
        raise ValueError(f"shard {data['id']} has label {data['label']!r}, split {data['split']!r}")
    files = {_checked(_SHARD_FILE, name): FileRecord(**record) for name, record in data["files"].items()}
    return ShardRecord(**dict(data) | {"files": files})


def _mistakes(data: Mapping[str, Any]) -> MistakesRecord:
    file = FileRecord(**data["file"])
    _checked(_ID, file.sha256)
    return MistakesRecord(int(data["rows"]), file)


def _fitted(data: Mapping[str, Any]) -> FittedRecord:
    if data["kind"] not in FITTED:
        raise FormatUnsupported(
            f"the index has something of kind {data['kind']!r}, which this version of rd does not know",
            hint="Install a newer retrieval-detect.",
        )
    files = {_checked(_SUFFIX, suffix): FileRecord(**record) for suffix, record in data["files"].items()}
    strata = tuple((label, split) for label, split in data.get("strata", ALL_ROWS))
    if not set(strata) <= set(ALL_ROWS):
        raise ValueError(f"{data['name']} was fitted on {strata}")
    name = _checked(FITTED_NAME, data["name"])
    return FittedRecord(**dict(data) | {"name": name, "files": files, "strata": strata})


# ---------------------------------------------------------------- stamps

_TOOLS = ("retrieval-detect", "numpy", "pyarrow", "pillow", "torch", "open_clip_torch", "timm")


def now() -> str:
    """The time as manifests write it: ``2026-11-20T08:00:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def tool_versions() -> dict[str, str]:
    """Versions of what had a part in the numbers, where installed."""
    found = {}
    for name in _TOOLS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


# ---------------------------------------------------------------- files


def manifest_path(folder: Path, generation: int) -> Path:
    """``manifests/00000007.json``."""
    return folder / MANIFESTS / f"{generation:08d}.json"


def fitted_path(folder: Path, kind: FittedKind, name: str, suffix: str, sha256: str) -> Path:
    """``calibrations/default-0123456789abcdef.json``."""
    return folder / FITTED[kind] / f"{name}-{sha256[:16]}.{suffix}"


def mistakes_path(folder: Path, record: MistakesRecord) -> Path:
    """``mistakes/0123456789abcdef.safetensors``."""
    return folder / MISTAKES / f"{record.file.sha256[:16]}.safetensors"


def commit(folder: Path, manifest: Manifest) -> None:
    """Write a manifest and make it the one in force. The rename of CURRENT is the commit."""
    path = manifest_path(folder, manifest.generation)
    write_json(path, manifest.to_json())
    digest = sha256_bytes(path.read_bytes())
    write_bytes(folder / CURRENT, f"{path.name} {digest}\n".encode())


def read_current(folder: Path) -> Manifest:
    """The manifest in force.

    Raises ``IndexNotFound`` where there is no index and ``IndexCorrupt`` where CURRENT or its
    manifest is damaged.
    """
    while True:
        line = _current(folder)
        try:
            return read_manifest(folder / MANIFESTS / line[0], sha256=line[1])
        except IndexCorrupt:
            if _current(folder) == line:  # else it was swept meanwhile: another is in force
                raise


def _current(folder: Path) -> list[str]:
    """The name of the manifest in force, and its digest."""
    try:
        line = (folder / CURRENT).read_text(encoding="ascii").split()
    except (FileNotFoundError, NotADirectoryError):
        raise IndexNotFound(
            f"there is no index at {folder}",
            hint="Build one: rd build-index --real DIR --fake DIR, or see: rd index info --all",
        ) from None
    except UnicodeDecodeError:
        line = []
    if len(line) != 2 or not re.fullmatch(r"\d{8}\.json", line[0]):
        raise _damaged(folder / CURRENT)
    return line


def read_manifest(path: Path, *, sha256: str | None = None) -> Manifest:
    """Read one manifest, checking its digest where one is given."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _damaged(path) from None
    if sha256 is not None and sha256_bytes(data) != sha256:
        raise _damaged(path)
    try:
        return Manifest.from_json(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FormatUnsupported):
            raise
        raise _damaged(path) from error


def generations(folder: Path) -> list[int]:
    """Generations whose manifests are kept, oldest first."""
    return sorted(
        int(path.stem) for path in (folder / MANIFESTS).glob("????????.json") if path.stem.isdigit()
    )


def _damaged(path: Path) -> IndexCorrupt:
    return IndexCorrupt(
        f"{path} is missing or damaged",
        hint="Restore it from a copy, or delete the index and build it anew: rd build-index.",
    )
