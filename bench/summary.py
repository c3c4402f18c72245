"""The table of README.md, from the newest results: ``python -m bench.summary``. docs/numbers.md has all.

The table shows CLIP, and beside it what the other encoder found in the same run. Where only another was
measured, the line names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench import _numbers
from bench._frame import RESULTS, by_encoder, markdown_table, publish
from retrieval_detect.encoders.registry import CLIP_ENCODER, OFFLINE_ENCODER
from retrieval_detect.evaluate.newcomers import RD
from retrieval_detect.evaluate.protocols import MEAN, TRIVIAL

_RETRAINED = "LogisticRegression, retrained"
_FEW = (0, 5, 20)
_WHAT = {
    OFFLINE_ENCODER: " (an ImageNet classifier, no CLIP)",
    CLIP_ENCODER: " (OpenAI's CLIP ViT-B/16, weights rounded to 8 bits)",
}
_RESULTS = (
    *("accuracy-known", "accuracy-few_shot", "accuracy-robustness", "calibration"),
    *("main_job", "embed", "search", "serve"),
)

Result = Mapping[str, Any]


def main() -> None:
    """Print the table, and put it into README.md."""
    results = {name: newest(name) for name in _RESULTS}
    publish("summary", "python -m bench.summary", table(results), page=_numbers.README)


def newest(name: str) -> Result:
    """The newest result of a benchmark."""
    paths = [path for path in RESULTS.glob(f"{name}-*.json") if _numbers.block_of(path) == name]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return max(results, key=lambda result: result["date"])


def table(results: Mapping[str, Result]) -> str:
    """What rd finds and how fast it is, each line beside what else one would use, as Markdown."""
    machine = results["main_job"]["machine"]
    encoder = _first(_runs(results["accuracy-few_shot"]))
    what = _WHAT.get(encoder, "")
    days = sorted({result["date"][:10] for result in results.values()})
    return "\n".join(
        [
            markdown_table(("", "rd", "beside it"), [*_found(results), *_speed(results)]),
            "",
            f"Encoder `{encoder}`{what}, but for the lines that name another; "
            f"{machine['cpu']}, {machine['cores']} cores, no GPU; {' and '.join(days)}.",
        ]
    )


def _runs(result: Result) -> dict[str, Any]:
    """Encoder → what a study found with it in its first protocol; CLIP comes first."""
    found: dict[str, Any] = {}
    for run in result["runs"]:
        found.setdefault(run["about"]["encoder"], run)
    return dict(sorted(found.items(), key=lambda pair: pair[0] != CLIP_ENCODER))


def _first(by_name: Mapping[str, Any]) -> str:
    return next(iter(by_name))


def _found(results: Mapping[str, Result]) -> Iterator[tuple[str, str, str]]:
    few = _runs(results["accuracy-few_shot"])
    shown = _first(few)

    def line(what: str, found: Mapping[str, str], peers: str) -> tuple[str, str, str]:
        """``found`` : encoder → figure; the first is rd's, the others stand beside it."""
        (encoder, figure), *others = found.items()
        named = "" if encoder == shown else f" (`{encoder}`)"
        return f"{what}{named}", figure, "; ".join([peers, *(f"with `{name}` {x}" for name, x in others)])

    yield line("generators the banks know, AUC", *_known(_runs(results["accuracy-known"])))
    for n in _FEW:
        given = f"with {n} references of it" if n else "before any reference of it"
        recalls = {name: _recalls(run, n) for name, run in few.items()}
        ours = {name: _share(recall[RD]["recall"]) for name, recall in recalls.items()}
        rd, retrained = (recalls[shown][method] for method in (RD, _RETRAINED))
        ours[shown] += f" ({_share(rd['recall_low'])} to {_share(rd['recall_high'])})"
        peers = f"logistic regression{' trained again' if n else ''} {_share(retrained['recall'])}"
        yield line(f"a new generator, {given}: found at 5 % false alarms", ours, peers)
    settings = {
        name: {row["setting"]: f"{row['auroc']:.2f}" for row in run["rows"]}
        for name, run in _runs(results["accuracy-robustness"]).items()
    }
    yield line(
        "images saved again as JPEG of quality 30, AUC",
        {name: own["JPEG 30"] for name, own in settings.items()},
        f"the same images as they are {settings[_first(settings)]['as is']}",
    )
    calibrated = {own["encoder"]: own for own in by_encoder(results["calibration"])}
    names = sorted(calibrated, key=lambda name: name != CLIP_ENCODER)
    first = calibrated[names[0]]
    yield line(
        "photographs of a source that no bank knows, called fake-like (20 % asked for)",
        {name: _left_out(calibrated[name], "new 0.2") for name in names},
        f"were the source said to be known (5 %) {_left_out(first, '0.05')}; fakes of known generators "
        f"{_generators(first)}",
    )


def _known(runs: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """rd's AUC by encoder, and its peers with the first."""
    aucs = {
        name: {m: f"{x['columns'][MEAN]['auroc']:.2f}" for m, x in run["detail"]["methods"].items()}
        for name, run in runs.items()
    }
    first = aucs[_first(aucs)]
    peers = f"logistic regression {first['LogisticRegression']}, {TRIVIAL} {first[TRIVIAL]}"
    return {name: own[RD] for name, own in aucs.items()}, peers


def _recalls(run: Any, n: int) -> dict[str, Any]:
    """Method → its mean over generators, of which n references are known."""
    return {row["method"]: row for row in run["rows"] if (row["generator"], row["n"]) == ("mean", n)}


def _left_out(found: Mapping[str, Any], asked: str) -> str:
    """Shares called fake-like of the source least so, and of the one most so."""
    return _range([own["verdicts"][asked][source] for source, own in found["source_left_out"].items()])


def _generators(found: Mapping[str, Any]) -> str:
    """The same of generators that the banks know, as it is said by default."""
    by_name = found["every_source_known"]["verdicts"]["new 0.2"]
    return _range([counts for name, counts in by_name.items() if name not in found["source_left_out"]])


def _range(counts: Sequence[Mapping[str, int]]) -> str:
    flagged = [each.get("fake-like", 0) / sum(each.values()) for each in counts]
    return f"{_share(min(flagged))} to {_share(max(flagged))}"


def _speed(results: Mapping[str, Result]) -> Iterator[tuple[str, str, str]]:
    embed = results["embed"]["embed"]
    yield (
        f"folder → stored embeddings, {results['embed']['model']} (random weights)",
        f"{embed['rd_per_s']['median']:.0f} images/s",
        f"open_clip in a plain loop {embed['open_clip_float32_per_s']['median']:.0f}",
    )
    large = max(results["search"]["search"], key=lambda found: found["n"])
    took = {name: lane["median"] * 1e3 for name, lane in large["queries"]["1"].items()}
    yield (
        f"exact search of {large['n']:,} vectors of {large['d']} dimensions",
        f"{took['rd']:.0f} ms",
        f"stock FAISS {took['faiss']:.0f} ms, usearch {took['usearch']:.0f} ms",
    )
    asked = by_encoder(results["main_job"])[0]
    query = asked["speed"]["query"]
    yield (
        f"`rd query` of one image from a cold start (`{asked['encoder']['name']}`)",
        f"{query['cold_query_s']['median']:.1f} s",
        f"a script that only encodes it {query['cold_bare_script_s']['median']:.1f} s",
    )
    served = results["serve"]["runs"]
    yield (
        f"`rd serve`, 32 clients (`{OFFLINE_ENCODER}`)",
        f"{served['together']['images_per_s']:.0f} images/s",
        f"one image at a time {served['one at a time']['images_per_s']:.0f}",
    )


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


if __name__ == "__main__":
    main()
