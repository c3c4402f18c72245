"""Many threads that do one thing at once, and what became of them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable


def crowd(work: Callable[[int], None], found: Counter[str], *, n: int, within_s: float) -> None:
    """Run ``work(0)`` … ``work(n - 1)`` at once; print ``found``, which they count in, and how many hang."""
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(within_s)
    found["hangs"] = sum(thread.is_alive() for thread in threads)
    print(json.dumps(found), flush=True)
