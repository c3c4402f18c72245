"""Calibrated verdicts, measured: where the stated rate holds, and where it breaks.

``python -m bench.calibration``. Embeds each image once; about three minutes on two idle cores.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench._data import DEFAULT_DATA, Sample, load
from bench._frame import Clock, about, carry_out, origin, parser_of, rounded
from bench._index import Origin
from bench._machine import commit
from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.canaries import canary_vectors
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder
from retrieval_detect.store.store import Store
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.projections import fit_default

RATES = (0.05, 0.1)
_VERDICTS = ("fake-like", "uncertain", "real-like", "unknown")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the tables."""
    parser = parser_of("calibration", __doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args(arguments)
    carry_out("calibration", options, lambda: rounded(measure(options.data)), tables)


def measure(data: Path) -> dict[str, Any]:
    """All numbers of one run."""
    clock = Clock()
    head = about("calibration", command="python -m bench.calibration", git_commit=commit())
    encoder = load_encoder(OFFLINE_ENCODER)
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        os.environ["RD_CACHE"] = str(work / "cache")
        samples = load(data, encoder, per_folder=None, say=clock.say)
        origin = Origin(encoder.spec, canary_vectors(encoder, ("proj",)))
        references = [s for s in samples if not s.held]
        clock.say("every source known")
        known = judged(origin, work / "known", references, [s for s in samples if s.held])
        unseen = {}
        for source in sorted({s.name for s in samples if not s.fake}):
            clock.say(f"without {source}")
            rest = [s for s in references if s.fake or s.name != source]
            asked = [s for s in samples if s.held and s.name == source]
            unseen[source] = judged(origin, work / source, rest, asked)
    return {
        **head,
        "encoder": encoder.spec.name,
        "every_source_known": known,
        "source_left_out": unseen,
        "elapsed_s": clock.elapsed_s,
    }


def judged(
    origin: Origin, folder: Path, references: Sequence[Sample], asked: Sequence[Sample]
) -> dict[str, Any]:
    """An index of ``references``, calibrated, and its verdicts on ``asked``, by name and rate."""
    store: Store = origin.create(folder, references)
    fit_default(store, device="cpu")
    calibration = fit_calibration(store.snapshot(), device="cpu")
    commit_calibration(store, calibration)
    detector = Detector.load(folder, device="cpu")
    counts: dict[str, dict[str, Counter[str]]] = {str(rate): {} for rate in RATES}
    for sample in asked:
        for rate in RATES:
            verdict = detector.judge(sample.embedded, fpr=rate).verdict
            counts[str(rate)].setdefault(sample.name, Counter())[verdict] += 1
    return {
        "calibration_photographs": calibration.conformal.n_real(),
        "cllr_bits": calibration.quality["cllr"],
        "verdicts": {rate: {name: dict(c) for name, c in by.items()} for rate, by in counts.items()},
    }


def tables(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"Encoder `{result['encoder']}`, no CLIP; {origin(result)}.",
        "",
        "**Every source known** (in-distribution: the fifth image of each folder is asked about, the rest "
        f"are references; {result['every_source_known']['calibration_photographs']} calibration photographs, "
        f"Cllr {result['every_source_known']['cllr_bits']:.2f} bits). Verdicts at 5 % false alarms:",
        "",
        *_table(result["every_source_known"]["verdicts"]["0.05"]),
        "",
        "**A source left out.** Each source of photographs in turn is in no bank and no calibration, and its "
        "photographs are asked about; the worst first. The rate asked for was 5 %, and 10 %:",
        "",
        "| source left out | photographs | called fake-like at 5 % | at 10 % |",
        "|---|---|---|---|",
    ]
    rows = []
    for source, found in result["source_left_out"].items():
        counts = [Counter(found["verdicts"][str(rate)][source]) for rate in RATES]
        n = counts[0].total()
        rows.append((counts[0]["fake-like"] / n, source, n, *(100 * c["fake-like"] / n for c in counts)))
    for _, source, n, five, ten in sorted(rows, reverse=True):
        lines.append(f"| {source} | {n} | {five:.0f} % | {ten:.0f} % |")
    return "\n".join(lines)


def _table(by_name: dict[str, dict[str, int]]) -> list[str]:
    lines = [f"| asked about | images | {' | '.join(_VERDICTS)} |", "|---|---|" + "---|" * len(_VERDICTS)]
    for name, counts in by_name.items():
        n = sum(counts.values())
        shares = " | ".join(f"{100 * counts.get(verdict, 0) / n:.0f} %" for verdict in _VERDICTS)
        lines.append(f"| {name} | {n} | {shares} |")
    return lines


if __name__ == "__main__":
    main()
