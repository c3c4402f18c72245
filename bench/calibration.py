"""Calibrated verdicts, measured: where the stated rate holds, and where it breaks.

``python -m bench.calibration``. Embeds each image once; about three minutes on two idle cores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench._data import Embeddings, Sample, add_data, embedded, encoders_of, workplace
from bench._frame import (
    Clock,
    about,
    beside,
    by_encoder,
    carry_out,
    command_of,
    markdown_table,
    origin,
    parser_of,
    rounded,
    told,
)
from bench._machine import commit
from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.projections import fit_default

if TYPE_CHECKING:
    import argparse

RATES = (0.05, 0.1)
_VERDICTS = ("fake-like", "uncertain", "real-like", "unknown")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the tables."""
    parser = parser_of("calibration", __doc__)
    add_data(parser)
    options = parser.parse_args(arguments)
    carry_out("calibration", options, lambda: rounded(measure(options)), tables)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run."""
    clock = Clock()
    head = about("calibration", command=command_of("calibration", options), git_commit=commit())
    found = [_measured(name, options, clock) for name in encoders_of(options)]
    return {**head, "encoders": found, "elapsed_s": clock.elapsed_s}


def _measured(name: str, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    given = embedded(load_encoder(name), data=options.data, images=options.images, say=clock.say)
    references = [s for s in given.samples if not s.held]
    held = [s for s in given.samples if s.held]
    with workplace() as work:
        clock.say("every source known")
        known = judged(given, work / "known", references, held)
        unseen = {}
        for source in sorted({s.name for s in given.samples if not s.fake}):
            clock.say(f"without {source}")
            rest = [s for s in references if s.fake or s.name != source]
            asked = [s for s in held if s.name == source]
            unseen[source] = judged(given, work / source, rest, asked)
    return {"encoder": name, "every_source_known": known, "source_left_out": unseen}


def judged(
    given: Embeddings, folder: Path, references: Sequence[Sample], asked: Sequence[Sample]
) -> dict[str, Any]:
    """An index of ``references``, calibrated, and its verdicts on ``asked``, by name and rate."""
    store = given.index(folder, references)
    fit_default(store, calibrate=False, device="cpu")
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
    found = by_encoder(result)
    known = [one["every_source_known"] for one in found]
    photographs = " and ".join(str(one["calibration_photographs"]) for one in known)
    cllr = " and ".join(f"{one['cllr_bits']:.2f}" for one in known)
    parts = [
        f"{told(found)}; {origin(result)}.",
        "**Every source known** (in-distribution: the fifth image of each folder is asked about, the rest "
        f"are references; {photographs} calibration photographs, Cllr {cllr} bits). Verdicts at 5 % false "
        "alarms:",
        _table(beside(found, _verdicts)),
        "**A source left out.** Each source of photographs in turn is in no bank and no calibration, and its "
        "photographs are asked about; the worst first. The rate asked for was 5 %, and 10 %:",
        _table(beside(found, _left_out)),
    ]
    return "\n\n".join(parts)


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])


def _verdicts(found: Mapping[str, Any]) -> list[dict[str, object]]:
    return [
        {"asked about": name, "images": sum(counts.values())}
        | {v: f"{100 * counts.get(v, 0) / sum(counts.values()):.0f} %" for v in _VERDICTS}
        for name, counts in found["every_source_known"]["verdicts"]["0.05"].items()
    ]


def _left_out(found: Mapping[str, Any]) -> list[dict[str, object]]:
    counts = {
        source: [Counter(own["verdicts"][str(rate)][source]) for rate in RATES]
        for source, own in found["source_left_out"].items()
    }
    flagged = {source: [c["fake-like"] / c.total() for c in own] for source, own in counts.items()}
    return [
        {"source left out": source, "photographs": counts[source][0].total()}
        | {"called fake-like at 5 %": f"{100 * five:.0f} %", "at 10 %": f"{100 * ten:.0f} %"}
        for source, (five, ten) in sorted(flagged.items(), key=lambda own: (own[1][0], own[0]), reverse=True)
    ]


if __name__ == "__main__":
    main()
