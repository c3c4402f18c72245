"""Choosing how banks are searched: approximate kinds beside exact search, by what they find and cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.ask.banks import Banks
from retrieval_detect.errors import UsageError
from retrieval_detect.search.approximate import index_path, recall
from retrieval_detect.search.kinds import kind_of, kinds_at_hand
from retrieval_detect.search.projection import query_codes
from retrieval_detect.store.layout import BANKS
from retrieval_detect.store.manifest import GROWTH, Tuned, TunedBank
from retrieval_detect.store.shards import SMALL_ROWS
from retrieval_detect.teach.calibrate import rates_anew
from retrieval_detect.types import LABELS, ORIGINAL_VIEW, Neighbours

if TYPE_CHECKING:
    from retrieval_detect.search.approximate import ApproximateBank
    from retrieval_detect.search.bank import Bank
    from retrieval_detect.search.kinds import Kind
    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store
    from retrieval_detect.types import Float16, Int64, Label, Split

TARGET = 0.98
KS = (10, 200)
"""Recall is measured of so many neighbours: those that are shown, and those that vote."""
WORTH = 0.8
"""Share of the time of exact search from which on approximate answers are not worth it."""
_QUERIES = 256
"""Of each label."""
_FEWEST = 32
_TIMED = 24


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to search one bank. ``kind`` : ``exact``, or an approximate one at ``effort``.

    ``recall`` : k → mean share of the k nearest that were found, 0…1. ``meets`` : whether it is surely what
    was asked for. ``alone_s``, ``in_batch_s`` : seconds a query, asked by itself or with all others;
    ``None`` for what misses too many to be timed.
    """

    label: Label
    kind: str
    effort: int
    recall: Mapping[str, float]
    meets: bool
    alone_s: float | None
    in_batch_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """What was tried, and what is best: ``tuned``, or ``None`` for exact search, with the reason in words.

    ``banks`` : where ``tuned``, each with its FAISS index. ``n_queries`` of the split ``split`` were asked.
    """

    target: float
    tried: tuple[Measured, ...]
    tuned: Tuned | None
    reason: str
    banks: Mapping[Label, ApproximateBank]
    n_queries: int
    split: Split


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """References to ask about: bank codes, float16 (q, d); row ids, int64 (q,); and their split."""

    codes: Float16
    row_ids: Int64
    split: Split

    def neighbours(self, bank: Bank) -> Neighbours:
        """The nearest of each but itself, as many as the largest of ``KS``."""
        found = bank.search_codes(self.codes, max(KS) + 1)
        own = found.row_ids == self.row_ids[:, None]
        others = np.argsort(own, axis=1, kind="stable")[:, : max(KS)]
        return Neighbours(
            np.take_along_axis(found.row_ids, others, 1), np.take_along_axis(found.similarities, others, 1)
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Contender:
    """A kind in one bank, at the least effort that finds enough, or the most there is."""

    bank: ApproximateBank
    effort: int
    recall: Mapping[str, float]
    meets: bool


def try_kinds(
    snapshot: Snapshot,
    *,
    target: float = TARGET,
    kinds: Sequence[str] | None = None,
    device: str = "auto",
    progress: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Build every one of ``kinds`` (default: all at hand) over both banks, and measure it; writes nothing.

    Best is what answers a query by itself soonest, of those kinds that find at least ``target`` of the
    ``KS`` nearest in both banks, by the mean over references set aside less two standard errors. Exact
    search is best unless that saves a fifth of its time.
    """
    if not 0 < target <= 1:
        raise UsageError(f"a recall of {target} cannot be asked for", hint="Give a share: --recall 0.98")
    chosen = [kind_of(name) for name in (kinds_at_hand() if kinds is None else dict.fromkeys(kinds))]
    for kind in chosen:
        kind.require()
    banks, asked = Banks(snapshot, device=device, exact=True), _asked(snapshot)
    if short := [label for label in LABELS if not _covered(snapshot, label)]:
        reason = f"the {' and the '.join(short)} bank is so small that exact search is as fast"
        return Tuning(target, (), None, reason, {}, len(asked.row_ids), asked.split)
    tried: list[Measured] = []
    contenders: dict[Label, dict[str, _Contender]] = {}
    for label in LABELS:
        exact, bank, shards = banks.bank(label), banks.untuned(label), _covered(snapshot, label)
        truth = asked.neighbours(exact)
        contenders[label] = {}
        for kind in chosen:
            progress(f"building {kind.name} over the {label} bank")
            started, candidate = time.perf_counter(), bank.at(0)
            candidate.build(kind, shards)
            progress(f"measuring it, built in {time.perf_counter() - started:.1f} s")
            contenders[label][kind.name] = _contender(candidate, kind, asked, truth, target)
        progress(f"timing the {label} bank")
        tried += _raced(label, exact, contenders[label], asked)
    name, reason = _best(tried)
    tuned = _tuned(snapshot, banks.projection.id, target, name, contenders, asked) if name else None
    built = {label: contenders[label][name].bank for label in LABELS} if name else {}
    return Tuning(target, tuple(tried), tuned, reason, built, len(asked.row_ids), asked.split)


def commit_tuning(store: Store, tuning: Tuning | None, *, device: str = "auto") -> Manifest:
    """Search the banks as ``tuning`` found best from now on; ``None`` is exactly.

    Scores may move, so every calibrated method is calibrated anew in the same generation. Where nothing
    changes, nothing is committed.
    """
    tuned = tuning.tuned if tuning else None
    with store.writer() as writer:
        if tuned is None and writer.snapshot.manifest.tuned is None:
            return writer.snapshot.manifest
        if tuning and tuned:
            for label, bank in tuning.banks.items():
                present = {shard.record.id for shard in writer.snapshot.shards(label, "bank")}
                bank.save(index_path(store.folder / BANKS, tuned, label, present))
        return writer.tune(tuned, review=lambda to_be: rates_anew(writer, to_be, device=device))


def describe(snapshot: Snapshot) -> dict[str, Any] | None:
    """How the default banks are searched approximately, plain JSON types; ``None`` where they are exact.

    ``compared`` : share of a bank's rows that came since, and are all compared; past ``GROWTH`` the index is
    ``stale``, slower than it could be. ``in_use`` : whether it is of the default projection.
    """
    tuned = snapshot.manifest.tuned
    if tuned is None:
        return None
    banks: dict[str, dict[str, Any]] = {}
    for label, bank in tuned.banks.items():
        rows = {s.record.id: len(s) for s in snapshot.shards(label, "bank")}
        tail = sum(n for shard, n in rows.items() if shard not in bank.shards)
        compared = tail / max(1, sum(rows.values()))
        facts = {"recall": dict(bank.recall), "n_queries": bank.n_queries, "split": bank.split}
        banks[label] = facts | {"effort": bank.effort, "compared": round(compared, 4)}
    return {
        "kind": tuned.kind,
        "target": tuned.target,
        "in_use": Banks(snapshot).tuned is not None,
        "stale": any(bank["compared"] > GROWTH for bank in banks.values()),
        "banks": banks,
    }


# ---------------------------------------------------------------- parts


def _covered(snapshot: Snapshot, label: Label) -> list[str]:
    """Shards that are never merged, so that an index over them lasts."""
    return [s.record.id for s in snapshot.shards(label, "bank") if len(s) >= SMALL_ROWS]


def _asked(snapshot: Snapshot) -> _Asked:
    """References set aside, evenly spread; those in the banks where they are too few."""
    calib = min(snapshot.manifest.live_rows(label, "calib") for label in LABELS)
    split: Split = "calib" if calib >= _FEWEST else "bank"
    row_ids = np.concatenate([_spread(snapshot, label, split) for label in LABELS])
    projection = Banks(snapshot, exact=True).projection
    vectors = [snapshot.gather(row_ids.tolist(), layer) for layer in projection.layers]
    return _Asked(query_codes(np.concatenate(vectors, axis=1), projection), row_ids, split)


def _spread(snapshot: Snapshot, label: Label, split: Split) -> Int64:
    table = snapshot.scan(["row_id", "view"], label=label, split=split)
    originals = np.array([view == ORIGINAL_VIEW for view in table["view"].to_pylist()], bool)
    row_ids: Int64 = np.sort(table["row_id"].to_numpy()[originals])
    return row_ids[:: max(1, len(row_ids) // _QUERIES)][:_QUERIES]


def _contender(
    bank: ApproximateBank, kind: Kind, asked: _Asked, truth: Neighbours, target: float
) -> _Contender:
    for effort in kind.efforts:
        found = asked.neighbours(bank.at(effort))
        shares = {k: recall(_first(found, k), _first(truth, k)) for k in KS}
        surely = [s.mean() - 2 * s.std() / np.sqrt(len(s)) for s in shares.values()]
        meets = min(surely) >= target
        if meets:
            break
    rounded = {str(k): round(float(share.mean()), 4) for k, share in shares.items()}
    return _Contender(bank.at(effort), effort, rounded, meets)


def _first(found: Neighbours, k: int) -> Neighbours:
    return Neighbours(found.row_ids[:, :k], found.similarities[:, :k])


def _raced(label: Label, exact: Bank, contenders: Mapping[str, _Contender], asked: _Asked) -> list[Measured]:
    """Median seconds a query of exact search and of what finds enough, taken turn by turn."""
    runners: dict[str, Bank] = {"exact": exact, **{n: c.bank for n, c in contenders.items() if c.meets}}
    alone: dict[str, list[float]] = {name: [] for name in runners}
    in_batch: dict[str, list[float]] = {name: [] for name in runners}
    for i in range(_TIMED + 1):  # the first warms up
        for name, bank in runners.items():
            alone[name].append(_seconds(bank, asked.codes[i % len(asked.codes)][None, :]))
    for _ in range(3):
        for name, bank in runners.items():
            in_batch[name].append(_seconds(bank, asked.codes) / len(asked.codes))
    alone_s = {name: float(np.median(times[1:])) for name, times in alone.items()}
    in_batch_s = {name: float(np.median(times)) for name, times in in_batch.items()}
    everything = dict.fromkeys(map(str, KS), 1.0)
    measured = [Measured(label, "exact", 0, everything, True, alone_s["exact"], in_batch_s["exact"])]
    for name, c in contenders.items():
        times = alone_s.get(name), in_batch_s.get(name)
        measured.append(Measured(label, name, c.effort, c.recall, c.meets, *times))
    return measured


def _seconds(bank: Bank, codes: Float16) -> float:
    started = time.perf_counter()
    bank.search_codes(codes, max(KS))
    return time.perf_counter() - started


def _best(tried: Sequence[Measured]) -> tuple[str, str]:
    """The kind to choose, ``""`` for exact search, and why."""
    names = dict.fromkeys(m.kind for m in tried)
    cost = {
        name: sum(m.alone_s or 0.0 for m in tried if m.kind == name)
        for name in names
        if all(m.meets for m in tried if m.kind == name)
    }
    exact_s = cost.pop("exact")
    if not cost:
        return "", "no kind that was tried finds enough in both banks"
    best = min(cost, key=lambda name: cost[name])
    if cost[best] > WORTH * exact_s:
        return "", "exact search is as fast, or nearly"
    return best, f"{best} takes {cost[best] / exact_s:.0%} of the time of exact search"


def _tuned(
    snapshot: Snapshot,
    projection: str,
    target: float,
    name: str,
    contenders: Mapping[Label, Mapping[str, _Contender]],
    asked: _Asked,
) -> Tuned:
    banks: dict[Label, TunedBank] = {}
    for label in LABELS:
        best, shards = contenders[label][name], _covered(snapshot, label)
        rows = sum(len(s) for s in snapshot.shards(label, "bank") if s.record.id in shards)
        found = (best.effort, best.recall, len(asked.row_ids), asked.split)
        banks[label] = TunedBank(tuple(shards), rows, *found)
    return Tuned(projection, name, target, banks)
