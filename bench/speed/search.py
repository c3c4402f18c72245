"""Exact search on the CPU: rd's bank beside stock FAISS, scikit-learn, usearch, LanceDB and the memory bus.

    python -m bench.speed.search [--peers PYTHON] [--quick] [--out FILE]
    python -m bench.speed.search --render FILE

``--peers`` : a Python with usearch, lancedb and autofaiss; those it lacks are left out. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from bench._frame import about, carry_out, parser_of, say
from bench._machine import ROOT, commit
from bench._timing import rounds_of
from bench.speed._search_tables import tables
from retrieval_detect.files import DigestCache
from retrieval_detect.search.bank import Bank, BankFiles, BankState, ShardVectors
from retrieval_detect.search.projection import Identity

D, K, ROUNDS = 768, 10, 5
QS = (1, 32, 1024)
PROJECTION = Identity("proj", D)
# A peer is left out where five rounds of it would take minutes; rd and stock FAISS are always there.
PEERS_UP_TO = {"scikit-learn": 1.1e8, "usearch": 1.1e8, "lancedb": 3.2e6}
"""Rows times queries."""
BUILT_SHARE = 10
"""autofaiss builds over one row of so many: over all of them it takes a quarter of an hour."""
CHECKED = 8


def made(n, *, seed, start=0):
    """A shard of n random unit vectors: the hardest case, for no neighbour stands out."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    codes = torch.empty(n, D, dtype=torch.float16)
    for i in range(0, n, 8192):
        rows = torch.randn(min(8192, n - i), D, generator=generator)
        codes[i : i + len(rows)] = rows / rows.norm(dim=1, keepdim=True)
    return ShardVectors(f"s{seed}-{n}", np.arange(start, start + n), codes.numpy())


def wide(codes):
    import torch

    return torch.from_numpy(codes).float().numpy()


def seconds(run, least_s=0.2):
    """Seconds a call, of as many calls as take ``least_s``."""
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < least_s:
        run()
        calls += 1
    return (time.perf_counter() - start) / calls


# ---------------------------------------------------------------- searching


class Peers:
    """The process that runs peers; ``names`` are those it has."""

    def __init__(self, python, shard, queries, folder):
        np.save(folder / "vectors.npy", shard.vectors)
        np.save(folder / "queries.npy", queries)
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("_peers.py")], stdin=-1, stdout=-1, stderr=-3, text=True
        )
        job = {"vectors": "vectors.npy", "queries": "queries.npy", "folder": "lance"}
        self.names = self._ask({key: str(folder / name) for key, name in job.items()} | {"k": K})

    def seconds(self, name, q):
        return self._ask({"peer": name, "q": q})

    def build_s(self, name):
        return self._ask({"peer": name})

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, what):
        print(json.dumps(what), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the Python given by --peers cannot do {what}: try it by hand")
        return json.loads(answer)


def contestants(shard, queries, peers):
    """Name → function from q to seconds, and the bank and the FAISS index among them."""
    import faiss
    from sklearn.neighbors import NearestNeighbors

    bank = Bank.open([shard], label="fake", files=BankFiles(None, PROJECTION))
    rows = wide(shard.vectors)
    flat = faiss.IndexFlatIP(D)
    flat.add(rows)
    brute = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(rows)
    found = {
        "rd": lambda q: seconds(lambda: bank.search(queries[:q], K)),
        "faiss": lambda q: seconds(lambda: flat.search(queries[:q], K)),
        "scikit-learn": lambda q: seconds(lambda: brute.kneighbors(queries[:q])),
    }
    for name in PEERS_UP_TO.keys() & set(peers.names if peers else ()):
        found[name] = partial(peers.seconds, name)
    return found, bank, flat


def affordable(name, n, q):
    return n * q <= PEERS_UP_TO.get(name, n * q)


def read_s(rows):
    """Seconds to read ``rows`` once and do next to nothing with them, on all threads."""
    import torch

    tensor = torch.from_numpy(rows)
    return seconds(tensor.amax)


def compared(n, options, folder):
    """Times of every contestant, in turns, and what memory gave meanwhile."""
    shard = made(n, seed=1)
    queries = wide(made(max(QS), seed=2).vectors)
    with ExitStack() as stack:
        peers = Peers(options.peers, shard, queries, folder) if options.peers else None
        if peers:
            stack.callback(peers.close)
        run, bank, flat = contestants(shard, queries, peers)
        checked = agreement(bank, flat, queries)
        half = np.empty((n, D // 2), np.float32)
        half[:] = 0.5
        result = {"n": n, "d": D, "k": K, "agrees_with_faiss": checked, "queries": {}}
        times = {q: {name: [] for name in run if affordable(name, n, q)} for q in QS}
        reads = []
        for i in range(options.rounds + 1):
            say(f"n = {n:,}: round {i} of {options.rounds}")
            reads.append(read_s(half))
            for q, lanes in times.items():
                for name, lane in lanes.items():
                    lane.append(run[name](q))
    # The first round warms up.
    result["memory"] = {"bytes": half.nbytes, "read_s": rounds_of(reads[1:])}
    result["redone"] = {str(q): redone(bank, queries[:q]) for q in QS}
    for q, lanes in times.items():
        result["queries"][str(q)] = {name: rounds_of(lane[1:]) for name, lane in lanes.items()}
    return result


def agreement(bank, flat, queries):
    """The share of neighbours that stock FAISS finds too; they differ only where float32 sums tie."""
    ours = bank.search(queries[:CHECKED], K).row_ids
    theirs = flat.search(queries[:CHECKED], K)[1]
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(ours, theirs, strict=True)]))


def redone(bank, queries):
    """The share of queries whose first answer did not stand."""
    settled, attempt = [], BankState.attempt

    def recording(self, *args, **options):
        stands = attempt(self, *args, **options)
        settled.append(int(stands.sum()))
        return stands

    BankState.attempt = recording
    try:
        bank.search(queries, K)
    finally:
        BankState.attempt = attempt
    return 1 - settled[0] / len(queries)


# ---------------------------------------------------------------- adding, opening, memory


class Growing:
    """A bank on disk that gets a thousand rows a round."""

    def __init__(self, n, folder):
        folder.mkdir()
        self.digests = DigestCache(folder / "digests.json")
        self.files = BankFiles(folder, PROJECTION, digests=self.digests)
        self.shards = [made(n, seed=3)]
        self.bank = self._open()

    def _open(self):
        return Bank.open(self.shards, label="fake", files=self.files)

    def add_s(self, i):
        shard = made(1000, seed=10 + i, start=10**9 + 1000 * i)
        start = time.perf_counter()
        self.bank.extend([shard])
        self.shards.append(shard)
        return time.perf_counter() - start

    def open_s(self):
        start = time.perf_counter()
        self._open()
        return time.perf_counter() - start


def updated(sizes, options, folder):
    """Adding 1,000 rows to banks of several sizes and opening them again, in turns; and building anew."""
    import faiss

    grown = {n: Growing(n, folder / f"bank{n}") for n in sizes}
    rows = wide(grown[max(sizes)].shards[0].vectors)

    def rebuild():
        index = faiss.IndexFlatIP(D)
        index.add(rows)

    times = {n: {"add_s": [], "open_s": []} for n in sizes}
    rebuilds = []
    for i in range(options.rounds + 1):
        say(f"updates: round {i} of {options.rounds}")
        for n, bank in grown.items():
            times[n]["add_s"].append(bank.add_s(i))
            times[n]["open_s"].append(bank.open_s())
        rebuilds.append(seconds(rebuild, least_s=0))
    for bank in grown.values():
        bank.digests.save()
    found = {"autofaiss": built(options.peers, max(sizes) // BUILT_SHARE, folder)} if options.peers else {}
    return found | {
        "added": 1000,
        "sizes": {str(n): {key: rounds_of(lane[1:]) for key, lane in t.items()} for n, t in times.items()},
        "rebuild_faiss_flat_s": rounds_of(rebuilds[1:]),
    }


def built(python, n, folder):
    """What autofaiss takes to build its index of n rows, once; ``None`` where that Python has none."""
    say(f"autofaiss, {n:,} rows")
    peers = Peers(python, made(n, seed=4), np.empty((0, D), np.float32), folder)
    try:
        return {"n": n, "build_s": peers.build_s("autofaiss")} if "autofaiss" in peers.names else None
    finally:
        peers.close()


def remembered(n, folder):
    """Peak memory of a process that opens a bank on disk and searches it, less that of one of 1,000 rows."""
    Growing(1000, folder / "bank1000").digests.save()
    peaks = []
    for rows in (1000, n):
        command = [sys.executable, "-m", "bench.speed.search", "--searched", str(folder / f"bank{rows}")]
        done = subprocess.run([*command, str(rows)], cwd=ROOT, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout))
    return {"n": n, "vectors_bytes": 2 * n * D, "peak_bytes": peaks[1] - peaks[0]}


def search_and_tell(folder, n):
    """In a process of its own: search a bank on disk by every way, print the peak of resident memory."""
    # Only the derived file is read: the rows themselves need not be there.
    rows = np.broadcast_to(np.float16(0), (n, D))
    digests = DigestCache(Path(folder) / "digests.json")
    bank = Bank.open(
        [ShardVectors(f"s3-{n}", np.arange(n), rows)],
        label="fake",
        files=BankFiles(Path(folder), PROJECTION, digests=digests),
    )
    queries = wide(made(max(QS), seed=2).vectors)
    for q in QS:
        bank.search(queries[:q], K)
    # ru_maxrss would count what the parent held when it forked.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(1024 * int(status["VmHWM"].split()[0]))


# ---------------------------------------------------------------- the whole


def measured(options):
    sizes = (2_000, 20_000) if options.quick else (100_000, 1_000_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            **about("search", commit=commit()),
            "quick": options.quick,
            "search": [],
        }
        for n in sizes:
            results["search"].append(compared(n, options, folder))
        results["updates"] = updated((sizes[0] // 10, sizes[1]), options, folder)
        results["memory"] = remembered(max(sizes), folder)
    return results


def main():
    parser = parser_of("speed.search", __doc__)
    parser.add_argument("--peers", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--searched", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.searched:
        search_and_tell(options.searched[0], int(options.searched[1]))
        return
    carry_out("search", options, lambda: measured(options), tables, indent=2)


if __name__ == "__main__":
    main()
