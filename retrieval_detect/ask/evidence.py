"""What is shown with a verdict: the references it rests on, the image's own copies, what may mislead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.images.codes import NOTES
from retrieval_detect.verdicts import Attribution, Evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.ask.methods import Answers
    from retrieval_detect.scoring.neighbours import NearestImages
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Embedded, EncoderSpec, Label

N_EVIDENCE, N_EACH = 10, 5
_COLUMNS = ["label", "generator", "source", "uri", "content_id", "added_at"]


def evidence_of(snapshot: Snapshot, ranked: Sequence[tuple[int, float]]) -> tuple[Evidence, ...]:
    """References by row id, with their similarity to the query, in the order given."""
    rows = snapshot.take([row_id for row_id, _ in ranked], _COLUMNS)
    return tuple(
        Evidence(
            rank=rank,
            row_id=row["row_id"],
            label=row["label"],
            similarity=similarity,
            generator=row["generator"],
            source=row["source"],
            uri=row["uri"],
            content_id=row["content_id"].hex(),
            added_at=row["added_at"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        for rank, (row, (_, similarity)) in enumerate(zip(rows, ranked, strict=True), start=1)
    )


def nearest_of_both(voters: Mapping[Label, NearestImages]) -> list[tuple[int, float]]:
    """One image's nearest of both banks together, row ids and similarities, by (-similarity, row id)."""
    pairs = sorted(
        (-similarity, row_id)
        for bank in voters.values()
        for similarity, row_id in zip(
            bank.similarities[0, :N_EVIDENCE].tolist(), bank.row_ids[0, :N_EVIDENCE].tolist(), strict=True
        )
        if similarity > -np.inf
    )
    return [(row_id, -similarity) for similarity, row_id in pairs[:N_EVIDENCE]]


def shown_with(
    snapshot: Snapshot, voters: Mapping[Label, NearestImages]
) -> tuple[tuple[Evidence, ...], dict[Label, tuple[Evidence, ...]]]:
    """The nearest references of both banks together, and the nearest of each, from one look at the store."""
    both = nearest_of_both(voters)
    each = {label: nearest_of_both({label: bank})[:N_EACH] for label, bank in voters.items()}
    wanted = dict.fromkeys([*both, *(pair for pairs in each.values() for pair in pairs)])
    found = {evidence.row_id: evidence for evidence in evidence_of(snapshot, list(wanted))}

    def ranked(pairs: Sequence[tuple[int, float]]) -> tuple[Evidence, ...]:
        return tuple(replace(found[row_id], rank=rank) for rank, (row_id, _) in enumerate(pairs, start=1))

    return ranked(both), {label: ranked(pairs) for label, pairs in each.items()}


def own_rows(snapshot: Snapshot, answers: Answers) -> tuple[Evidence, ...]:
    """One image's own rows and its near-duplicates among the references, most similar first."""
    similar = {row_id: 1.0 for row_id, _ in answers.stored.get(0, ())} | dict(answers.own.get(0, {}))
    found = evidence_of(snapshot, sorted(similar.items(), key=lambda pair: (-pair[1], pair[0])))
    first = {copy.content_id: copy for copy in reversed(found)}
    images = [copy for copy in found if first[copy.content_id] is copy]  # of an image's views, the nearest
    return tuple(replace(copy, rank=rank) for rank, copy in enumerate(images, start=1))


def by_head(
    nearest: Sequence[Attribution], names: Sequence[str], shares: NDArray[np.float64]
) -> tuple[Attribution, ...]:
    """Generators by the shares that a head gives them, float64 (generators,), largest first.

    ``nearest`` : those of the nearest fakes, whose numbers stand beside the shares.
    """
    of = {a.generator: a.of_nearest_fakes for a in nearest}
    share = dict.fromkeys(of, 0.0) | dict(zip(names, shares.tolist(), strict=True))
    found = [Attribution(name, of.get(name, 0), share[name]) for name in share]
    return tuple(sorted(found, key=lambda a: (-a.share, a.generator)))


def doubts(embedded: Embedded, own: Sequence[Evidence], encoder: EncoderSpec) -> Iterator[str]:
    """What may make the answer wrong, in words."""
    size = encoder.preprocessing.size
    if min(embedded.width, embedded.height) < size:
        yield f"{embedded.width}×{embedded.height} is smaller than the encoder's {size}×{size}"
    yield from (NOTES[note] for note in embedded.notes)
    if any(e.content_id == embedded.content_id.hex() for e in own):
        yield "this very image is a reference of the index; it did not vote"
    elif own:
        yield "near-duplicates of this image are references of the index; they did not vote"
    if not encoder.is_clip:
        yield f"the encoder is no CLIP ({encoder.name}): {encoder.note}"
    elif encoder.note:
        yield described(encoder.name, encoder.note)


def described(encoder: str, note: str) -> str:
    """What is known of a CLIP: no doubt about an answer, and told beside its name where there is room."""
    return f"encoder {encoder}: {note}"
