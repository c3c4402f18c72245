"""Many threads that read one snapshot at once, held against what one thread reads.

Run by ``test_threads`` in a process of its own: what goes wrong here may take the process along. Prints how
often each thread read, and what was wrong.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from retrieval_detect.store.originals import stored_thumbnail
from retrieval_detect.store.store import Store
from tests.crowds import crowd

THREADS, SECONDS = 6, 3.0


def main(folder: str) -> None:
    snapshot = Store(Path(folder)).snapshot()
    content = snapshot.scan(["content_id"])["content_id"].to_pylist()
    every = snapshot.take(range(len(content)), ["uri", "width"])
    pictures = [stored_thumbnail(snapshot, identity) for identity in content[:50]]
    found: Counter[str] = Counter()

    def read(seed: int) -> None:
        rng, until = np.random.default_rng(seed), time.monotonic() + SECONDS
        while time.monotonic() < until:
            ids = rng.integers(0, len(every), 8).tolist()
            try:
                right = snapshot.take(ids, ["uri", "width"]) == [every[i] for i in ids]
                right &= snapshot.scan(["content_id"])["content_id"].to_pylist() == content
                one = int(rng.integers(len(pictures)))
                right &= stored_thumbnail(snapshot, content[one]) == pictures[one]
                found["right" if right else "wrong"] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                found[f"{type(error).__name__}: {error}"] += 1

    crowd(read, found, n=THREADS, within_s=SECONDS + 20)


if __name__ == "__main__":
    main(sys.argv[1])
