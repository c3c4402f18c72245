"""Run a command and say, as JSON, how long it took and how much memory it had at most.

A process of its own because the kernel counts a child's peak memory from that of the process that
started it: begun from a benchmark that holds a network, every child would seem as large as that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> int:
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    elapsed_s = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"elapsed_s": elapsed_s, "peak_bytes": usage.ru_maxrss * unit_bytes}))
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
