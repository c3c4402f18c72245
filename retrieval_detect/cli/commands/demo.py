"""``rd demo``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.params import Command, Run
from retrieval_detect.cli.progress import progress

if TYPE_CHECKING:
    from retrieval_detect.cli.output import Line, Output, Part
    from retrieval_detect.cli.tour import Tour
    from retrieval_detect.types import EncoderSpec
    from retrieval_detect.verdicts import Verdict


@click.command("demo", cls=Command, examples="rd demo\nrd demo --keep demo/")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Leave the pictures and the index in this folder.",
)
@click.pass_obj
def command(run: Run, keep: Path | None) -> None:
    """Take the whole tour on sample images.

    Builds a toy index, judges pictures that were held back, teaches it a generator that it did not know
    and a kind of photograph that it had none of, and judges again. Takes a minute or two the first
    time, then seconds, and no network.
    """
    from retrieval_detect.errors import UsageError

    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise UsageError(f"{keep} is not empty", hint="Name a new folder: rd demo --keep DIR")
    with nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="rd-demo-") as folder:
        _tour(run.output, Path(str(folder)), kept=keep)


def _tour(output: Output, folder: Path, *, kept: Path | None) -> None:
    from retrieval_detect.cli.tour import Tour

    folder.mkdir(parents=True, exist_ok=True)
    tour = Tour(folder)
    output.lines(_introduction(tour.spec))
    with progress(len(tour.pictures.all), "Embedding", output) as meter:
        tour.look(meter.advance)
    started = time.monotonic()
    tour.build()
    _built(output, tour, time.monotonic() - started)
    photographs, fakes = (tour.ask(tour.pictures.asked[label]) for label in ("real", "fake"))
    _held_back(output, photographs, fakes)
    record = {
        "toy": True,
        "encoder": tour.spec.name,
        "photographs": _scores(photographs),
        "fakes": _scores(fakes),
        "painted": _generator(output, tour, photographs),
        "evening": _photographs(output, tour),
        "audit": _audited(output, tour),
    }
    output.lines(_closing(tour.spec, kept))
    output.record(record, text=[])


def _introduction(spec: EncoderSpec) -> list[Line]:
    classifier = f"{spec.name}, {spec.note} and no CLIP (rd doctor says how to get one)"
    return [
        [("rd tells photographs from generated images by the references nearest to them.", "strong")],
        "",
        "This is a toy: photographs, mostly of bright rooms, against mixed generated art, seen by",
        f"{spec.note if spec.is_clip else classifier}.",
        "What they show differs between the two banks, and those of both lessons were picked because",
        "they turn: the numbers prove nothing, they show how rd works. Scores are uncalibrated; above",
        "zero is closer to the fake bank.",
    ]


def _built(output: Output, tour: Tour, elapsed_s: float) -> None:
    pictures = tour.pictures
    n_fakes = sum(map(len, pictures.fakes.values()))
    output.lines(
        [
            "",
            [("1  Build", "strong"), f"   rd build-index --real real/ --fake fake/   ({elapsed_s:.1f} s)"],
            f"   {len(pictures.photographs)} photographs and {n_fakes} fakes of {len(pictures.fakes)} "
            "generator families, all as WebP squares of",
            "   256 pixels.",
        ]
    )


def _held_back(output: Output, photographs: Sequence[Verdict], fakes: Sequence[Verdict]) -> None:
    output.lines(["", [("2  Ask", "strong"), "     rd query ask/"]])
    for verdict in (*photographs[:3], *fakes[:3]):
        counts = f"{verdict.votes.fake:>2} of {verdict.votes.of} nearest are fake"
        output.lines(
            [[f"   {_short(verdict.input):<34}  {verdict.score:+.2f}  ", *_bank(verdict), f"  {counts}"]]
        )
    right_real, right_fakes = sum(v.score <= 0 for v in photographs), sum(v.score > 0 for v in fakes)
    output.lines(
        [
            f"   {right_real} of {len(photographs)} held-back photographs are closer to the real bank,",
            f"   {right_fakes} of {len(fakes)} held-back fakes to the fake bank.",
        ]
    )


# ---------------------------------------------------------------- two lessons


def _generator(output: Output, tour: Tour, photographs: Sequence[Verdict]) -> dict[str, Any]:
    """A generator that is new, learnt from five of its images and unlearnt again."""
    from retrieval_detect.cli.tour import PAINTED

    asked, n = tour.pictures.lessons[PAINTED], len(tour.pictures.taught[PAINTED])
    before = tour.ask(asked)
    started = time.monotonic()
    tour.teach(PAINTED)
    elapsed_s = time.monotonic() - started
    after, still = tour.ask(asked), tour.ask(tour.pictures.asked["real"])
    tour.take_back(PAINTED)
    back = tour.ask(asked)
    as_before = [v.score for v in back] == [v.score for v in before]
    flagged = [sum(v.score > 0 for v in verdicts) for verdicts in (photographs, still)]
    output.lines(
        [
            "",
            [
                ("3  Teach a generator", "strong"),
                f"   rd bank add painted/teach --label fake --generator painted   ({elapsed_s:.1f} s)",
            ],
            "   A filter that paints held-back photographs over stands in for a new generator.",
            f"   {n} references of it are added, and no network is trained:",
            *map(_turned, before, after),
            f"   Held-back photographs closer to the fake bank: {flagged[0]} of {len(still)} before, "
            f"{flagged[1]} after.",
            "   rd bank remove --among generator=painted unlearns it: the scores are "
            f"{'those of before, to the bit' if as_before else 'about those of before'}.",
        ]
    )
    return {"before": _scores(before), "after": _scores(after), "unlearnt": _scores(back)}


def _photographs(output: Output, tour: Tour) -> dict[str, Any]:
    """A kind of photograph that the bank had none of."""
    from retrieval_detect.cli.tour import EVENING

    asked, n = tour.pictures.lessons[EVENING], len(tour.pictures.taught[EVENING])
    before = tour.ask(asked)
    started = time.monotonic()
    tour.teach(EVENING)
    elapsed_s = time.monotonic() - started
    after = tour.ask(asked)
    output.lines(
        [
            "",
            [
                ("4  Teach photographs", "strong"),
                f"   rd bank add evening/teach --label real --source evening   ({elapsed_s:.1f} s)",
            ],
            "   No photograph so far is like a café in the evening.",
            f"   With {n} authentic photographs of its kind in the bank:",
            *map(_turned, before, after),
            "   In a calibrated index rd query --beside DIR does so for one question alone.",
        ]
    )
    return {"before": _scores(before), "after": _scores(after)}


def _turned(old: Verdict, new: Verdict) -> Line:
    """One picture before and after a lesson."""
    arrow = f"  →  {new.score:+.2f}  "
    return [f"   {_short(old.input):<34}  {old.score:+.2f}  ", *_bank(old), arrow, *_bank(new)]


def _bank(verdict: Verdict) -> list[Part]:
    name = "fake" if verdict.score > 0 else "real"
    return [(f"{name.upper()} bank", name)]


def _audited(output: Output, tour: Tour) -> dict[str, Any]:
    """The toy index is no evidence, and rd says so itself."""
    from retrieval_detect.evaluate.audit import audit
    from retrieval_detect.evaluate.material import look_through, of_index
    from retrieval_detect.report.audit import audit_json, audit_lines

    found = audit(look_through(of_index(tour.index.snapshot())))
    output.lines(
        [
            "",
            [("5  Audit", "strong"), "   rd audit"],
            f"   {next(iter(audit_lines(found)))}",
            "   Files, colours and subjects tell these labels apart, too; rd audit says how far.",
        ]
    )
    return audit_json(found)


def _closing(spec: EncoderSpec, kept: Path | None) -> list[Line]:
    encoder = f" --encoder {spec.name}" if spec.is_clip else ""
    lines: list[Line] = [
        "",
        [("Now with your own", "strong"), ", sub-folders naming sources and generators, in this order:"],
        f"   rd build-index --real photos/ --fake generated/{encoder}",
        "   rd audit",
        "   rd query suspect.jpg --report page.html",
    ]
    if kept:
        lines += ["", f"   Kept in {kept}: rd query {kept}/images/painted/ask --index {kept}/toy"]
    return lines


def _short(uri: str) -> str:
    path = Path(uri)
    return f"{path.parent.name}/{path.stem}"[:34]


def _scores(verdicts: Sequence[Verdict]) -> dict[str, float]:
    return {_short(v.input): round(v.score, 6) for v in verdicts}
