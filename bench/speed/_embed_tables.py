"""The result of ``bench.speed.embed`` as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench._frame import markdown_table, origin


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    head = (
        f"{result['model']}, random weights, engine {result['embed']['engine']}; {origin(result)}; "
        f"medians of {result['rounds']} rounds in turns."
    )
    lines = [*_decoding_lines(result), *_embedding_lines(result["embed"]), *_other_lines(result)]
    titles = ("work", "rd", "against, in the same run", "ratio", "must reach")
    return f"{head}\n\n{markdown_table(titles, lines)}"


def _decoding_lines(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for side, found in result["decode_and_resize"].items():
        for peer, name in (
            ("open_clip", "open_clip's transform"),
            ("clip_retrieval", "clip-retrieval's reader"),
        ):
            if f"{peer}_per_s" in found:
                yield (
                    f"decode + resize, {side}² JPEG, images a core-second",
                    f"{found['rd_per_s']['median']:.0f}",
                    f"{name} {found[f'{peer}_per_s']['median']:.0f}; decoding alone "
                    f"{found['decode_only_per_s']['median']:.0f}",
                    f"{found[f'rd_over_{peer}']:.2f}",
                    "≥ 2",
                )


def _embedding_lines(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    rate = f"{found['rd_per_s']['median']:.1f}"
    work = "folder → stored embeddings, images a second"
    loop, alone = found["open_clip_float32_per_s"]["median"], found["rd_encoder_alone_per_s"]["median"]
    yield work, rate, f"open_clip in float32 {loop:.1f}", f"{found['rd_over_open_clip_float32']:.2f}", "≥ 3.5"
    bound = f"largest product of matrices, {found['gemm_flops_per_s']['median'] / 1e9:.0f} GFLOP/s"
    yield (
        work,
        rate,
        f"{bound}: {found['bound_images_per_s']:.1f}",
        f"{found['share_of_bound']:.2f}",
        "≥ 0.75",
    )
    yield work, rate, f"the encoder alone {alone:.1f}", f"{found['rd_over_rd_encoder_alone']:.2f}", ""
    layers = found["rd_four_layers_per_s"]["median"]
    yield work, rate, f"four layers {layers:.1f}", f"{found['rd_over_rd_four_layers']:.2f}", ""


def _other_lines(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    start, parity = result["start"], result["parity"]
    (few, few_bytes), (many, many_bytes) = result["peak_bytes_by_images"].items()
    yield "`rd --help`", f"{start['rd_help_s']['median']:.2f} s", "", "", "≤ 0.2 s"
    yield (
        "cold `rd query` of one image",
        f"{start['cold_query_s']['median']:.1f} s",
        f"bare script {start['cold_bare_script_s']['median']:.1f} s",
        f"{start['query_over_bare']:.2f}",
        "≤ 1.3",
    )
    yield (
        f"peak memory, {int(many):,} images",
        f"{many_bytes / 1e6:.0f} MB",
        f"{int(few):,} images {few_bytes / 1e6:.0f} MB",
        f"{many_bytes / few_bytes:.2f}",
        "≤ 1.1",
    )
    yield (
        f"largest cosine distance, {parity['images']} mixed files",
        f"{parity['largest_cosine_distance']:.1e}",
        f"centred {parity['largest_centred_cosine_distance']:.1e}",
        "",
        "≤ 1e-6, 1e-5",
    )
