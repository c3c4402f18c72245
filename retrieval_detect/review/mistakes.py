"""The mistakes that an index keeps, judged again: how many are right by now, and which were before.

They are asked about as any image is: what is a near-duplicate of one does not vote on it. Both generations
are asked today, by the same rd, so that what differs is what was changed in the index.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from retrieval_detect.ask.detector import Detector
from retrieval_detect.store.mistakes import read_mistakes
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.sweep import snapshot_before
from retrieval_detect.types import LABELS
from retrieval_detect.verdicts import Question, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.store.mistakes import Mistakes
    from retrieval_detect.types import Label
    from retrieval_detect.verdicts import VerdictName


@dataclass(frozen=True, slots=True)
class JudgedMistake:
    """A mistake, and what is said of it now; ``None`` if it cannot be asked about.

    ``right`` : a fake is called fake-like, a photograph is not; where nothing is calibrated, whether the
    score points to its bank. ``content_id`` : hex.
    """

    content_id: str
    label: Label
    because: str
    kept_at: str
    verdict: VerdictName | None = None
    score: float | None = None
    calibrated: bool = False
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """All of them now. ``before`` : the same ones, as the generation before judges them; empty without one.

    ``n_before`` : how many that generation kept; ``None`` if it is there no more.
    """

    now: tuple[JudgedMistake, ...]
    before: tuple[JudgedMistake, ...] = ()
    n_before: int | None = None

    @property
    def right(self) -> int:
        """How many are right now."""
        return sum(bool(mistake.right) for mistake in self.now)

    @property
    def worse(self) -> list[JudgedMistake]:
        """Those that were right before and are not now."""
        return [now for was, now in zip(self.before, self.now, strict=False) if was.right and not now.right]

    @property
    def better(self) -> int:
        """How many are right now and were not before."""
        pairs = zip(self.before, self.now, strict=False)
        return sum(bool(now.right) and not was.right for was, now in pairs)

    def to_json(self) -> dict[str, Any]:
        """Counts, and the worse ones in full."""
        return {
            "kept": len(self.now),
            "right": self.right,
            "better": self.better,
            "worse": [asdict(mistake) for mistake in self.worse],
        }


def judge_mistakes(
    snapshot: Snapshot, mistakes: Mistakes | None = None, *, device: str = "auto"
) -> tuple[JudgedMistake, ...]:
    """What a generation says of mistakes, by default of its own, as of photographs of known sources."""
    kept = read_mistakes(snapshot) if mistakes is None else mistakes
    plain = [
        JudgedMistake(image.hex(), kept.label(i), str(kept.because[i]), str(kept.kept_at[i]))
        for i, image in enumerate(kept.content_ids.tolist())
    ]
    if not plain or not all(snapshot.manifest.live_rows(label, "bank") for label in LABELS):
        return tuple(plain)
    detector = Detector(snapshot, device=device)
    started = [time.perf_counter()] * len(plain)
    verdicts = detector.judge_all(
        [[image] for image in kept.images()], detector.checked(Question(photographs="known")), started=started
    )
    return tuple(
        _judged(mistake, verdict) if isinstance(verdict, Verdict) else mistake
        for mistake, verdict in zip(plain, verdicts, strict=True)
    )


def _judged(mistake: JudgedMistake, verdict: Verdict) -> JudgedMistake:
    calibrated = verdict.p_values is not None
    flagged = verdict.verdict == "fake-like" if calibrated else verdict.score > 0
    return replace(
        mistake,
        verdict=verdict.verdict,
        score=verdict.score,
        calibrated=calibrated,
        right=flagged == (mistake.label == "fake"),
    )


def tally(folder: Path, manifest: Manifest, *, device: str = "auto") -> Tally | None:
    """What the change that made a generation did to mistakes; ``None`` where none is or was kept.

    The generation before it is asked about the same ones, unless it was purged or swept.
    """
    now = Snapshot(folder, manifest)
    before = snapshot_before(folder, manifest)
    n_before = before.manifest.n_mistakes if before else None
    if not (manifest.mistakes or n_before):
        return None
    kept = read_mistakes(now)
    was = judge_mistakes(before, kept, device=device) if before else ()
    return Tally(judge_mistakes(now, kept, device=device), was, n_before)
