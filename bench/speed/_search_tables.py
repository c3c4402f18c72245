"""The result of ``bench.speed.search`` as Markdown: ratios, for times belong to one machine."""

from __future__ import annotations

from bench._frame import markdown_table, origin

NAMES = ("faiss", "scikit-learn", "usearch", "lancedb")


def times_faster(lanes, name):
    if name not in lanes:
        return "–"
    return f"{lanes[name]['median'] / lanes['rd']['median']:.1f} ×"


def search_table(results):
    head = (
        "rows",
        "queries",
        *(f"rd is faster than {name}" for name in NAMES),
        "share of the limit",
        "redone",
    )
    lines = []
    for found in results["search"]:
        read_s = found["memory"]["read_s"]["median"]
        for q, lanes in found["queries"].items():
            # A single query reads every code once; beyond that products are what limits.
            share = f"{read_s / lanes['rd']['median']:.0%} of memory" if q == "1" else ""
            ratios = (times_faster(lanes, name) for name in NAMES)
            lines.append((f"{found['n']:,}", q, *ratios, share, f"{found['redone'][q]:.1%}"))
    return markdown_table(head, lines)


def update_table(results):
    updates = results["updates"]
    small, large = (updates["sizes"][n] for n in sorted(updates["sizes"], key=int))
    rebuild = updates["rebuild_faiss_flat_s"]["median"]
    memory = results["memory"]
    n_small, n_large = (f"{int(n):,}" for n in sorted(updates["sizes"], key=int))
    lines = [
        (
            f"adding 1,000 to {n_large} beside adding them to {n_small}",
            f"{large['add_s']['median'] / small['add_s']['median']:.2f} ×",
        ),
        (
            f"opening {n_large} afterwards beside opening {n_small}",
            f"{large['open_s']['median'] / small['open_s']['median']:.2f} ×, "
            f"{1000 * large['open_s']['median']:.1f} ms",
        ),
        (
            f"adding 1,000 to {n_large} beside building a flat FAISS index anew",
            f"{rebuild / large['add_s']['median']:.0f} × faster",
        ),
        (
            f"peak memory of opening {memory['n']:,} and searching, beside the float16 vectors' own size",
            f"{memory['peak_bytes'] / memory['vectors_bytes']:.2f} ×",
        ),
    ]
    if autofaiss := updates.get("autofaiss"):
        figure = f"the same beside autofaiss building its index of {autofaiss['n']:,}, a part of them"
        ratio = autofaiss["build_s"] / large["add_s"]["median"]
        lines.insert(3, (figure, f"{ratio:,.0f} × faster"))
    return markdown_table(("figure", "is"), lines)


def tables(results):
    """Both tables."""
    head = f"Exact search, made-up unit vectors of 768 dimensions, 10 neighbours; {origin(results)}."
    return "\n".join([head, "", search_table(results), "", update_table(results)])
