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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench._data import DEFAULT_DATA, FOLD
from bench._frame import RESULTS, add_render, origin, show
from bench._machine import commit, machine, versions
from retrieval_detect.encoders.registry import OFFLINE_ENCODER
from retrieval_detect.evaluate.context import Result
from retrieval_detect.report.page import charts, svg
from retrieval_detect.report.tables import markdown_table

CATEGORIES = {
    "faces": ("stylegan2_faces", "ffhq_faces", "unsplash_faces"),
    "shoes": ("midjourney_shoes", "shoes"),
}
"""What the folders of the shared images show; all others show anything."""

Json = Any


@dataclass(frozen=True)
class Study:
    """One command. ``runs`` : arguments of each ``rd eval``. ``table`` : a run's document → Markdown.

    ``teach`` : what an index of a plain tree holds: ``all`` images (the protocol leaves out what it asks
    about), ``fifths`` (four of five of each folder, the fifth is asked about), or ``one`` (the same, but of
    the fakes those of one GAN alone, as ProGAN teaches in the papers). ``layout`` : the published set's name.
    ``train`` : arguments of ``rd train`` for an index made here. ``plots`` : titles of charts that are kept.
    ``also`` : what else is measured, beside ``rd eval``.
    """

    name: str
    runs: tuple[tuple[str, ...], ...]
    table: Callable[[Json], str]
    teach: Literal["all", "fifths", "one"]
    layout: str = "auto"
    compare: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    train: tuple[tuple[str, ...], ...] = ()
    plots: str = ".*"
    also: Callable[[argparse.Namespace], dict[str, Json]] = lambda _: {}


def main(study: Study, description: str, arguments: Sequence[str] | None = None) -> None:
    """Measure and write JSON and SVG, or show an earlier result and put it into docs/numbers.md."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.accuracy.{study.name}", description=description)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="Images, or a published set.")
    parser.add_argument(
        "--index", type=Path, help=f"Ask this index about --data, laid out as {study.layout}."
    )
    parser.add_argument("--heads", default="", help="Also measure these heads of --index: lc,lp.")
    parser.add_argument("--encoder", default=OFFLINE_ENCODER, help="Of the index made without --index.")
    parser.add_argument("--cache", type=Path, help="Keep embeddings here: a second run makes none anew.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Folder of the result.")
    add_render(parser)
    options = parser.parse_args(arguments)
    if options.render:
        show(options.render, options.command, partial(markdown, study))
        return
    result, drawings = measure(study, options)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"accuracy-{study.name}-{result['date'][:10]}"
    for title, drawing in drawings.items():
        (options.out / f"{stem}-{slug(title)}.svg").write_text(drawing, encoding="utf-8")
    result["plots"] = [f"{stem}-{slug(title)}.svg" for title in drawings]
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":")).replace("},{", "},\n{")
    (options.out / f"{stem}.json").write_text(text + "\n", encoding="utf-8")
    print(markdown(study, result))


def slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


# ---------------------------------------------------------------- measuring


def measure(study: Study, options: argparse.Namespace) -> tuple[dict[str, Json], dict[str, str]]:
    """The result, and its charts by title."""
    date, started_s = datetime.now(UTC).replace(microsecond=0), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        methods, data = [*study.methods, *filter(None, options.heads.split(","))], options.data
        asked = ["--cache", str(options.cache or work / "cache")]
        if options.index:
            index = options.index
            asked += [*study.compare, "--layout", study.layout]
        else:
            index, data = work / "index", split(study, data, work)
            rd("build-index", work / "recipe.toml", "--encoder", options.encoder, "--index", index)
            for arguments in study.train:
                rd("train", *arguments, "--index", index)
            methods += [arguments[arguments.index("--name") + 1] for arguments in study.train]
        if methods:
            asked += ["--methods", ",".join(methods)]
        runs = [evaluated(index, data, [*asked, *run], work, number) for number, run in enumerate(study.runs)]
    teach = "" if options.index else study.teach
    for document in runs:
        document["about"] |= {"data": options.data.name, "images_that_teach": teach}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "benchmark": f"accuracy/{study.name}",
        "date": date.isoformat(),
        "command": f"python -m bench.accuracy.{study.name}",
        "git_commit": commit(),
        "machine": machine(),
        "versions": versions(),
        **study.also(options),
        "elapsed_s": round(time.monotonic() - started_s, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "runs": runs,
    }
    return result, drawn(study, runs)


def evaluated(index: Path, data: Path, arguments: Sequence[str], work: Path, number: int) -> dict[str, Json]:
    """One ``rd eval``, with the seconds it took."""
    out, started_s = work / f"out-{number}", time.monotonic()
    rd("eval", data, "--index", index, "--out", out, *arguments)
    document: dict[str, Json] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return document | {"elapsed_s": round(time.monotonic() - started_s, 1)}


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
        found |= {
            f"{run['title']} {c.title}": svg(c) for c in charts(result) if re.fullmatch(study.plots, c.title)
        }
    return found


# ---------------------------------------------------------------- who teaches, who is asked


def split(study: Study, data: Path, work: Path) -> Path:
    """Write the recipe of an index; what is asked about it."""
    folders = {
        label: sorted(path for path in (data / label).glob("*") if path.is_dir())
        for label in ("real", "fake")
    }
    if not all(folders.values()):
        raise SystemExit(f"{data} has no real/SOURCE and fake/GENERATOR; a published set needs --index.")
    tables, asked = [], []
    for label, own in folders.items():
        teachers = [path for path in own if "gan" in path.name] or own
        for folder in own:
            images = sorted(path for path in folder.rglob("*") if path.is_file())
            held = images[FOLD - 1 :: FOLD] if study.teach != "all" else []
            known = [path for path in images if path not in set(held)]
            asked += [{"path": p, "label": label, _name(label): folder.name} for p in held]
            if study.teach != "one" or label == "real" or folder == teachers[0]:
                tables.append(_table(label, folder.name, known))
    (work / "recipe.toml").write_text("\n".join(tables), encoding="utf-8")
    if study.teach == "all":
        return data
    with (work / "asked.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "label", "generator", "source"], restval="")
        writer.writeheader()
        writer.writerows(asked)
    return work / "asked.csv"


def _name(label: str) -> str:
    return "generator" if label == "fake" else "source"


def _table(label: str, name: str, images: Sequence[Path]) -> str:
    category = next((key for key, names in CATEGORIES.items() if name in names), "anything")
    facts = {"label": label, _name(label): name, "category": category}
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items()]
    paths = ",\n".join(json.dumps(str(path.resolve())) for path in images)
    return "\n".join(["[[references]]", *lines, f"paths = [\n{paths}]\n"])


# ---------------------------------------------------------------- words


def markdown(study: Study, result: Mapping[str, Json]) -> str:
    """The tables of a result, with what they were measured on."""
    first = result["runs"][0]["about"]
    each = ", ".join(f"{run['title'].lower()} {run['elapsed_s']:.0f} s" for run in result["runs"])
    parts = [
        f"{first['images']:,} images to ask about, {first['references']['real']:,} photographs and "
        f"{first['references']['fake']:,} fakes in the index; encoder `{first['encoder']}`. "
        f"{origin(result)}: {result['elapsed_s']:.0f} s ({each}), {result['cpu_s']:.0f} s of one core."
    ]
    for run in result["runs"]:
        parts += [f"{run['title']}:", study.table(run), " ".join(run["notes"])]
    parts += [f"![{name}](../bench/results/{name})" for name in result.get("plots", ())]
    return "\n\n".join(parts)


def rows_of(*columns: str) -> Callable[[Json], str]:
    """A table of these columns of a run's rows."""
    return lambda run: markdown_table(columns, run["rows"])


CALIBRATED = "mean accuracy, calibrated"


def by_method(run: Json) -> str:
    """A row a method: accuracy at score 0 and AP in percent, mean and by column, as the papers have them.

    Beside it the mean accuracy at the threshold from calibration rows: a vote's 0 is no neutral point where
    one generator is all that a bank holds.
    """
    columns, rows = _ours(run)
    return markdown_table(
        ("accuracy, AP", CALIBRATED, *columns), [*rows, *_published(run.get("compared", ()))]
    )


def _published(compared: Sequence[Mapping[str, Json]]) -> list[dict[str, str]]:
    """What the paper has, where ``rd eval --compare`` put it beside."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in compared:
        for name, value in row.items():
            if isinstance(value, float) and " (ours)" not in name and " less " not in name:
                found.setdefault(name, {}).setdefault(row["column"], {})[row["metric"]] = value
    return [
        {"accuracy, AP": f"published: {name}"}
        | {c: ", ".join(f"{own[m]:.1f}" if m in own else "-" for m in ("acc", "ap")) for c, own in by.items()}
        for name, by in found.items()
    ]


def _ours(run: Json) -> tuple[list[str], list[dict[str, str]]]:
    methods = {name: said["columns"] for name, said in run["detail"]["methods"].items() if "columns" in said}
    columns = ["mean", *(name for name in methods["rd"] if name != "mean")]
    rows = [
        {"accuracy, AP": name, CALIBRATED: _percent(own["mean"].get("acc_calibrated"))}
        | {c: f"{_percent(own[c]['acc_fixed'])}, {_percent(own[c]['ap'])}" for c in columns}
        for name, own in sorted(methods.items(), key=lambda method: method[0] != "rd")
    ]
    return columns, rows


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
