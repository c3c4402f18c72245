"""The frame of a benchmark: options, what is noted beside its numbers, JSON written, tables shown."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import _numbers
from bench._machine import ROOT, machine, versions
from retrieval_detect.encoders.registry import OFFLINE_ENCODER

RESULTS = ROOT / "bench" / "results"


def parser_of(module: str, description: str | None) -> argparse.ArgumentParser:
    """Of ``python -m bench.MODULE``, with the options that all have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="Where to write (default: in bench/results)."
    )
    add_render(parser)
    return parser


def add_render(parser: argparse.ArgumentParser) -> None:
    """``--render FILE``, and in ``command`` what shows it again."""
    parser.add_argument(
        "--render",
        type=Path,
        metavar="FILE",
        help="Only print the tables of FILE, and put them into docs/numbers.md.",
    )
    parser.set_defaults(command=parser.prog)


def about(name: str, **more: str | None) -> dict[str, Any]:
    """What stands at the head of a result, as it is begun: date, machine and versions, and ``more``."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"benchmark": name, "date": date, **more, "machine": machine(), "versions": versions()}


def carry_out(
    name: str,
    options: argparse.Namespace,
    measure: Callable[[], dict[str, Any]],
    tables: Callable[[dict[str, Any]], str],
    *,
    indent: int | None = 1,
) -> None:
    """Measure, write the JSON, print the tables; or show those of an earlier result (``--render``).

    What was only tried (``--quick``, ``--images``) is written where ``--out`` says, or not at all.
    ``indent`` : of the JSON; ``None`` : long lists, a record a line.
    """
    if options.render:
        show(options.render, options.command, tables)
        return
    result = measure()
    out = options.out
    if out is None and not tried(options):
        out = RESULTS / f"{name}-{result['date'][:10]}.json"
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(_text(result, indent) + "\n", encoding="utf-8")
        say(f"written: {out}")
    print(tables(result))


def tried(options: argparse.Namespace) -> bool:
    """Whether a run only tries the code: on a few images, or a little of each part."""
    return any(getattr(options, name, None) for name in ("quick", "images"))


def command_of(module: str, options: argparse.Namespace) -> str:
    """The command of a run as a result names it."""
    named = "".join(f" --encoder {name}" for name in options.encoders or ())
    for name in ("images", "seeds", "references", "entries"):
        if value := getattr(options, name, None):
            named += f" --{name} {shlex.quote(str(value))}"
    return f"python -m bench.{module}{named}"


def show(result: Path, command: str, tables: Callable[[dict[str, Any]], str]) -> None:
    """Print the tables of a result, and put them into their block of docs/numbers.md."""
    rendered = tables(json.loads(result.read_text(encoding="utf-8")))
    publish(_numbers.block_of(result), f"{command} --render {_numbers.from_root(result)}", rendered)


def publish(name: str, command: str, rendered: str, page: Path | None = None) -> None:
    """Print Markdown, and put it into a block of ``page`` (docs/numbers.md) as what ``command`` wrote."""
    page = page or _numbers.PAGE
    print(rendered)
    if not _numbers.put(name, command, rendered, page):
        say(f"{page.name} has no block {name}: it was printed only")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A head and its rows as Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def by_encoder(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was found with each encoder; the older results are of one."""
    return list(result.get("encoders", [result]))


def told(found: Sequence[Mapping[str, Any]]) -> str:
    """Encoders as the head of a table names them."""
    names = [one["encoder"] for one in found]
    plain = [f"`{name}`, no CLIP" if name == OFFLINE_ENCODER else f"`{name}`" for name in names]
    return f"Encoder {plain[0]}" if len(plain) == 1 else f"Encoders {'; '.join(plain)}"


def beside(
    found: Sequence[Mapping[str, Any]], rows_of: Callable[[Mapping[str, Any]], Iterable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The rows of all encoders as one table, which names them where there are several."""
    return [
        ({"encoder": f"`{one['encoder']}`"} if len(found) > 1 else {}) | row
        for one in found
        for row in rows_of(one)
    ]


def origin(result: Mapping[str, Any]) -> str:
    """On what, when, from which code and by which command a result was measured."""
    machine = result["machine"]
    head, *changed = (result.get("git_commit") or result.get("commit") or "unknown").split("-")
    code = f"commit {head[:12]}" + " and changes" * bool(changed)
    command = f", `{result['command']}`" if "command" in result else ""
    return f"{machine.get('cpu')}, {machine.get('cores')} cores; {result['date'][:10]}, {code}{command}"


def _text(result: dict[str, Any], indent: int | None) -> str:
    if indent is None:
        return json.dumps(result, ensure_ascii=False, separators=(",", ":")).replace("},{", "},\n{")
    return json.dumps(result, ensure_ascii=False, indent=indent)


def rounded(value: Any) -> Any:
    """Six digits of every number: more would only look exact."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


class Clock:
    """Says on stderr what is being done, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return round(time.monotonic() - self._started, 1)

    def say(self, text: str) -> None:
        say(f"{self.elapsed_s:5.0f} s  {text}")


def say(text: str) -> None:
    """Progress, beside the tables on stdout."""
    print(text, file=sys.stderr, flush=True)
