"""Rows files with altered bytes whose records were altered along with them, read as if nothing had been.

Run by ``test_hostile_rows`` in a process of its own: what goes wrong here may take the process along. Prints
how many were refused, how many could be read all the same, and what else was raised.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrieval_detect.errors import IndexCorrupt
from retrieval_detect.files import DigestCache
from retrieval_detect.store.manifest import FileRecord
from retrieval_detect.store.shards import Shard
from retrieval_detect.store.store import Store


def outcome(shard: Shard, digests: DigestCache) -> str:
    try:
        shard.check(digests)
        table = shard.columns(shard.names)
        shard.take(np.arange(len(shard))[::-1], shard.names).to_pylist()
        table.unify_dictionaries().to_pylist()
    except IndexCorrupt as error:
        return "refused" if shard.path("rows.arrow").name in error.message else repr(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
        return repr(error)
    return "read"


def main(folder: Path, times: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    shard = Store(folder).snapshot().shards()[0]
    path = shard.path("rows.arrow")
    whole = path.read_bytes()
    found: Counter[str] = Counter()
    for number in range(times):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 1 + number % 3):
            data[at] = rng.integers(256) if number % 2 else data[at] ^ (1 << int(rng.integers(8)))
        path.write_bytes(bytes(data[: rng.integers(len(data))] if number % 10 == 9 else data))
        record = replace(
            shard.record,
            files={"rows.arrow": FileRecord.of(path), "proj.npy": shard.record.files["proj.npy"]},
        )
        found[outcome(Shard(folder, record), DigestCache(folder / "no-such-cache"))] += 1
        path.unlink()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
