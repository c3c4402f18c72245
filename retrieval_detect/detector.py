"""Asking: an image → its nearest references in both banks → a verdict with its evidence."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_detect.errors import EmptyBank, ImageError, UsageError
from retrieval_detect.methods import ATTRIBUTION_K, Answer, Methods
from retrieval_detect.scoring.attribution import attribute
from retrieval_detect.scoring.conformal import BETA, benjamini_hochberg, size_class
from retrieval_detect.scoring.conformal import verdict as verdict_name
from retrieval_detect.store.append import grouping_layer
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.types import (
    LABELS,
    Embedded,
    Evidence,
    Failure,
    ImageItem,
    IndexRef,
    Question,
    Verdict,
    Votes,
)

if TYPE_CHECKING:
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.scoring.neighbours import BankNeighbours
    from retrieval_detect.search.banks import Banks, Near
    from retrieval_detect.store.manifest import FittedRecord
    from retrieval_detect.types import EncoderSpec, Label

N_EVIDENCE = 10
STALE = "the calibration is of other references than the banks hold now: rd fit calibration"
_EVIDENCE_COLUMNS = ["label", "generator", "source", "uri", "content_id", "added_at"]

_NOTES = {
    "alpha-on-white": "transparent areas were put on white",
    "first-frame": "only the first frame of an animation was judged",
}


class Detector:
    """Judges images by one generation of one index.

    ``Detector.load(path).query("photo.jpg")`` returns a ``Verdict``. Nothing heavy is loaded before
    the first image is judged: torch with the first encoding, FAISS with the first search.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        encoder: Encoder | None = None,
        weights: str | Path | None = None,
        device: str = "auto",
        offline: bool = False,
    ) -> None:
        self.snapshot = snapshot
        self.layer = grouping_layer(snapshot.manifest.layers)
        self._device = device
        self._weights = weights
        self._offline = offline
        self._encoder = encoder
        self._agreed = False
        self.methods = Methods(snapshot, device=device)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        weights: str | Path | None = None,
        device: str = "auto",
        offline: bool = False,
    ) -> Detector:
        """A detector over the generation in force at ``path``.

        ``encoder`` replaces the one that would be built from the index's own record; ``weights`` is
        a local file or folder for it. Raises ``IndexNotFound``, ``IndexCorrupt``, ``EmptyBank``.
        """
        snapshot = Snapshot.open(Path(path))
        _require_banks(snapshot)
        return cls(snapshot, encoder=encoder, weights=weights, device=device, offline=offline)

    # ------------------------------------------------------------ parts, opened when needed

    @property
    def encoder(self) -> Encoder:
        """The index's encoder; raises ``WeightsUnavailable`` or ``EncoderMismatch``."""
        if not self._agreed:
            from retrieval_detect.encoders.agreement import engine_drift, require_same_encoder

            if self._encoder is None:
                from retrieval_detect.encoders.registry import load_encoder

                name = self.snapshot.manifest.encoder.name
                self._encoder = load_encoder(
                    name, weights=self._weights, device=self._device, offline=self._offline
                )
            require_same_encoder(self._encoder.spec, self.snapshot)
            engine_drift(self._encoder, self.snapshot)
            self._agreed = True
        assert self._encoder is not None  # noqa: S101 - for the type checker; set above
        return self._encoder

    def open_banks(self) -> None:
        """Open both banks now, building derived files that are missing, instead of at the first query."""
        for label in LABELS:
            self.banks.bank(label)

    @property
    def banks(self) -> Banks:
        """Both banks, through the index's default projection."""
        return self.methods.banks()

    @property
    def reference(self) -> IndexRef:
        """Which generation judges, and how large its banks are."""
        manifest = self.snapshot.manifest
        return IndexRef(
            self.snapshot.folder.resolve().name,
            manifest.generation,
            manifest.encoder.fingerprint,
            manifest.live_rows("real", "bank"),
            manifest.live_rows("fake", "bank"),
            len(manifest.names("fake")),
        )

    # ------------------------------------------------------------ asking

    def query(self, image: str | Path | bytes | ImageItem, **asked: Any) -> Verdict:
        """The verdict for one image: a path, its bytes, or an item of ``images.sources``.

        ``asked`` are the fields of ``types.Question``. Raises ``ImageError`` if the image cannot be used.
        """
        result = next(iter(self.query_many([image], **asked)))
        if isinstance(result, Failure):
            raise ImageError(f"{result.uri}: {result.message}", reason=result.reason, uri=result.uri)
        return result

    def query_many(
        self,
        images: Iterable[str | Path | bytes | ImageItem],
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        **asked: Any,
    ) -> Iterator[Verdict | Failure]:
        """Verdicts in the order of ``images``, streamed; what cannot be used comes as a ``Failure``.

        With ``fdr`` the batch is judged as a whole: nothing comes before all images are scored.
        """
        from retrieval_detect.encoders.pipeline import embed

        question = self._checked(Question(**asked))
        items = (_item(image) for image in images)
        layers = self.snapshot.manifest.layers
        embedded = embed(items, self.encoder, layers=layers, batch_size=batch_size, workers=workers)
        judged = self._judged_all(embedded, question)
        yield from judged if question.fdr is None else at_fdr(list(judged), question.fdr)

    def _judged_all(
        self, embedded: Iterable[Embedded | Failure], question: Question
    ) -> Iterator[Verdict | Failure]:
        started = time.perf_counter()
        for result in embedded:
            yield result if isinstance(result, Failure) else self._judged(result, question, started)
            started = time.perf_counter()

    def _judged(self, embedded: Embedded, question: Question, started: float) -> Verdict | Failure:
        try:
            verdict = self._judge(embedded, question)
        except EmptyBank as error:  # every reference left is a copy of this very image
            return Failure(embedded.item.uri, "no-voters", error.message)
        return replace(verdict, elapsed_s=time.perf_counter() - started)

    def judge(self, embedded: Embedded, **asked: Any) -> Verdict:
        """The verdict for an image that is embedded already; no encoder is needed."""
        started = time.perf_counter()
        verdict = self._judge(embedded, self._checked(Question(**asked)))
        return replace(verdict, elapsed_s=time.perf_counter() - started)

    def _judge(self, embedded: Embedded, question: Question) -> Verdict:
        stored = self._stored_copies(embedded)
        groups = {group for _, group in stored}
        answer = self.methods.ask(embedded, embedded.vectors, question, own_groups=groups)
        verdict = self._verdict(embedded, answer, self._own_rows(answer.near, stored), question)
        return self._calibrated(verdict, answer, question, embedded)

    def _checked(self, question: Question) -> Question:
        """The question with its k and projection, or a ``UsageError`` before an image is looked at."""
        checked = self.methods.checked(question)
        calibration = self.methods.calibration(checked)
        if calibration is not None:
            calibration.require(checked)
        elif question != Question(question.method, question.k, question.projection):
            raise UsageError(
                "a rate, confidence, source or prior means nothing without a calibration of this method",
                hint=f"Fit one: rd fit calibration --method {question.method}",
            )
        return checked

    def calibration(self, question: Question) -> Calibration | None:
        """The calibration that holds for a method, if the index has one."""
        return self.methods.calibration(self.methods.checked(question))

    def _calibrated(
        self, verdict: Verdict, answer: Answer, question: Question, embedded: Embedded
    ) -> Verdict:
        calibration = self.methods.calibration(question)
        if calibration is None:
            return verdict
        traits = {"format": embedded.format, "size": size_class(embedded.width, embedded.height)}
        fields = calibration.judge(answer.result.score, answer.typical, question, traits=traits)
        if self.is_stale(calibration):
            fields["warnings"] = (*verdict.warnings, STALE)
        return replace(verdict, **fields)

    def _stale_parts(self, question: Question) -> Iterator[str]:
        """What the answer rests on that was fitted on other references than there are now."""
        used = {("head", question.method), ("projection", question.projection)}
        for record in self._stale:
            if (record.kind, record.name) in used:
                again = "rd train" if record.kind == "head" else "rd fit projection"
                what = f"{record.kind} {record.name}"
                yield f"{what} was fitted on other references than there are now: {again}"

    @cached_property
    def _stale(self) -> list[FittedRecord]:
        return self.snapshot.stale()

    def is_stale(self, calibration: Calibration) -> bool:
        """Whether references were added or removed since it was fitted."""
        return calibration.rows_digest != self._rows_digest

    @cached_property
    def _rows_digest(self) -> str:
        return self.snapshot.rows_digest()

    def _stored_copies(self, embedded: Embedded) -> list[tuple[int, int]]:
        """(row id, group) of every live row of the query's own bytes, in either split."""
        row_ids = [row_id for _, row_id, _, _ in self.snapshot.find([embedded.content_id])]
        rows = self.snapshot.take(row_ids, ["group"]) if row_ids else []
        return [(row["row_id"], row["group"]) for row in rows]

    # ------------------------------------------------------------ answering

    def _verdict(
        self, embedded: Embedded, answer: Answer, own: tuple[Evidence, ...], question: Question
    ) -> Verdict:
        voters, result = answer.voters, answer.result
        banks = self.methods.banks(question.projection)
        evidence = self._evidence(_merged(voters))
        fakes = sum(e.label == "fake" for e in evidence)
        index = self.reference
        encoder = self.snapshot.manifest.encoder
        return Verdict(
            input=embedded.item.uri,
            sha256=embedded.content_id.hex(),
            verdict="fake-like" if result.score > 0 else "real-like",
            score=result.score,
            method=question.method,
            k=result.k,
            votes=Votes(fakes, len(evidence) - fakes, len(evidence), index.share_fake),
            nearest={label: float(voters[label].similarities.max()) for label in ("fake", "real")},
            attribution=attribute(
                voters["fake"],
                names=banks.references("fake").names,
                k=ATTRIBUTION_K,
                of=N_EVIDENCE,
                temperature=banks.projection.temperature,
            ),
            evidence=evidence,
            same_image=own,
            warnings=(
                *_warnings(embedded, own, encoder),
                *result.warnings,
                *self._stale_parts(question),
            ),
            index=index,
            encoder=encoder.name,
            engine=self._encoder.spec.engine if self._encoder else encoder.engine,
            elapsed_s=0.0,
        )

    def _evidence(self, ranked: Sequence[tuple[int, float]]) -> tuple[Evidence, ...]:
        rows = self.snapshot.take([row_id for row_id, _ in ranked], _EVIDENCE_COLUMNS)
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

    def _own_rows(
        self, near: Mapping[Label, Near], stored: Sequence[tuple[int, int]]
    ) -> tuple[Evidence, ...]:
        """The query's own image and its near-duplicates among the references, most similar first."""
        similar = {row_id: 1.0 for row_id, _ in stored}
        for bank in near.values():
            similar |= dict(
                zip(bank.row_ids[bank.own].tolist(), bank.similarities[bank.own].tolist(), strict=True)
            )
        return self._evidence(sorted(similar.items(), key=lambda pair: (-pair[1], pair[0])))


def at_fdr(results: Sequence[Verdict | Failure], fdr: float) -> Iterator[Verdict | Failure]:
    """Judge a batch again, at the rate that keeps false discoveries at ``fdr``."""
    p_real = [r.p_values["real"] for r in results if isinstance(r, Verdict) and r.p_values]
    cutoff = benjamini_hochberg(p_real, fdr)
    for result in results:
        if isinstance(result, Failure) or result.p_values is None:
            yield result
        else:
            p, alpha = result.p_values, {"real": cutoff, "fake": BETA}
            name = verdict_name(p["real"], p["fake"], p["typical"], alpha=cutoff)
            yield replace(result, verdict=name, alpha=alpha, fdr=fdr)


def _merged(voters: Mapping[Label, BankNeighbours]) -> list[tuple[int, float]]:
    """The nearest of both banks together, one row an image, ordered by (-similarity, row id)."""
    seen: set[int] = set()
    merged: list[tuple[int, float]] = []
    pairs = sorted(
        (-float(s), int(r), int(c))
        for bank in voters.values()
        for s, r, c in zip(bank.similarities, bank.row_ids, bank.content, strict=True)
    )
    for similarity, row_id, content in pairs:
        if content not in seen and len(merged) < N_EVIDENCE:
            seen.add(content)
            merged.append((row_id, -similarity))
    return merged


def _warnings(embedded: Embedded, own: Sequence[Evidence], encoder: EncoderSpec) -> Iterator[str]:
    size = encoder.preprocessing.size
    if min(embedded.width, embedded.height) < size:
        yield f"{embedded.width}×{embedded.height} is smaller than the encoder's {size}×{size}"
    yield from (_NOTES[note] for note in embedded.notes if note in _NOTES)
    if any(e.content_id == embedded.content_id.hex() for e in own):
        yield "this very image is a reference of the index; it did not vote"
    elif own:
        yield "near-duplicates of this image are references of the index; they did not vote"
    if not encoder.is_clip:
        yield f"the encoder is no CLIP ({encoder.name}): {encoder.note}"


def _require_banks(snapshot: Snapshot) -> None:
    for label in LABELS:
        if not snapshot.manifest.live_rows(label, "bank"):
            raise EmptyBank(
                f"the {label} bank of index {snapshot.folder.name!r} is empty: there is nothing to vote",
                hint=f"Add references: rd bank add DIR --label {label}",
            )


def _item(image: str | Path | bytes | ImageItem) -> ImageItem:
    if isinstance(image, ImageItem):
        return image
    if isinstance(image, bytes):
        return ImageItem("-", lambda: image)
    path = Path(image)
    return ImageItem(str(path), path.read_bytes, path.name)
