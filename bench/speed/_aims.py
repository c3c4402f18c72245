"""What speed must reach, and whether the results say it does: the table of ``bench.speed.run``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench._frame import markdown_table

Result = Mapping[str, Any]
HEAD = ("work", "must reach", "against, in the same run", "measured", "holds")


class Found(NamedTuple):
    """What was measured, in words; whether it is enough; where it is not; which peers were not there."""

    text: str
    holds: bool
    short: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Aim:
    """One line. ``part`` : the benchmark that measures it; ``note`` : why it may not hold."""

    part: str
    work: str
    must: str
    against: str
    look: Callable[[Result], Found]
    note: str = ""

    def cells(self, results: Mapping[str, Result]) -> tuple[str, ...]:
        """The line of the table."""
        if self.part not in results:
            why = "no GPU" if self.part == "gpu" else "not measured"
            return (self.work, self.must, self.against, f"open: {why}", "open")
        found = self.look(results[self.part])
        holds = "yes" if found.holds else "**no**"
        if found.short:
            holds += f" for {', '.join(found.short)}"
        if not found.holds and self.note:
            holds += f"; {self.note}"
        if found.absent:
            holds += f" (not there: {', '.join(found.absent)})"
        return (self.work, self.must, self.against, found.text, holds)


def table(results: Mapping[str, Result]) -> str:
    """Every aim as Markdown; ``results`` : the newest of each part."""
    lines = markdown_table(HEAD, (aim.cells(results) for aim in AIMS))
    return "\n".join([lines, "", *_measured_on(results)])


def _measured_on(results: Mapping[str, Result]) -> Iterator[str]:
    """Machine, date and commit of each part."""
    by_machine: dict[str, list[str]] = {}
    for name, result in results.items():
        machine = result["machine"]
        place = f"{machine.get('gpu') or machine.get('cpu')}, {machine.get('cores')} cores"
        head, *dirty = (result.get("commit") or result.get("git_commit") or "unknown").split("-")
        made_by = "-".join([head[:12], *dirty])
        by_machine.setdefault(place, []).append(f"{name} {result['date'][:10]} ({made_by})")
    for place, parts in by_machine.items():
        yield f"Measured on {place}: {', '.join(parts)}."


# ---------------------------------------------------------------- looking


def _least(values: Mapping[str, float], bound: float, *, expected: tuple[str, ...] = ()) -> Found:
    absent = tuple(name for name in expected if not any(name in given for given in values))
    short = tuple(name for name, value in values.items() if value < bound)
    return Found(_listed(values), not short, short, absent)


def _most(values: Mapping[str, float], bound: float) -> Found:
    return Found(_listed(values), max(values.values()) <= bound)


def _listed(values: Mapping[str, float]) -> str:
    figures = {name: f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for name, value in values.items()}
    return ", ".join(f"{name} {figure}".strip() for name, figure in figures.items())


def _short(n: int) -> str:
    """``100k``, ``1M``."""
    return f"{n // 1_000_000}M" if n % 1_000_000 == 0 else f"{n // 1000}k"


def _over(result: Result, ours: str, names: Mapping[str, str]) -> dict[str, float]:
    """``ours_over_X`` of the result, by the name of X."""
    return {
        name: result[f"{ours}_over_{key}"] for key, name in names.items() if f"{ours}_over_{key}" in result
    }


def _decoding(result: Result) -> Found:
    peers = {"open_clip": "open_clip", "clip_retrieval": "clip-retrieval"}
    values = {
        f"{side}² {name}": ratio
        for side, found in result["decode_and_resize"].items()
        for name, ratio in _over(found, "rd", peers).items()
    }
    return _least(values, 2, expected=tuple(peers.values()))


def _embedding(result: Result) -> Found:
    peers = {"open_clip_float32": "open_clip", "clip_retrieval": "clip-retrieval"}
    return _least(_over(result["embed"], "rd", peers), 3.5, expected=tuple(peers.values()))


def _share_of_bound(result: Result) -> Found:
    share, alone = (result["embed"][key] for key in ("share_of_bound", "encoder_alone_share_of_bound"))
    return Found(f"{share:.0%}; the encoder alone {alone:.0%}", share >= 0.75)


def _searching(q: int, bound: float) -> Callable[[Result], Found]:
    peers = ("faiss", "scikit-learn", "usearch", "lancedb")

    def look(result: Result) -> Found:
        values = {
            f"{_short(found['n'])} {name}": lanes[name]["median"] / lanes["rd"]["median"]
            for found in result["search"]
            for lanes in [found["queries"][str(q)]]
            for name in peers
            if name in lanes
        }
        return _least(values, bound, expected=peers)

    return look


def _bandwidth(result: Result) -> Found:
    shares = {
        _short(found["n"]): found["memory"]["read_s"]["median"] / found["queries"]["1"]["rd"]["median"]
        for found in result["search"]
    }
    return Found(", ".join(f"{n} {share:.0%}" for n, share in shares.items()), min(shares.values()) >= 0.7)


def _sizes(result: Result, figure: str) -> list[float]:
    """Medians, the smaller bank's first."""
    sizes = result["updates"]["sizes"]
    return [sizes[n][figure]["median"] for n in sorted(sizes, key=int)]


def _adding(result: Result) -> Found:
    updates, add_s = result["updates"], _sizes(result, "add_s")[-1]
    rebuilds = {"flat FAISS": updates["rebuild_faiss_flat_s"]["median"] / add_s}
    if built := updates.get("autofaiss"):
        rebuilds[f"autofaiss on {_short(built['n'])} of them"] = built["build_s"] / add_s
    return _least(rebuilds, 50, expected=("autofaiss",))


def _growing(result: Result) -> Found:
    grown = {name: _sizes(result, key) for name, key in (("adding", "add_s"), ("opening", "open_s"))}
    return _most({name: large / small for name, (small, large) in grown.items()}, 1.5)


def _bank_memory(result: Result) -> Found:
    memory = result["memory"]
    return _most({"": memory["peak_bytes"] / memory["vectors_bytes"]}, 1.2)


def _again(result: Result) -> Found:
    again, hashing, listing = (result[f"{name}_s"]["median"] for name in ("again", "hash", "stat"))
    times = f"{again / hashing:.2f} × hashing alone, {again / listing:.1f} × listing alone"
    read = result["read_bytes"]
    if read is None:
        return Found(f"{times}; bytes not counted", holds=False)
    share = read / result["files_bytes"]
    return Found(f"reads {share:.2f} × the files' bytes; {times}", 0.99 <= share <= 1.05)


def _help(result: Result) -> Found:
    return _most({"": result["start"]["rd_help_s"]["median"]}, 0.2)


def _cold(result: Result) -> Found:
    return _most({"": result["start"]["query_over_bare"]}, 1.3)


def _held(result: Result) -> Found:
    few, many = (result["peak_bytes_by_images"][n] for n in sorted(result["peak_bytes_by_images"], key=int))
    return _most({"": many / few}, 1.1)


def _parity(result: Result) -> Found:
    parity = result["parity"]
    plain, centred = parity["largest_cosine_distance"], parity["largest_centred_cosine_distance"]
    return Found(f"{plain:.1e}, {centred:.1e}", plain <= 1e-6 and centred <= 1e-5)


def _linear(result: Result) -> Found:
    return _most({"": result["linear"]["ratio"]}, 1.5)


def _prompts(result: Result) -> Found:
    share = result["prompt"]["share"]
    return Found(f"1/{1 / share:.0f}", share <= 1 / 50)


def _gpu_embedding(result: Result) -> Found:
    encode = result["encode"]
    share, ratio = encode["share_of_matmul_peak"], encode["images_per_s"] / encode["open_clip_images_per_s"]
    return Found(f"{share:.0%} of the peak; {ratio:.2f} × open_clip", share >= 0.6)


def _gpu_searching(result: Result) -> Found:
    search = result["search"]
    one, many = (search["queries"][q] for q in ("1", "1024"))
    by_memory = search["bytes_read"] / result["copy_bytes_per_s"] / one["rd_s"]
    by_product = 2 * search["rows"] * search["d"] * 1024 / result["matmul_flops"] / many["rd_s"]
    ratios = " / ".join(f"{found['faiss_s'] / found['rd_s']:.1f}" for found in (one, many))
    return Found(
        f"{by_memory:.0%} / {by_product:.0%} of the limit; {ratios} × GpuIndexFlat",
        by_memory >= 0.7 and by_product >= 0.6,
    )


# ---------------------------------------------------------------- what must be reached

_SEARCH_PEERS = "stock FAISS IndexFlatIP; scikit-learn brute force; usearch exact; LanceDB flat"
_SEE = "see [what did not help](../bench/README.md#search)"

AIMS = (
    Aim(
        "embed",
        "decode + resize, 512² and 1024² JPEG, images a core-second",
        "≥ 2 ×",
        "open_clip's own transform; clip-retrieval's reader",
        _decoding,
    ),
    Aim(
        "embed",
        "folder → stored embeddings, ViT-B-32",
        "≥ 3.5 ×",
        "a plain open_clip float32 loop with its DataLoader; clip-retrieval inference",
        _embedding,
    ),
    Aim(
        "embed",
        "same, share of the encoder's bfloat16 bound",
        "≥ 75 %",
        "measured bfloat16 GEMM peak",
        _share_of_bound,
        "see [where the network's time goes](../bench/README.md#file-to-vector)",
    ),
    Aim("search", "exact k-NN × 768, k = 10, q = 1", "≥ 4 ×", _SEARCH_PEERS, _searching(1, 4), _SEE),
    Aim("search", "same, q = 32", "≥ 5 ×", _SEARCH_PEERS, _searching(32, 5), _SEE),
    Aim("search", "same, q = 1024", "≥ 1.5 ×", _SEARCH_PEERS, _searching(1024, 1.5), _SEE),
    Aim("search", "same, q = 1", "≥ 70 %", "measured memory bandwidth × bytes read", _bandwidth, _SEE),
    Aim("search", "add 1,000 to the larger bank", "≥ 50 ×", "rebuilding; autofaiss", _adding),
    Aim(
        "search",
        "add 1,000 to the larger bank, open it afterwards",
        "≤ 1.5 ×",
        "the same with the smaller bank",
        _growing,
    ),
    Aim("search", "memory of a bank that is searched", "≤ 1.2 ×", "the vectors' own size", _bank_memory),
    Aim(
        "updates",
        "a finished build run again",
        "stats and hashes only",
        "hashing, and listing, the same files",
        _again,
    ),
    Aim("embed", "`rd --help`, seconds", "≤ 0.2", "", _help),
    Aim("embed", "cold `rd query` of one image", "≤ 1.3 ×", "the bare script", _cold),
    Aim("embed", "peak memory, 20,000 images", "≤ 1.1 ×", "2,000 images", _held),
    Aim(
        "embed",
        "cosine distance of mixed files, centred too",
        "≤ 1e-6, 1e-5",
        "open_clip's transform",
        _parity,
    ),
    Aim("training", "linear head, 100k × 768", "≤ 1.5 ×", "scikit-learn to the same optimum", _linear),
    Aim("training", "an epoch of prompts, 100k vectors", "≤ 1/50", "CoOp's batch of 32", _prompts),
    Aim(
        "gpu",
        "GPU: L/14 embed, share of dense bfloat16 peak",
        "≥ 60 %",
        "measured matmul peak; open_clip eager",
        _gpu_embedding,
    ),
    Aim(
        "gpu",
        "GPU: exact 1M × 768, q = 1 / 1024, share of limit",
        "≥ 70 % / ≥ 60 %",
        "measured copy bandwidth / matmul peak; GpuIndexFlat default",
        _gpu_searching,
    ),
)
