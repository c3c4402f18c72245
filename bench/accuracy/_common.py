"""What the commands of ``bench.accuracy`` share: an index, ``rd eval`` on it, the result with its plots.

Without ``--index`` the images of ``--data`` (real/SOURCE and fake/GENERATOR) play both parts, as
``Study.teach`` says. With it, that index is asked about ``--data``, a published set; the index is only read.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from bench._data import Listed, add_data, embedded, encoders_of
from bench._frame import RESULTS, Clock, about, add_render, command_of, origin, show, tried
from bench._machine import commit
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.evaluate.context import Result
from retrieval_detect.report.page import charts, svg
from retrieval_detect.report.tables import markdown_table
from retrieval_detect.teach.projections import fit_default

CATEGORIES = {
    "faces": ("stylegan2_faces", "ffhq_faces", "unsplash_faces"),
    "shoes": ("midjourney_shoes", "shoes"),
}
"""What the folders of the shared images show; all others show anything."""

Json = Any
Image = TypeVar("Image", bound=Listed)


@dataclass(frozen=True)
class Study:
    """One command. ``runs`` : arguments of each ``rd eval``. ``table`` : a run's documents, one an encoder, →
    Markdown.

    ``teach`` : what an index of a plain tree holds: ``all`` images (the protocol leaves out what it asks
    about), ``fifths`` (four of five of each folder, the fifth is asked about), or ``one`` (the same, but of
    the fakes those of one GAN alone, as ProGAN teaches in the papers). ``layout`` : the published set's name.
    ``train`` : arguments of ``rd train`` for an index made here. ``plots`` : titles of charts that are kept.
    ``also`` : what else is measured, beside ``rd eval``. ``told`` : what its command was told beside.
    """

    name: str
    runs: tuple[tuple[str, ...], ...]
    table: Callable[[Sequence[Json]], str]
    teach: Literal["all", "fifths", "one"]
    layout: str = "auto"
    compare: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    train: tuple[tuple[str, ...], ...] = ()
    plots: str = ".*"
    also: Callable[[argparse.Namespace], dict[str, Json]] = lambda _: {}
    told: str = ""


def main(study: Study, description: str, arguments: Sequence[str] | None = None) -> None:
    """Measure and write JSON and SVG, or show an earlier result and put it into docs/numbers.md."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.accuracy.{study.name}", description=description)
    add_data(parser)
    parser.add_argument(
        "--index", type=Path, help=f"Ask this index about --data, laid out as {study.layout}."
    )
    parser.add_argument("--heads", default="", help="Also measure these heads of --index: lc,lp.")
    parser.add_argument("--cache", type=Path, help="Where rd eval keeps vectors, if not in the user's cache.")
    parser.add_argument("--out", type=Path, help="Folder of the result (default: bench/results).")
    add_render(parser)
    options = parser.parse_args(arguments)
    if options.render:
        show(options.render, options.command, partial(markdown, study))
        return
    result, drawings = measure(study, options)
    if options.out or not tried(options):
        _write(study, result, drawings, options.out or RESULTS)
    print(markdown(study, result))


def _write(study: Study, result: dict[str, Json], drawings: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"accuracy-{study.name}-{result['date'][:10]}"
    for title, drawing in drawings.items():
        (folder / f"{stem}-{slug(title)}.svg").write_text(drawing, encoding="utf-8")
    result["plots"] = [f"{stem}-{slug(title)}.svg" for title in drawings]
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":")).replace("},{", "},\n{")
    (folder / f"{stem}.json").write_text(text + "\n", encoding="utf-8")


def slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


# ---------------------------------------------------------------- measuring


def measure(study: Study, options: argparse.Namespace) -> tuple[dict[str, Json], dict[str, str]]:
    """The result, and its charts by title."""
    clock = Clock()
    head = about(f"accuracy/{study.name}", command=command_of(f"accuracy.{study.name}", options) + study.told)
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        if options.index:
            asked = [*study.compare, "--layout", study.layout, *_methods(study, options.heads.split(","))]
            runs = _runs(study, (options.index, options.data), asked, options)
        else:
            runs = []
            for number, name in enumerate(encoders_of(options)):
                given = _taught(study, name, options, work / f"{number}", clock)
                runs += _runs(study, given, _methods(study, map(_named, study.train)), options)
    for run in runs:
        run["about"] |= {"data": options.data.name, "images_that_teach": "" if options.index else study.teach}
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result = {
        **head,
        "git_commit": commit(),
        **study.also(options),
        "elapsed_s": clock.elapsed_s,
        "cpu_s": round(sum(own.ru_utime + own.ru_stime for own in used), 1),
        "runs": runs,
    }
    return result, drawn(study, runs)


def _named(arguments: Sequence[str]) -> str:
    return arguments[arguments.index("--name") + 1]


def _methods(study: Study, more: Iterable[str]) -> list[str]:
    methods = [*study.methods, *filter(None, more)]
    return ["--methods", ",".join(methods)] if methods else []


def _taught(
    study: Study, encoder: str, options: argparse.Namespace, work: Path, clock: Clock
) -> tuple[Path, Path]:
    """An index of the images that teach, and a listing of those that are asked about."""
    given = embedded(load_encoder(encoder), data=options.data, images=options.images, say=clock.say)
    known, asked = split(study, given.samples)
    store = given.index(work / "index", known)
    fit_default(store, calibrate=False)
    for arguments in study.train:
        rd("train", *arguments, "--index", work / "index")
    return work / "index", listing(asked, work)


def _runs(
    study: Study, given: tuple[Path, Path], asked: Sequence[str], options: argparse.Namespace
) -> list[dict[str, Json]]:
    cache = ["--cache", str(options.cache)] if options.cache else []
    return [evaluated(*given, [*cache, *asked, *run]) for run in study.runs]


def evaluated(index: Path, data: Path, arguments: Sequence[str]) -> dict[str, Json]:
    """One ``rd eval``, with the seconds it took."""
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as out:
        rd("eval", data, "--index", index, "--out", out, *arguments)
        document: dict[str, Json] = json.loads((Path(out) / "result.json").read_text(encoding="utf-8"))
    return document | {"elapsed_s": clock.elapsed_s}


def rd(*arguments: object) -> None:
    """Run it, with all it says on stderr."""
    command = [sys.executable, "-m", "retrieval_detect", *map(str, arguments)]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode not in (0, 3):  # 3: some images cannot be used, and were named
        raise SystemExit(done.returncode)


def drawn(study: Study, runs: Sequence[Mapping[str, Json]]) -> dict[str, str]:
    found = {}
    for run in runs:
        parts = (run["protocol"], run["title"], tuple(run["columns"]), tuple(run["rows"]))
        result = Result(*parts, tuple(run["notes"]), run["detail"])
        of = f"{run['about']['encoder']} " if len(_encoders(runs)) > 1 else ""
        found |= {
            f"{of}{run['title']} {c.title}": svg(c)
            for c in charts(result)
            if re.fullmatch(study.plots, c.title)
        }
    return found


# ---------------------------------------------------------------- who teaches, who is asked


def split(study: Study, images: Sequence[Image]) -> tuple[list[Image], list[Image]]:
    """Who teaches, with what each shows; and who is asked about."""
    gan = next((i.name for i in images if i.fake and "gan" in i.name), next(i.name for i in images if i.fake))
    known = [
        replace(image, facts=replace(image.facts, category=_category(image.name)))
        for image in images
        if (study.teach == "all" or not image.held)
        and (study.teach != "one" or not image.fake or image.name == gan)
    ]
    return known, [image for image in images if image.held or study.teach == "all"]


def _category(name: str) -> str:
    return next((key for key, names in CATEGORIES.items() if name in names), "anything")


def listing(images: Sequence[Listed], folder: Path) -> Path:
    """A manifest for ``rd eval``."""
    with (folder / "asked.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "generator", "source"])
        for image in images:
            writer.writerow(
                [image.path.resolve(), image.facts.label, image.facts.generator, image.facts.source]
            )
    return folder / "asked.csv"


# ---------------------------------------------------------------- words


def markdown(study: Study, result: Mapping[str, Json]) -> str:
    """The tables of a result, with what they were measured on; a run of all encoders is one table."""
    runs, encoders = result["runs"], _encoders(result["runs"])
    first = runs[0]["about"]
    each = ", ".join(f"{run['title'].lower()} {run['elapsed_s']:.0f} s" for run in runs)
    named = f"encoder{'s' * (len(encoders) > 1)} {' and '.join(f'`{name}`' for name in encoders)}"
    parts = [
        f"{first['images']:,} images to ask about, {first['references']['real']:,} photographs and "
        f"{first['references']['fake']:,} fakes in the index; {named}. "
        f"{origin(result)}: {result['elapsed_s']:.0f} s ({each}), {result['cpu_s']:.0f} s of one core."
    ]
    n = len(runs) // len(encoders)
    for same in (runs[number::n] for number in range(n)):
        notes = dict.fromkeys(note for run in same for note in run["notes"])
        parts += [f"{same[0]['title']}:", study.table(same), " ".join(notes)]
    parts += [f"![{name}](../bench/results/{name})" for name in result.get("plots", ())]
    return "\n\n".join(parts)


def _encoders(runs: Sequence[Mapping[str, Json]]) -> list[str]:
    return list(dict.fromkeys(run["about"]["encoder"] for run in runs))


Rows = Callable[[Json], Iterable[Mapping[str, Json]]]


def table(runs: Sequence[Json], columns: Sequence[str], rows_of: Rows = lambda run: run["rows"]) -> str:
    """Columns of the rows of a run; where it is of several encoders, each row names its own."""
    several = len(runs) > 1
    rows = [{"encoder": f"`{run['about']['encoder']}`", **row} for run in runs for row in rows_of(run)]
    return markdown_table((*["encoder"] * several, *columns), rows)


def columns_of(*columns: str) -> Callable[[Sequence[Json]], str]:
    """A table of these columns of a run's rows."""
    return lambda runs: table(runs, columns)


CALIBRATED = "mean accuracy, calibrated"


def by_method(runs: Sequence[Json]) -> str:
    """A row a method: accuracy at score 0 and AP in percent, mean and by column, as the papers have them.

    Beside it the mean accuracy at the threshold from calibration rows: a vote's 0 is no neutral point where
    one generator is all that a bank holds.
    """
    columns = ["mean", *(name for name in runs[0]["detail"]["methods"]["rd"]["columns"] if name != "mean")]
    return table(runs, ("accuracy, AP", CALIBRATED, *columns), lambda run: [*_ours(run), *_published(run)])


def _published(run: Json) -> list[dict[str, str]]:
    """What the paper has, where ``rd eval --compare`` put it beside."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in run.get("compared", ()):
        for name, value in row.items():
            if isinstance(value, float) and " (ours)" not in name and " less " not in name:
                found.setdefault(name, {}).setdefault(row["column"], {})[row["metric"]] = value
    return [
        {"accuracy, AP": f"published: {name}"}
        | {c: ", ".join(f"{own[m]:.1f}" if m in own else "-" for m in ("acc", "ap")) for c, own in by.items()}
        for name, by in found.items()
    ]


def _ours(run: Json) -> list[dict[str, str]]:
    methods = {name: said["columns"] for name, said in run["detail"]["methods"].items() if "columns" in said}
    return [
        {"accuracy, AP": name, CALIBRATED: _percent(own["mean"].get("acc_calibrated"))}
        | {c: f"{_percent(said['acc_fixed'])}, {_percent(said['ap'])}" for c, said in own.items()}
        for name, own in sorted(methods.items(), key=lambda method: method[0] != "rd")
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
