"""The table of README.md, from the newest results: ``python -m bench.summary``. docs/numbers.md has all.

Where a result is of several encoders, it is the first that the table shows. The encoder that new generators
were measured with is named below; lines that another was measured with name it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
    encoder = _encoder(results["accuracy-few_shot"])
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


def _encoder(result: Result) -> str:
    """The first that a study of accuracy asked."""
    encoder: str = result["runs"][0]["about"]["encoder"]
    return encoder


def _found(results: Mapping[str, Result]) -> Iterator[tuple[str, str, str]]:
    encoder = _encoder(results["accuracy-few_shot"])

    def by(name: str) -> str:
        return f" (`{name}`)" if name != encoder else ""

    methods = results["accuracy-known"]["runs"][0]["detail"]["methods"]
    known = {name: f"{said['columns'][MEAN]['auroc']:.2f}" for name, said in methods.items()}
    yield (
        f"generators the banks know, AUC{by(_encoder(results['accuracy-known']))}",
        known[RD],
        f"logistic regression {known['LogisticRegression']}, {TRIVIAL} {known[TRIVIAL]}",
    )
    rows = results["accuracy-few_shot"]["runs"][0]["rows"]
    few = {(row["method"], row["n"]): row for row in rows if row["generator"] == "mean"}
    for n in _FEW:
        ours = few[RD, n]
        found = f"{_share(ours['recall'])} ({_share(ours['recall_low'])} to {_share(ours['recall_high'])})"
        beside = _share(few[_RETRAINED, n]["recall"])
        given = f"with {n} references of it" if n else "before any reference of it"
        yield (
            f"a new generator, {given}: found at 5 % false alarms",
            found,
            f"logistic regression{' trained again' if n else ''} {beside}",
        )
    settings = {row["setting"]: row["auroc"] for row in results["accuracy-robustness"]["runs"][0]["rows"]}
    yield (
        f"images saved again as JPEG of quality 30, AUC{by(_encoder(results['accuracy-robustness']))}",
        f"{settings['JPEG 30']:.2f}",
        f"the same images as they are {settings['as is']:.2f}",
    )
    calibrated = by_encoder(results["calibration"])[0]
    flagged = [
        counts.get("fake-like", 0) / sum(counts.values())
        for source, found in calibrated["source_left_out"].items()
        for counts in [found["verdicts"]["0.05"][source]]
    ]
    yield (
        f"photographs of a source that no bank knows, called fake-like{by(calibrated['encoder'])}",
        f"{_share(min(flagged))} to {_share(max(flagged))}, by source",
        "5 % were asked for, and hold for known sources",
    )


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
