"""Clients that all ask one server at once, each held against the answer it would have had alone.

Run by ``test_web_crowd`` in a process of its own: what goes wrong here may take the process along. Prints how
many answers were right, and what was wrong.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import httpx

from tests.crowds import crowd
from tests.serving import form, pictures, server

CLIENTS, SECONDS = 8, 4.0
ASKED = [{}, {"evidence": "html"}, {"projection": "identity"}]


def body(answer: httpx.Response) -> tuple[int, object]:
    found = answer.json() if "json" in answer.headers["content-type"] else answer.content
    for result in found.get("results", ()) if isinstance(found, dict) else ():
        result.pop("elapsed_s")
    return answer.status_code, found


def main(folder: str) -> None:
    with server(Path(folder), batch_images=1) as address, httpx.Client(base_url=address, timeout=20) as http:
        given = pictures(8)

        def ask(i: int) -> tuple[int, object]:
            if i % 4:
                return body(http.get(f"/v1/references/{i * 997 % 16_000}/thumbnail"))
            return body(http.post("/v1/query", params=ASKED[i % len(ASKED)], files=form(*given)))

        alone = [ask(i) for i in range(60)]
        found: Counter[str] = Counter()

        def client(first: int) -> None:
            i, until = first, time.monotonic() + SECONDS
            while time.monotonic() < until:
                try:
                    found["right" if ask(i % 60) == alone[i % 60] else "wrong"] += 1
                except httpx.HTTPError as error:
                    found[type(error).__name__] += 1
                i += 4

        crowd(client, found, n=CLIENTS, within_s=SECONDS + 30)


if __name__ == "__main__":
    main(sys.argv[1])
