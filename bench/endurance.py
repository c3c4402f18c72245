"""Whether a server's answers stand under load: ``python -m bench.endurance --minutes 10``.

``rd serve`` over 40,000 made-up references is asked by many clients at once: one image, several, pages of
evidence, pictures of references, counts. Meanwhile one client adds references, and another process removes
them again. Every generation is pinned, and in the end each is asked the same in this process, alone: answers
must be equal, number by number. An image passes the network by itself, so that no sum depends on its company.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from bench._frame import Clock, about, carry_out, markdown_table, origin, parser_of
from bench._machine import commit
from bench.serve import ADDRESS, server
from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.sources import from_bytes
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.sweep import kept_snapshot, pin
from retrieval_detect.store.writer import Addition
from retrieval_detect.teach.build import Index
from retrieval_detect.types import Embedded, Facts, Failure, ImageItem

MINUTES, ROWS, CLIENTS = 10.0, 40_000, 8
PICTURES, AT_ONCE, ADDED, PAUSE_S = 40, 6, 3, 4.0
HANGS_S = 60.0
ASKED: Sequence[dict[str, str]] = ({}, {"method": "mean"}, {"method": "majority"}, {"evidence": "html"})
TOKEN = "for the length of a benchmark"

Key = tuple[int, int, str]
"""Generation, picture, question: what an answer follows from."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("endurance", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--quick", action="store_true", help="Half a minute, few rows: tries the code.")
    options = parser.parse_args(arguments)
    if options.quick:
        options.minutes, options.rows = 0.5, 2000
    carry_out("endurance", options, lambda: measure(options), table)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run."""
    clock = Clock()
    command = f"python -m bench.endurance --minutes {options.minutes:g} --rows {options.rows}"
    head = about("endurance", command=command, git_commit=commit())
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as name:
        folder = Path(name)
        index = _filled(folder / "index", options.rows)
        clock.say(f"{options.rows:,} references")
        (folder / "token").write_text(TOKEN)
        flags = ("--set", "batch-size=1", "--token-file", str(folder / "token"))
        with server(index.folder, *flags) as pid:
            before = _held(pid)
            seen = asyncio.run(_load(index, clients=options.clients, seconds=60 * options.minutes))
            after = _held(pid)
        clock.say(f"{seen.counts.total():,} requests; asking the same alone")
        wrong = seen.wrong + _checked(index.folder, seen.answers)
    return {
        **head,
        "seconds": 60 * options.minutes,
        "rows": options.rows,
        "clients": options.clients,
        "requests": dict(seen.counts),
        "turned_away": seen.turned_away,
        "answers": seen.n_answers,
        "different_answers": len(seen.answers),
        "generations": seen.generations,
        "wrong": wrong,
        "hangs": seen.hangs,
        "errors": dict(seen.errors),
        "server_before": before,
        "server_after": after,
    }


# ---------------------------------------------------------------- references and pictures


def _filled(folder: Path, rows: int) -> Index:
    """An index of made-up vectors, half photographs of two sources, half fakes of two generators."""
    index = Index.create(folder, encoder=TinyEncoder())
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(rows, TinyEncoder().spec.layers["proj"])).astype(np.float32)
    for part, (label, name) in enumerate(
        (("real", "camera"), ("real", "phone"), ("fake", "gan"), ("fake", "flux"))
    ):
        facts = Facts("real", source=name) if label == "real" else Facts("fake", generator=name)
        images = [_reference(i, vectors[i]) for i in range(part, rows, 4)]
        with index.store.writer() as writer:
            staging = writer.staging()
            staging.add(images)
            writer.add(Addition([NewRow(i.content_id, i.item.uri, facts) for i in images]), staging)
    pin(folder, index.snapshot().manifest.generation)
    return index


def _reference(i: int, vector: np.ndarray) -> Embedded:
    identity = hashlib.sha256(str(i).encode()).digest()
    phash = int.from_bytes(identity[:8], "big")
    item = ImageItem(f"reference-{i}.png", bytes)
    return Embedded(item, identity, phash, 64, 64, "PNG", {"proj": vector})


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


# ---------------------------------------------------------------- the load


@dataclass
class Seen:
    """What the clients saw. ``answers`` : by what each follows from; ``wrong`` : came otherwise later."""

    answers: dict[Key, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    n_answers: int = 0
    turned_away: int = 0
    wrong: int = 0
    hangs: int = 0
    generations: int = 0

    def answered(self, key: Key, verdict: Mapping[str, Any]) -> None:
        """Keep an answer, or hold it against the one that was kept."""
        self.n_answers += 1
        text = _plain(verdict)
        self.wrong += self.answers.setdefault(key, text) != text


def _plain(verdict: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in verdict.items() if name != "elapsed_s"}, sort_keys=True)


async def _load(index: Index, *, clients: int, seconds: float) -> Seen:
    """Clients that ask without a pause, and two that add and remove."""
    seen, until = Seen(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients + 2)
    async with httpx.AsyncClient(base_url=ADDRESS, timeout=HANGS_S, limits=limits) as http:
        asking = [_ask(http, seen, i, until) for i in range(clients)]
        await asyncio.gather(_teach(http, seen, index, until), *asking)
    return seen


async def _ask(http: httpx.AsyncClient, seen: Seen, client: int, until: float) -> None:
    rng = np.random.default_rng(client)
    while time.monotonic() < until:
        kind = rng.choice(["image", "images", "reference", "banks"], p=[0.5, 0.2, 0.25, 0.05])
        if kind in ("image", "images"):
            chosen = rng.choice(PICTURES, AT_ONCE if kind == "images" else 1, replace=False).tolist()
            await _query(http, seen, kind, chosen, ASKED[rng.integers(len(ASKED))])
        else:
            path = f"/v1/references/{rng.integers(ROWS)}/thumbnail" if kind == "reference" else "/v1/banks"
            await _sent(seen, kind, http.get(path), right={404} if kind == "reference" else {200})


async def _query(
    http: httpx.AsyncClient, seen: Seen, kind: str, chosen: Sequence[int], asked: Mapping[str, str]
) -> None:
    files = [("images", (f"{i}.png", _picture(i))) for i in chosen]
    answer = await _sent(seen, kind, http.post("/v1/query", params=dict(asked), files=files), right={200})
    if answer is not None:
        for i, verdict in zip(chosen, answer.json()["results"], strict=True):
            question = asked.get("method", "")
            seen.answered((verdict["index"]["generation"], i, question), verdict)


async def _sent(seen: Seen, kind: str, sending: Any, *, right: set[int]) -> httpx.Response | None:
    """The answer, unless there is none, it is an error, or the queue was full."""
    seen.counts[kind] += 1
    try:
        answer: httpx.Response = await sending
    except httpx.TimeoutException:
        seen.hangs += 1
    except httpx.HTTPError as error:
        seen.errors[type(error).__name__] += 1
    else:
        if answer.status_code in right:
            return answer
        if answer.status_code == 429:
            seen.turned_away += 1
            await asyncio.sleep(0.2)
        else:
            seen.errors[f"{kind}: {answer.status_code}"] += 1
    return None


async def _teach(http: httpx.AsyncClient, seen: Seen, index: Index, until: float) -> None:
    """Add some pictures over HTTP, then remove them from another process, over and over."""
    number, known = 10_000, {"Authorization": f"Bearer {TOKEN}"}
    described = {"label": "fake", "generator": "newcomer"}
    while time.monotonic() < until:
        await asyncio.sleep(PAUSE_S)
        files = [("images", (f"{i}.png", _picture(i))) for i in range(number, number + ADDED)]
        number += ADDED
        path = "/v1/banks/references"
        planned = await _sent(
            seen, "plan", http.post(path, params=described, files=files, headers=known), right={200}
        )
        if planned is None:
            continue
        path += f"/{planned.json()['plan']}"
        added = await _sent(seen, "add", http.post(path, headers=known), right={200})
        if added is None:
            continue
        pin(index.folder, added.json()["generation"])
        await asyncio.sleep(PAUSE_S)
        await asyncio.to_thread(_removed, index)
        seen.counts["remove"] += 1
        seen.generations += 2


def _removed(index: Index) -> None:
    """Remove what was added last."""
    last = index.snapshot().manifest.next_row_id
    pin(index.folder, index.remove(range(last - ADDED, last)).generation)


# ---------------------------------------------------------------- what is right


def _checked(folder: Path, answers: Mapping[Key, str]) -> int:
    """How many answers are not those that each generation gives alone."""
    asked: defaultdict[int, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for generation, i, method in answers:
        asked[generation][method].append(i)
    wrong = 0
    for generation, methods in asked.items():
        detector = Detector(kept_snapshot(folder, generation), device="cpu")
        for method, pictures in methods.items():
            items = (from_bytes(_picture(i), f"{i}.png") for i in pictures)
            question = {"method": method} if method else {}
            for i, verdict in zip(pictures, detector.stream(items, batch_size=1, **question), strict=True):
                alone = "" if isinstance(verdict, Failure) else _plain(verdict.to_dict())
                # As it came over the wire.
                wrong += json.dumps(json.loads(alone), sort_keys=True) != answers[generation, i, method]
    return wrong


def _held(pid: int) -> dict[str, int]:
    """Memory and open files of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "memory_bytes": 1024 * int(status["VmRSS"].split()[0]),
        "open_files": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    before, after = result["server_before"], result["server_after"]
    rows = {
        "minutes": f"{result['seconds'] / 60:g}",
        "references": f"{result['rows']:,}",
        "clients": result["clients"],
        "requests": f"{sum(result['requests'].values()):,}",
        "answers, each held against one asked alone": f"{result['answers']:,}",
        "generations made meanwhile": result["generations"],
        "wrong answers": result["wrong"],
        "hangs": result["hangs"],
        "errors": sum(result["errors"].values()),
        "turned away (429)": result["turned_away"],
        "memory before and after": " → ".join(
            f"{s['memory_bytes'] / 2**20:,.0f} MiB" for s in (before, after)
        ),
        "open files before and after": f"{before['open_files']} → {after['open_files']}",
    }
    table = markdown_table(("", ""), rows.items())
    return f"Made-up references of the toy encoder; {origin(result)}.\n\n{table}"


if __name__ == "__main__":
    main()
