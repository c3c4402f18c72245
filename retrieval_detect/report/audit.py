"""What an audit found: as data, and in words that say what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from retrieval_detect.report.additions import apart_lines
from retrieval_detect.report.words import name_of, number
from retrieval_detect.teach.apart import MENDED_BY

if TYPE_CHECKING:
    from retrieval_detect.evaluate.audit import Audit
    from retrieval_detect.evaluate.duplicates import Leak
    from retrieval_detect.evaluate.intervals import Interval
    from retrieval_detect.evaluate.shortcuts import Kind, Level, Shortcut

VERDICTS: Mapping[Level, str] = {
    "usable": "usable as evidence",
    "care": "usable with care",
    "unusable": "not usable as evidence",
}
NO_PROOF = "What an audit does not find may still be there: it looks for known shortcuts, no others."
DROPS_SHOWN = 5
_WIDTH = 96
_TELLS = 0.55
"""AUC of a single fact above which it is worth naming."""

_TOLD_BY: Mapping[Kind, str] = {
    "format": "files alone",
    "compression": "earlier compression",
    "pixels": "trivial pixel statistics",
    "content": "subject, by cluster",
    "category": "stated category",
}
_WHY: Mapping[str, str] = {
    "few": "there are too few different images of a label",
    "files": "too few of the files can be read; only what the store knows was audited",
    "vectors": "a folder has no vectors; name an encoder, for instance --encoder efficientnet-lite0",
    "categories": "no categories are stated",
}
_ADVICE: Mapping[str, str] = {
    "format": "Bring both labels to one size and one encoding before they are embedded, and show results "
    "also with both re-encoded alike (rd launder --unify, rd eval --unified).",
    "compression": "One label was compressed more often than the other. Launder both alike "
    "(rd launder --as social, or --views jpeg,resize when they are embedded), or start from uncompressed "
    "originals of both.",
    "pixels": "Colour and sharpness alone go far. Show this AUC beside every result: what a detector "
    "reaches beyond it is its own.",
    "content": "The labels show different subjects. Match them: --rebalance --out FILE lists what one label "
    "has too much of. Better still are pairs of a photograph and a fake of the same subject (pair_id).",
    "category": "The labels come from different categories. Add the missing ones, or --rebalance.",
    "leak": "Drop what the test set shares with the references (--out FILE lists it), then test.",
    "few": "Add images: nothing can be told from chance with so few.",
    "files": "Make the files readable where the index says they are, and audit again.",
    "lopsided": "What tells one source from the generators may be its camera or its site. Add sources and "
    "generators, and test with one left out.",
    "uneven": "Accuracy and average precision mean little at such shares; read balanced accuracy and AUC.",
    "apart": "Add authentic photographs of what such a generator shows, of any source: rd bank add DIR "
    f"--label real --source NAME. Some {MENDED_BY} mend most of it.",
    "alike": "If two names are one collection, give it one: rd bank rename. As two it counts twice in what "
    "is said of new sources, and each stands in for the other when it is left out.",
    "across": "An image under both labels, or nearly so, teaches nothing. Look at these, and drop what is "
    "wrong (--out FILE).",
    "duplicates": "Near-duplicates count as one image in splits and intervals; --out FILE lists the repeats.",
}

# ---------------------------------------------------------------- data


def audit_json(found: Audit) -> dict[str, Any]:
    """All that was found, in plain JSON types; ``null`` for an end of an interval that is not known."""
    return {
        "subject": found.subject,
        "verdict": VERDICTS[found.level],
        "level": found.level,
        "findings": [
            {"name": name, "level": level, "advice": _ADVICE[name]} for name, level in found.findings()
        ],
        "looked": found.looked,
        "read": found.read,
        "total": found.total,
        "balance": asdict(found.balance),
        "shortcuts": {shortcut.kind: _shortcut_json(shortcut) for shortcut in found.shortcuts},
        "skipped": {kind: _WHY[why] for kind, why in found.skipped.items()},
        "clusters": asdict(found.clusters) if found.clusters else None,
        "duplicates": asdict(found.duplicates),
        "apart": [asdict(one) for one in found.apart],
        "alike": [asdict(pair) for pair in found.alike],
        "leak": _leak_json(found.leak) if found.leak else None,
        "drop": [asdict(drop) for drop in found.drop],
        "failures": [failure.to_dict() for failure in found.failures],
        "note": NO_PROOF,
    }


def _shortcut_json(shortcut: Shortcut) -> dict[str, Any]:
    return {
        "level": shortcut.level,
        "images": shortcut.n,
        "auc": _interval_json(shortcut.known),
        "auc_unseen_generator": _interval_json(shortcut.unseen) if shortcut.unseen else None,
        "models": {name: round(value, 4) for name, value in shortcut.models.items()},
        "strongest": {name: round(value, 4) for name, value in shortcut.strongest},
    }


def _interval_json(interval: Interval) -> dict[str, Any]:
    ends = {"value": interval.value, "low": interval.low, "high": interval.high}
    rounded = {name: round(end, 4) if isfinite(end) else None for name, end in ends.items()}
    return rounded | {"redrawn": dict(interval.by)}


def _leak_json(leak: Leak) -> dict[str, Any]:
    counts = {name: getattr(leak, name) for name in ("test", "exact", "near", "unconfirmed")}
    return counts | {"share": leak.share, "failures": [failure.to_dict() for failure in leak.failures]}


def drop_rows(found: Audit) -> list[dict[str, Any]]:
    """A row for each image better left out."""
    return [asdict(drop) for drop in found.drop]


# ---------------------------------------------------------------- words


def audit_lines(found: Audit) -> list[str]:
    """The verdict, its numbers, and what to do; at most 96 characters a line."""
    return [
        *_wrapped(f"{VERDICTS[found.level].capitalize()}: {found.subject}", ""),
        *_wrapped(_looked(found)),
        "",
        *_shortcut_lines(found),
        *(line for text in _other_facts(found) for line in _wrapped(text)),
        *_advice(found),
    ]


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _looked(found: Audit) -> str:
    counts = [number(found.looked["real"], "photograph"), number(found.looked["fake"], "fake")]
    of_all = f", drawn from {sum(found.total.values()):,} images" if found.sampled else ""
    unread = sum(found.looked.values()) - sum(found.read.values())
    files = f"; {number(unread, 'file')} of them cannot be read or changed" if unread else ""
    return f"looked at {' and '.join(counts)}{of_all}{files}"


def _shortcut_lines(found: Audit) -> Iterator[str]:
    if found.shortcuts:
        yield f"  {'the label told by':<26}{'AUC':>5}  {'95 %':<11}  {'of unseen generators':<20}"
    for shortcut in found.shortcuts:
        known, unseen = shortcut.known, shortcut.unseen
        apart = f"{unseen.value:.2f}  {_ends(unseen)}" if unseen else "-"
        mark = "" if shortcut.level == "usable" else VERDICTS[shortcut.level]
        if shortcut.unclear:
            mark = "too few images to tell"
        head = f"  {_TOLD_BY[shortcut.kind]:<26}{known.value:>5.2f}  {_ends(known):<11}  {apart:<20}"
        yield f"{head}  {mark}".rstrip()
        if alone := [f"{name} {value:.2f}" for name, value in shortcut.strongest if value > _TELLS]:
            yield f"    alone: {', '.join(alone)}"
    for kind, why in found.skipped.items():
        if why != "categories":
            yield from _wrapped(f"{_TOLD_BY[kind]}: not audited, {_WHY[why]}")


def _ends(interval: Interval) -> str:
    return f"{interval.low:.2f}…{interval.high:.2f}" if isfinite(interval.low) else "unknown"


def _other_facts(found: Audit) -> Iterator[str]:
    if clusters := found.clusters:
        yield (
            f"{clusters.n} content clusters (by {clusters.layer}); {100 * clusters.one_label:.0f} % of the "
            "images lie in clusters of one label"
        )
    for label, names in found.balance.names.items():
        noun = "source" if label == "real" else "generator"
        n, (most, count) = found.balance.counts[label], next(iter(names.items()))
        yield (
            f"{n:,} {label} of {number(len(names), noun)}; most of {name_of(most)}, {100 * count / n:.0f} %"
        )
    twice, leak = found.duplicates, found.leak
    yield (
        f"near-duplicates: {twice.within['real']:,} photographs and {twice.within['fake']:,} fakes beyond "
        f"the first of their group; {number(twice.across, 'group')} under both labels"
    )
    yield from apart_lines(found.apart)
    for pair in found.alike:
        both = f"; {number(pair.shared, 'group')} of near-duplicates are in both" * bool(pair.shared)
        yield (
            f"{name_of(pair.sources[0])} and {name_of(pair.sources[1])} may be one collection: they are told "
            f"apart with AUC {pair.auc:.2f}, random halves of one with {pair.halves:.2f}{both}"
        )
    if twice.pairs:
        yield f"{number(twice.pairs, 'pair')} of a photograph and a fake of one subject are stated"
    if leak:
        sure = f" ({leak.unconfirmed:,} by the perceptual hash alone)" if leak.unconfirmed else ""
        yield (
            f"of {number(leak.test, 'test image')} {leak.exact:,} are among these, and {leak.near:,} more "
            f"nearly so{sure}"
        )


def _advice(found: Audit) -> Iterator[str]:
    findings = [name for name, _ in found.findings()]
    if findings:
        yield ""
        yield "  What to do:"
    for name in findings:
        yield from _wrapped(f"- {_ADVICE[name]}")
    if found.drop:
        yield from _wrapped(
            f"- {number(len(found.drop), 'image')} would be better left out: --out FILE lists them"
        )


def drop_preview(drops: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first images better left out, for people."""
    lines = [f"  {drop['uri']}: {drop['reason']}" for drop in drops[:DROPS_SHOWN]]
    more = len(drops) - len(lines)
    return [*lines, *([f"  and {more:,} more"] if more else [])]
