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
from retrieval_detect.report.json import verdict_json
from retrieval_detect.store.indexes import is_index
from retrieval_detect.store.manifest import manifest_path, tool_versions
from retrieval_detect.store.sweep import kept_snapshot, pin
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from retrieval_detect.report.case import Entry
    from retrieval_detect.verdicts import Verdict

SCORE_TOLERANCE = 1e-3
"""How far a score may move between engines and versions before it is mentioned."""
_MOVES = ("score", "log10_lr", "probability")


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of asking again.

    ``stands`` : the same verdict came out of the same generation; ``None`` where it could not be asked.
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
        "verdict": verdict_json(verdict),
    }


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
        finding = Finding(entry["number"], entry["verdict"]["input"], entry["verdict"]["verdict"])
        finding = _with_report(finding, entry)
        try:
            yield _asked_again(finding, entry, _image(entry, moved), detector, index)
        except (RdError, OSError) as error:
            message = error.message if isinstance(error, RdError) else str(error)
            yield replace(finding, notes=(*finding.notes, message))


def _asked_again(
    finding: Finding, entry: Entry, data: bytes, detector: Callable[[Path, int], Detector], named: Path | None
) -> Finding:
    index, then = entry["index"], entry["verdict"]
    folder, generation = named or Path(index["path"]), index["generation"]
    if not is_index(folder):
        raise RdError(f"there is no index at {folder} (--index NAME|PATH names it elsewhere)")
    manifest = manifest_path(folder, generation)
    ours = manifest.exists() and sha256_file(manifest) == index["manifest_sha256"]
    if named and not ours:
        raise RdError(f"{folder} is not the index that judged: its generation {generation} is another")
    again = detector(folder, generation).query(data, **_question(entry))
    notes = [*finding.notes, *_differences(then, verdict_json(again))]
    if not ours:
        notes.append(f"generation {generation} of {folder} is not the one that judged")
    stands = ours and again.verdict == then["verdict"]
    return replace(finding, stands=stands, notes=tuple(notes), again=again)


def _question(entry: Entry) -> dict[str, Any]:
    if entry["asked"].get("fdr"):
        raise RdError("it was judged as one of a batch (--fpr fdr=SHARE), and cannot be asked alone")
    known = {field.name for field in fields(Question)}
    return {name: value for name, value in entry["asked"].items() if name in known}


def _image(entry: Entry, moved: Mapping[str, Path]) -> bytes:
    wanted = entry["image"]["sha256"]
    path = moved.get(wanted, entry["image"]["path"])
    (item,) = stored_items([(str(path), bytes.fromhex(wanted))])
    try:
        return item.read()
    except ImageError as error:
        if error.reason == CHANGED:
            raise RdError(f"{path} is not the image that was judged: its bytes differ") from None
        raise RdError(f"{path} is not there any more (--image FILE names it elsewhere)") from None


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if then["verdict"] != now["verdict"]:
        yield f"verdict {then['verdict']} then, {now['verdict']} now"
    for name in _MOVES:
        before, after = then[name], now[name]
        if (before is None) != (after is None) or (
            before is not None and abs(before - after) > SCORE_TOLERANCE
        ):
            yield f"{name} {before} then, {after} now"
    if then["engine"] != now["engine"]:
        yield f"engine {then['engine']} then, {now['engine']} now"
    if _row_ids(then) != _row_ids(now):
        yield "other references are nearest now"


def _row_ids(verdict: Mapping[str, Any]) -> list[int]:
    return [reference["row_id"] for reference in verdict["evidence"]]


def _with_report(finding: Finding, entry: Entry) -> Finding:
    report = entry.get("report")
    if not report:
        return finding
    path = Path(report["path"])
    if not path.exists():
        return replace(finding, notes=(f"report {path} is not there any more",))
    if sha256_file(path) != report["sha256"]:
        return replace(finding, report_intact=False, notes=(f"report {path} is not what was written",))
    return replace(finding, report_intact=True)
