"""The result of ``bench.main_job`` as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench._frame import markdown_table
from bench._rivals import BALANCED, MAJORITY_CLASS, PIXELS, REGRESSION

_RIVALS = (REGRESSION, BALANCED, PIXELS, MAJORITY_CLASS)


def tables(result: Mapping[str, Any]) -> str:
    """Every table, with headings."""
    return "\n".join(
        [
            *_heading(result),
            "\n### Generators the banks know (in-distribution)\n",
            *_known_words(result),
            *_known_overall(result),
            "\nAUC, each generator's images against all photographs asked about:\n",
            *_known_by_generator(result, "auc"),
            "\nRecall at 5 % false alarms:\n",
            *_known_by_generator(result, "recall_at_5_percent_fpr"),
            "\n### A generator the banks do not know, then taught\n",
            *_unseen_words(result),
            *_unseen_mean(result),
            *_unseen_by_generator(result),
            "\n### Speed and size\n",
            *_costs(result),
            "\n### Adding to a growing index\n",
            *_growth(result),
        ]
    )


# ---------------------------------------------------------------- words


def _heading(result: Mapping[str, Any]) -> Iterator[str]:
    machine, versions, encoder = result["machine"], result["versions"], result["encoder"]
    if result["quick"]:
        yield "**A trial run on a few images: none of these numbers counts.**\n"
    faiss = next((f"{name} {versions[name]}" for name in versions if name.startswith("faiss")), "no FAISS")
    device = machine["gpu"] or "no GPU"
    yield (
        f"Encoder `{encoder['name']}` ({encoder['note']}), {encoder['engine']}. {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {device}; "
        f"Python {versions['python']}, torch {versions['torch']}, {faiss}. "
        f"{result['date'][:10]}, commit {(result['git_commit'] or 'unknown')[:12]}, `{result['command']}`."
    )


def _known_words(result: Mapping[str, Any]) -> Iterator[str]:
    known = result["in_distribution"]
    references, queries = known["references"], known["queries"]
    yield (
        f"In-distribution: the queries are every fifth image of the same folders the references come from. "
        f"{references['real']:,} photographs and {references['fake']:,} fakes, of which "
        f"{references['real_that_vote']:,} and {references['fake_that_vote']:,} vote; asked: "
        f"{queries['real']:,} photographs and {queries['fake']:,} fakes.\n"
    )


def _unseen_words(result: Mapping[str, Any]) -> Iterator[str]:
    unseen = result["unseen_generator"]
    yield (
        f"Each of {len(unseen['by_generator'])} generators is left out in turn, then n of its images are "
        f"added, drawn by {len(unseen['seeds'])} seeds; asked are other images of it, the same for all n, "
        "and photographs of sources the bank knows. AUC, then recall at 5 % false alarms, mean over "
        "generators.\n"
    )


# ---------------------------------------------------------------- accuracy


def _known_overall(result: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for name, quality in _ordered(result["in_distribution"]["methods"]):
        low, high = quality["auc_95_percent_interval"]
        rows.append(
            [
                name,
                f"{quality['auc']:.2f} ({low:.2f} to {high:.2f})",
                f"{quality['recall_at_5_percent_fpr']:.2f}",
                f"{quality['accuracy_at_zero']:.2f}",
            ]
        )
    yield markdown_table(["", "AUC (95 %)", "recall at 5 % false alarms", "accuracy at score 0"], rows)


def _known_by_generator(result: Mapping[str, Any], measure: str) -> Iterator[str]:
    methods = _ordered(result["in_distribution"]["methods"])
    generators = list(methods[0][1]["by_generator"])
    rows = []
    for name, quality in methods:
        cells = [f"{quality['by_generator'][generator][measure]:.2f}" for generator in generators]
        rows.append([name, *cells])
    yield markdown_table(["", *generators], rows)


def _unseen_mean(result: Mapping[str, Any]) -> Iterator[str]:
    means = result["unseen_generator"]["mean_over_generators"]
    names = [name for name, _ in _ordered(next(iter(means.values())))]
    rows = [[name, *(_pair(means[number][name]) for number in means)] for name in names]
    yield markdown_table(["", *(f"n = {number}" for number in means)], rows)


def _pair(quality: Mapping[str, float]) -> str:
    return f"{quality['auc']:.2f} {quality['recall_at_5_percent_fpr']:.2f}"


def _unseen_by_generator(result: Mapping[str, Any]) -> Iterator[str]:
    for generator, taught in result["unseen_generator"]["by_generator"].items():
        asked, added = taught["queries"], taught["added"]
        voting = "; ".join(
            f"of {n} added, {' or '.join(str(v) for v in sorted(set(cell['of_which_vote'])))} vote"
            for n, cell in added.items()
            if int(n)
        )
        yield (
            f"\n`{generator}`: {asked['fake']} fakes against {asked['real']} photographs; {voting}. "
            "AUC (range over seeds), then recall.\n"
        )
        names = [name for name, _ in _ordered(next(iter(added.values()))["methods"])]
        rows = [[name, *(_with_range(cell["methods"][name]) for cell in added.values())] for name in names]
        yield markdown_table(["", *(f"n = {number}" for number in added)], rows)


def _with_range(quality: Mapping[str, Mapping[str, float]]) -> str:
    value, recall = quality["auc"], quality["recall_at_5_percent_fpr"]["mean"]
    spread = "" if value["min"] == value["max"] else f" ({value['min']:.2f} to {value['max']:.2f})"
    return f"{value['mean']:.2f}{spread} {recall:.2f}"


def _ordered(methods: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Votes first, in the order they were measured in; rivals last, always there."""
    rivals = [(name, methods[name]) for name in _RIVALS if name in methods]
    return [(name, value) for name, value in methods.items() if name not in _RIVALS] + rivals


# ---------------------------------------------------------------- speed, size, growth


def _costs(result: Mapping[str, Any]) -> Iterator[str]:
    speed = result["speed"]
    rates, build, size = speed["in_process"], speed["build_command"], speed["index"]
    adding, query, start = speed["adding"], speed["query"], speed["start"]
    rows = [
        [
            f"building from {rates['images']:,} images (hash, decode, embed, group, commit, banks)",
            f"{_rate(rates['build_images_per_s'])} images/s",
            f"bare decode + encode loop: {_rate(rates['bare_loop_images_per_s'])} images/s",
        ],
        [
            "the same as a command",
            f"{build['build_index_s']:.1f} s",
            f"bare script: {build['bare_loop_s']:.1f} s",
        ],
        [
            "peak memory of that command",
            _mebibytes(build["build_index_peak_memory_bytes"]),
            f"bare script: {_mebibytes(build['bare_loop_peak_memory_bytes'])}",
        ],
        [
            f"index of {size['references']:,} references",
            f"{_mebibytes(size['index_bytes'])}, {size['index_bytes_per_reference'] / 1024:.1f} KiB each",
            f"one vector: {size['one_vector_bytes'] / 1024:.1f} KiB; "
            f"the images: {_mebibytes(size['images_bytes'])}",
        ],
        ["the command again, nothing new", _seconds(speed["nothing_new"]["build_index_again_s"]), ""],
        [
            f"`rd bank add` of {adding['images']} images",
            _seconds(adding["bank_add_s"]),
            f"bare script on them: {_seconds(adding['bare_script_s'])}",
        ],
        ["of it, after embedding", _seconds(adding["after_embedding_s"]), ""],
        [
            "`rd query` of one image, cold",
            _seconds(query["cold_query_s"]),
            f"bare script: {_seconds(query['cold_bare_script_s'])}",
        ],
        [
            "`Detector.query` of one image, warm",
            _seconds(query["warm_query_s"]),
            f"bare: {_seconds(query['warm_bare_s'])}",
        ],
        ["`rd --help`", _seconds(start["rd_help_s"]), f"Python alone: {_seconds(start['python_alone_s'])}"],
        ["`import retrieval_detect`", _seconds(start["import_retrieval_detect_s"]), ""],
    ]
    yield markdown_table(["", "rd", "beside it"], rows)


def _growth(result: Mapping[str, Any]) -> Iterator[str]:
    growth = result["growth"]
    yield (
        f"{growth['added_at_once']} made-up references of {growth['dimensions']} dimensions at a time, from "
        "vectors in memory to the committed generation. Their vectors alone are "
        f"{growth['vectors_of_one_addition_bytes'] / 1024:.0f} KiB, written twice: staged, then committed.\n"
    )
    rows = []
    for size, cost in growth["by_references_before"].items():
        time = _spread(cost["stage_and_commit_s"], "median", 1e3, "ms")
        written = cost["written_bytes"]
        volume = _spread(written, "mean", 1 / 1024, "KiB") if written else "not counted here"
        rows.append([f"{int(size):,}", time, volume, str(cost["shards_afterwards"])])
    yield markdown_table(
        ["references before", "time, median", "bytes written, mean", "shards afterwards"], rows
    )


def _spread(rounds: Mapping[str, float], middle: str, scale: float, unit: str) -> str:
    value, low, high = (rounds[name] * scale for name in (middle, "min", "max"))
    return f"{value:.0f} {unit} ({low:.0f} to {high:.0f})"


def _rate(rounds: Mapping[str, float]) -> str:
    return f"{rounds['median']:.0f} ({rounds['min']:.0f} to {rounds['max']:.0f})"


def _seconds(rounds: Mapping[str, float]) -> str:
    value = rounds["median"]
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"


def _mebibytes(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB" if size_bytes < 100 * 2**20 else f"{size_bytes / 2**20:,.0f} MiB"
