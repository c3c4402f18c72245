"""Approximate search on the CPU beside rd's exact search: what is found of the nearest, and what that saves.

    python -m bench.speed.approximate [--rows N] [--quick] [--out FILE]
    python -m bench.speed.approximate --render FILE

Made-up vectors of two sorts, between which those of an encoder lie: ``random`` has no structure to use, and
``clustered`` has 64 degrees of freedom about 500 centres. For a real index: rd index tune --dry-run.
"""

from __future__ import annotations

import time

import numpy as np

from bench._frame import about, carry_out, origin, parser_of, say
from bench._machine import commit
from bench._timing import rounds_of
from bench.speed.search import PROJECTION, D, made, seconds, wide
from retrieval_detect.search._faiss import faiss
from retrieval_detect.search.approximate import ApproximateBank, recall
from retrieval_detect.search.bank import Bank, BankFiles, ShardVectors
from retrieval_detect.search.kinds import KINDS, kinds_at_hand
from retrieval_detect.types import Neighbours

KS = (10, 200)
ASKED = 256
QS = (1, 64)
ROUNDS = 5
TARGET = 0.98


def clustered(n, *, seed):
    """A shard of n rows on a map of 64 normal variables about 500 centres into D dimensions."""
    fixed = np.random.default_rng(0)
    centres, spread = fixed.normal(size=(500, 64)), fixed.normal(size=(64, D)).astype(np.float32)
    rng, codes = np.random.default_rng(seed), np.empty((n, D), np.float16)
    for i in range(0, n, 8192):
        m = min(8192, n - i)
        latent = centres[rng.integers(0, 500, m)] + 0.5 * rng.normal(size=(m, 64))
        rows = latent.astype(np.float32) @ spread
        codes[i : i + m] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return ShardVectors(f"c{seed}-{n}", np.arange(n), codes)


def first(found, k):
    return Neighbours(found.row_ids[:, :k], found.similarities[:, :k])


def tried(bank, kind, queries, truth):
    """Recall at each effort, up to the first that meets the target."""
    found = []
    for effort in kind.efforts:
        answers = bank.at(effort).search(queries, max(KS))
        shares = {str(k): float(recall(first(answers, k), first(truth, k)).mean()) for k in KS}
        found.append({"effort": effort, "recall": shares})
        if min(shares.values()) >= TARGET:
            break
    return found


def compared(sort, n, rounds):
    shard = (clustered if sort == "clustered" else made)(n, seed=1)
    queries = wide((clustered if sort == "clustered" else made)(ASKED, seed=2).vectors)
    files = BankFiles(None, PROJECTION)
    exact = Bank.open([shard], label="fake", files=files)
    truth = exact.search(queries, max(KS))
    runners, results = {"exact": exact}, {}
    for name in kinds_at_hand():
        say(f"{sort}, n = {n:,}: {name}")
        bank = ApproximateBank.open([shard], label="fake", files=files)
        start = time.perf_counter()
        bank.build(KINDS[name], [shard.shard_id])
        results[name] = {"build_s": time.perf_counter() - start}
        results[name]["bytes"] = len(faiss().serialize_index(bank._index))
        results[name]["tried"] = tried(bank, KINDS[name], queries, truth)
        runners[name] = bank.at(results[name]["tried"][-1]["effort"])
    times = {name: {q: [] for q in QS} for name in runners}
    for i in range(rounds + 1):
        say(f"{sort}, n = {n:,}: round {i} of {rounds}")
        for name, bank in runners.items():
            for q in QS:
                times[name][q].append(seconds(lambda bank=bank, q=q: bank.search(queries[:q], max(KS))))
    # The first round warms up.
    took = {name: {str(q): rounds_of(lane[1:]) for q, lane in t.items()} for name, t in times.items()}
    return {"vectors": sort, "n": n, "d": D, "kinds": results, "took_s": took}


def tables(results):
    lines = [
        f"{origin(results)}.",
        "",
        "| vectors | search | found of 10 | of 200 | q = 1 | q = 64 | size | build |",
        "|-|-|-|-|-|-|-|-|",
    ]
    for block in results["search"]:
        lines += [_row(block, name) for name in block["took_s"]]
    return "\n".join(lines)


def _row(block, name):
    n, took = block["n"], {q: block["took_s"][name][q]["median"] for q in map(str, QS)}
    gain = [block["took_s"]["exact"][q]["median"] / took[q] for q in map(str, QS)]
    cells = [f"{n:,} {block['vectors']}", name, "1", "1", *(f"{g:.1f} ×" for g in gain), "", ""]
    if name != "exact":
        kind = block["kinds"][name]
        last = kind["tried"][-1]
        cells[1] += f", effort {last['effort']}"
        cells[2:4] = [f"{last['recall'][str(k)]:.3f}" for k in KS]
        cells[6:] = [f"{kind['bytes'] / (2 * n * block['d']):.2f} of the codes", f"{kind['build_s']:.0f} s"]
    return f"| {' | '.join(cells)} |"


def measured(options):
    n = 10_000 if options.quick else options.rows
    return {
        **about("approximate", commit=commit()),
        "quick": options.quick,
        "search": [compared(sort, n, options.rounds) for sort in ("random", "clustered")],
    }


def main():
    parser = parser_of("speed.approximate", __doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    carry_out("approximate", options, lambda: measured(options), tables, indent=2)


if __name__ == "__main__":
    main()
