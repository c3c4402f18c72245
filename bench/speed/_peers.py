"""usearch and LanceDB, timed in a process of their own: they need not be in rd's environment.

Started by ``bench.speed.search`` with any Python that has them. Reads lines of JSON from stdin: first
``{"vectors": FILE, "queries": FILE, "folder": FOLDER, "k": 10}``, answered by the names of the peers that
can be imported; then ``{"peer": NAME, "q": 32, "repeat": 1}``, answered by seconds a search.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
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


PEERS = {"usearch": usearch, "lancedb": lancedb}


def seconds(run, repeat):
    start = time.perf_counter()
    for _ in range(repeat):
        run()
    return (time.perf_counter() - start) / repeat


def main():
    job = json.loads(sys.stdin.readline())
    vectors, queries = np.load(job["vectors"]), np.load(job["queries"]).astype(np.float16)
    found = {name: make for name, make in PEERS.items() if importlib.util.find_spec(name)}
    print(json.dumps(sorted(found)), flush=True)
    ready = {}
    for line in sys.stdin:
        ask = json.loads(line)
        name = ask["peer"]
        ready[name] = ready.get(name) or found[name](job, vectors)
        batch = np.ascontiguousarray(queries[: ask["q"]])
        print(json.dumps(seconds(partial(ready[name], batch), ask["repeat"])), flush=True)


if __name__ == "__main__":
    main()
