"""usearch, LanceDB and autofaiss, timed in a process of their own: they need not be in rd's environment.

Started by ``bench.speed.search`` with any Python that has them. Reads lines of JSON from stdin: first
``{"vectors": FILE, "queries": FILE, "folder": FOLDER, "k": 10}``, answered by the names of the peers that
are installed; then ``{"peer": NAME, "q": 32}``, answered by seconds a search, of as many as take a fifth of a
second. With no ``q`` (autofaiss) what is timed is building an index.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from contextlib import redirect_stdout
from functools import partial

import numpy as np


def usearch(job, vectors):
    from usearch.index import search

    def run(queries):
        search(vectors, queries, job["k"], "ip", exact=True)

    return run


def lancedb(job, vectors):
    import lancedb as library
    import pyarrow as pa

    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = library.connect(job["folder"]).create_table(
        "vectors", pa.table({"vector": rows, "id": pa.array(range(len(vectors)))}), mode="overwrite"
    )

    def run(queries):
        wanted = queries[0] if len(queries) == 1 else list(queries)
        table.search(wanted).distance_type("dot").limit(job["k"]).select(["id"]).to_arrow()

    return run


def autofaiss(_job, vectors):
    from autofaiss import build_index

    rows = vectors.astype(np.float32)

    def build(_):
        build_index(rows, save_on_disk=False, metric_type="ip", verbose=40)

    return build


PEERS = {"usearch": usearch, "lancedb": lancedb, "autofaiss": autofaiss}
LEAST_S = 0.2


def seconds(run):
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < LEAST_S:
        run()
        calls += 1
    return (time.perf_counter() - start) / calls


def main():
    job = json.loads(sys.stdin.readline())
    vectors, queries = np.load(job["vectors"]), np.load(job["queries"]).astype(np.float16)
    found = {name: make for name, make in PEERS.items() if importlib.util.find_spec(name)}
    print(json.dumps(sorted(found)), flush=True)
    ready = {}
    for line in sys.stdin:
        ask = json.loads(line)
        name = ask["peer"]
        batch = np.ascontiguousarray(queries[: ask.get("q", 0)])
        # Answers have stdout to themselves.
        with redirect_stdout(sys.stderr):
            ready[name] = ready.get(name) or found[name](job, vectors)
            took = seconds(partial(ready[name], batch))
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
