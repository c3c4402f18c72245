"""Whether the verdicts of a case stand: each is asked again of the generation that gave it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_detect.ask.detector import Detector
from retrieval_detect.errors import ImageError, RdError
from retrieval_detect.files import sha256_file
from retrieval_detect.images.stored import CHANGED, stored_items
from retrieval_detect.store.indexes import is_index
from retrieval_detect.store.manifest import manifest_path, tool_versions
from retrieval_detect.store.sweep import kept_snapshot, pin
from retrieval_detect.types import SCHEMA
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from retrieval_detect.report.case import Entry
    from retrieval_detect.verdicts import Verdict

_COMPARED = ("verdict", "reason", "score", "log10_lr", "probability", "engine")
SCORE_TOLERANCE = 1e-3
"""How far a score may move between engines and versions before it is mentioned."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of asking again.

    ``stands`` : the same verdict came out of the same generation; ``None`` where it could not be asked, or
    was judged by an ``earlier`` definition of verdicts, whose scores alone can be compared.
    ``report_intact`` : the report is what was written; ``None`` where there is none, or it is gone.
    ``notes`` : what differs and what is missing, in words. ``again`` : the new verdict.
    """

    number: int
    input: str
    verdict: str
    stands: bool | None = None
    report_intact: bool | None = None
    notes: tuple[str, ...] = ()
    again: Verdict | None = None
    earlier: bool = False


def case_entry(detector: Detector, verdict: Verdict, question: Question) -> dict[str, Any]:
    """What a case keeps of one verdict; pins the generation that gave it."""
    folder = detector.snapshot.folder.resolve()
    pin(folder, verdict.index.generation)
    return {
        "asked": asdict(question),
        "versions": tool_versions(),
        "index": {
            "path": str(folder),
            "manifest_sha256": sha256_file(manifest_path(folder, verdict.index.generation)),
            **asdict(verdict.index),
        },
        "image": {"path": str(Path(verdict.input).resolve()), "sha256": verdict.sha256},
        "verdict": verdict.to_dict(),
        **({"beside": _pictures(verdict)} if verdict.beside else {}),
    }


def _pictures(verdict: Verdict) -> list[dict[str, str]]:
    laid = verdict.beside.pictures if verdict.beside else ()
    return [{"path": str(Path(picture.input).resolve()), "sha256": picture.sha256} for picture in laid]


def recheck(
    entries: Iterable[Entry],
    *,
    images: Sequence[Path] = (),
    index: Path | None = None,
    weights: Path | None = None,
    offline: bool = False,
) -> Iterator[Finding]:
    """Ask every entry's question again.

    ``images`` : files of images that are no longer where they were; they are known by their bytes.
    ``index`` : where the index lies now; entries of another are not asked. ``None``: where it lay then.
    """
    moved = {sha256_file(path): path for path in images}

    @cache
    def detector(folder: Path, generation: int) -> Detector:
        return Detector(kept_snapshot(folder, generation), weights=weights, offline=offline)

    for entry in entries:
        if "verdict" not in entry:  # pictures that were laid beside an image, before it was judged
            continue
        intact, notes = _report(entry.get("report"))
        then = entry["verdict"]
        finding = Finding(entry["number"], then["input"], then["verdict"], report_intact=intact, notes=notes)
        try:
            yield _asked_again(finding, entry, _image(entry["image"], moved), detector, index)
        except (RdError, OSError) as error:
            message = error.message if isinstance(error, RdError) else str(error)
            yield replace(finding, notes=(*notes, message))


def _report(report: Mapping[str, str] | None) -> tuple[bool | None, tuple[str, ...]]:
    """Whether the report is what was written, and what is to be said of it."""
    if not report:
        return None, ()
    path = Path(report["path"])
    if not path.exists():
        return None, (f"report {path} is not there any more",)
    if sha256_file(path) != report["sha256"]:
        return False, (f"report {path} is not what was written",)
    return True, ()


def _image(image: Mapping[str, str], moved: Mapping[str, Path]) -> bytes:
    path = moved.get(image["sha256"], image["path"])
    (item,) = stored_items([(str(path), bytes.fromhex(image["sha256"]))])
    try:
        return item.read()
    except ImageError as error:
        if error.reason == CHANGED:
            raise RdError(f"{path} is not the image that was judged: its bytes differ") from None
        raise RdError(f"{path} is not there any more (--image FILE names it elsewhere)") from None


def _asked_again(
    finding: Finding, entry: Entry, data: bytes, detector: Callable[[Path, int], Detector], named: Path | None
) -> Finding:
    index, then, asked = entry["index"], entry["verdict"], entry["asked"]
    folder, generation = named or Path(index["path"]), index["generation"]
    if not is_index(folder):
        raise RdError(f"there is no index at {folder} (--index NAME|PATH names it elsewhere)")
    manifest = manifest_path(folder, generation)
    ours = manifest.exists() and sha256_file(manifest) == index["manifest_sha256"]
    if named and not ours:
        raise RdError(f"{folder} is not the index that judged: its generation {generation} is another")
    if asked.get("fdr"):
        raise RdError("it was judged as one of a batch (--fpr fdr=SHARE), and cannot be asked alone")
    known = {field.name for field in fields(Question)}
    question = {name: value for name, value in asked.items() if name in known}
    judge, missing = _with_beside(detector(folder, generation), entry, question)
    again = judge.query(data, **question)
    earlier = then["schema"] < SCHEMA
    compared = ("score", "engine") if earlier else _COMPARED
    notes = [*finding.notes, *_differences(then, again.to_dict(), compared)]
    if not ours:
        notes.append(f"generation {generation} of {folder} is not the one that judged")
    stands = None if earlier and ours else ours and again.verdict == then["verdict"]
    if missing:
        notes.append(missing)
    elif again.beside and again.beside.verdict != then["beside"]["verdict"]:
        notes.append(
            f"with the pictures beside, {then['beside']['verdict']} then, {again.beside.verdict} now"
        )
        stands = False if stands else stands
    return replace(finding, stands=stands, notes=tuple(notes), again=again, earlier=earlier)


def _with_beside(detector: Detector, entry: Entry, question: Mapping[str, Any]) -> tuple[Detector, str]:
    """A detector that judges with the pictures that lay beside; where one is missing, without, and why."""
    laid = entry.get("beside", ())
    items = stored_items([(picture["path"], bytes.fromhex(picture["sha256"])) for picture in laid])
    try:
        for item in items:
            item.read()
    except (ImageError, OSError):
        return (
            detector,
            "of the pictures laid beside it some are gone or changed: only the answer without them",
        )
    return (detector.with_beside(items, **question) if items else detector), ""


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], compared: Sequence[str]) -> Iterator[str]:
    def moved(name: str) -> bool:
        before, after = then[name], now[name]
        if name in ("verdict", "reason", "engine") or before is None or after is None:
            return bool(before != after)
        return bool(abs(before - after) > SCORE_TOLERANCE)

    for name in compared:
        if moved(name):
            yield f"{name} {then[name]} then, {now[name]} now"
    before, after = ([reference["row_id"] for reference in verdict["evidence"]] for verdict in (then, now))
    if before != after:
        yield "other references are nearest now"
