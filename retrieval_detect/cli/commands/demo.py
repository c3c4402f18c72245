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
    from retrieval_detect.verdicts import Evidence, Verdict


@click.command("demo", cls=Command, examples="rd demo\nrd demo --keep demo/")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Leave the pictures and the index in this folder.",
)
@click.pass_obj
def command(run: Run, keep: Path | None) -> None:
    """Take the whole tour on sample images.

    Builds a toy index, judges pictures that were held back, teaches it a generator family that it
    did not know, and judges again. Takes a minute or two the first time, then seconds, and no network.
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
    spec = tour.index.snapshot().manifest.encoder
    output.lines(_introduction(spec))
    with progress(len(tour.pictures.all), "Embedding", output) as meter:
        tour.look(meter.advance)
    started = time.monotonic()
    tour.build()
    _built(output, tour, time.monotonic() - started)
    photographs, fakes = tour.ask(tour.pictures.real_queries), tour.ask(tour.pictures.fake_queries)
    _held_back(output, photographs, fakes)
    before = tour.ask(tour.pictures.newcomer_queries)
    started = time.monotonic()
    tour.teach()
    taught_s = time.monotonic() - started
    after = tour.ask(tour.pictures.newcomer_queries)
    _taught(output, tour, before, after, taught_s)
    photographs_after = tour.ask(tour.pictures.real_queries)
    _unharmed(output, photographs, photographs_after)
    found = _audited(output, tour)
    output.lines(_closing(spec, kept))
    record = _record(tour, (photographs, photographs_after), fakes, (before, after))
    output.record(record | {"audit": found}, text=[])


def _introduction(spec: EncoderSpec) -> list[Line]:
    classifier = f"{spec.name}, {spec.note} and no CLIP (rd doctor says how to get one)"
    return [
        [("rd tells photographs from generated images by the references nearest to them.", "strong")],
        "",
        "This is a toy: photographs, mostly of interiors, against mixed generated art, seen by",
        f"{spec.note if spec.is_clip else classifier}.",
        "What the pictures show differs between the two banks, so the numbers prove nothing; they",
        "show how rd works. Scores are uncalibrated; above zero is closer to the fake bank.",
    ]


def _built(output: Output, tour: Tour, elapsed_s: float) -> None:
    pictures = tour.pictures
    n_fakes, n_families = sum(map(len, pictures.fakes.values())), len(pictures.fakes)
    output.lines(
        [
            "",
            [("1  Build", "strong"), f"   rd build-index --real real/ --fake fake/   ({elapsed_s:.1f} s)"],
            f"   {len(pictures.real)} photographs and {n_fakes} fakes of {n_families} generator families,",
            f"   all as WebP squares of 256 pixels. Left out for now: {pictures.newcomer}.",
        ]
    )


def _held_back(output: Output, photographs: Sequence[Verdict], fakes: Sequence[Verdict]) -> None:
    output.lines(["", [("2  Ask", "strong"), "     rd query held-back/"]])
    for verdict in (*photographs[:3], *fakes[:3]):
        output.lines([_line(verdict)])
    right_real, right_fakes = sum(v.score <= 0 for v in photographs), sum(v.score > 0 for v in fakes)
    output.lines(
        [
            f"   {right_real} of {len(photographs)} held-back photographs are closer to the real bank,",
            f"   {right_fakes} of {len(fakes)} held-back fakes of known families to the fake bank.",
        ]
    )


def _line(verdict: Verdict) -> Line:
    counts = f"{verdict.votes.fake:>2} of {verdict.votes.of} nearest are fake"
    return [f"   {_short(verdict.input):<34}  {verdict.score:+.2f}  ", *_bank(verdict), f"  {counts}"]


def _taught(
    output: Output, tour: Tour, before: Sequence[Verdict], after: Sequence[Verdict], elapsed_s: float
) -> None:
    family = tour.pictures.newcomer
    output.lines(
        [
            "",
            [
                ("3  Teach", "strong"),
                f"   rd bank add {family}/ --label fake --generator {family}   ({elapsed_s:.1f} s)",
            ],
            f"   {len(tour.pictures.taught)} references of {family} are added; nothing is trained.",
            f"   {len(after)} other {family} pictures, before and after:",
        ]
    )
    for old, new in zip(before, after, strict=True):
        output.lines(
            [
                f"   {_short(new.input)}",
                [
                    f"     score        {old.score:+.3f} → {new.score:+.3f}   closer to the ",
                    *_bank(old),
                    " → ",
                    *_bank(new),
                ],
                f"     nearest fake  {_nearest_fake(old)}",
                *(
                    [f"             now   {_nearest_fake(new)}"]
                    if _nearest_fake(old) != _nearest_fake(new)
                    else []
                ),
            ]
        )
    output.lines(
        [
            "   A score moves as far as the new references resemble the picture, and the",
            "   evidence says which do. A reference helps pictures that are like it.",
        ]
    )


def _bank(verdict: Verdict) -> list[Part]:
    name = "fake" if verdict.score > 0 else "real"
    return [(f"{name.upper()} bank", name)]


def _nearest_fake(verdict: Verdict) -> str:
    best: Evidence | None = next((e for e in verdict.evidence if e.label == "fake"), None)
    if best is None:
        return f"none among the {verdict.votes.of} nearest (best {verdict.nearest['fake']:.3f})"
    return f"{best.similarity:.3f}  {best.generator}  {_short(best.uri)}"


def _unharmed(output: Output, before: Sequence[Verdict], after: Sequence[Verdict]) -> None:
    flagged, still = (sum(v.score > 0 for v in verdicts) for verdicts in (before, after))
    output.lines(
        [
            f"   Photographs closer to the fake bank: {flagged} of {len(before)} before, {still} after.",
            "   rd bank rollback takes the lesson back; rd bank remove unlearns any one reference.",
        ]
    )


def _audited(output: Output, tour: Tour) -> dict[str, Any]:
    """The toy index is no evidence, and rd says so itself."""
    from retrieval_detect.evaluate.audit import audit
    from retrieval_detect.evaluate.material import look_through, of_index
    from retrieval_detect.report.audit import audit_json, audit_lines

    found = audit(look_through(of_index(tour.index.snapshot())))
    output.lines(
        ["", [("4  Audit", "strong"), "   rd audit"], *(f"   {line}".rstrip() for line in audit_lines(found))]
    )
    return audit_json(found)


def _closing(spec: EncoderSpec, kept: Path | None) -> list[Line]:
    encoder = f" --encoder {spec.name}" if spec.is_clip else ""
    lines: list[Line] = [
        "",
        [("For a real one", "strong"), ", with your photographs and fakes and a CLIP encoder:"],
        f"   rd build-index --real photos/ --fake fakes/{encoder}",
        "   rd query suspect.jpg",
    ]
    if kept:
        lines += ["", f"   Kept in {kept}: rd query {kept}/images/fake/flux --index {kept}/toy"]
    return lines


def _short(uri: str) -> str:
    path = Path(uri)
    return f"{path.parent.name}/{path.stem}"[:34]


def _record(
    tour: Tour,
    photographs: tuple[Sequence[Verdict], Sequence[Verdict]],
    fakes: Sequence[Verdict],
    newcomers: tuple[Sequence[Verdict], Sequence[Verdict]],
) -> dict[str, Any]:
    def scores(verdicts: Sequence[Verdict]) -> dict[str, float]:
        return {_short(v.input): round(v.score, 6) for v in verdicts}

    return {
        "toy": True,
        "encoder": tour.index.snapshot().manifest.encoder.name,
        "held_back_family": tour.pictures.newcomer,
        "photographs": {"before": scores(photographs[0]), "after": scores(photographs[1])},
        "fakes": scores(fakes),
        "newcomers": {"before": scores(newcomers[0]), "after": scores(newcomers[1])},
    }
