"""Asking: an image → its nearest references in both banks → a verdict with its evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from retrieval_detect.ask import anew, beside, influence, regions, stability
from retrieval_detect.ask.beside import Beside
from retrieval_detect.ask.calibrations import calibration_name
from retrieval_detect.ask.coverage import coverage_of, covered
from retrieval_detect.ask.evidence import N_EVIDENCE, by_head, doubts, own_rows, shown_with
from retrieval_detect.ask.fitted import PLAIN
from retrieval_detect.ask.methods import Answers, Methods, asked_about, vote_of
from retrieval_detect.ask.table import Verdicts
from retrieval_detect.errors import EmptyBank, ImageError, UsageError, VectorError
from retrieval_detect.images.given import item_of, items_of
from retrieval_detect.images.laundering import CROPS, drawn_views, kind_of, stored_views
from retrieval_detect.options import keywords_of
from retrieval_detect.scoring.answers import UNCALIBRATED, PValues, answer
from retrieval_detect.scoring.attribution import attribute
from retrieval_detect.scoring.conformal import BETA, benjamini_hochberg, traits_of
from retrieval_detect.scoring.vote import few, nobody_left
from retrieval_detect.store.indexes import located
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.types import LABELS, Embedded, Failure, quiet
from retrieval_detect.verdicts import (
    IndexRef,
    JudgedView,
    Question,
    QuestionFields,
    Verdict,
    Votes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retrieval_detect.ask.banks import Banks
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.images.given import Given, GivenMany
    from retrieval_detect.images.laundering import Chooser
    from retrieval_detect.scoring.answers import Answer
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.store.manifest import FittedRecord

_CALIBRATED = ("fpr", "confidence", "source", "within", "fdr", "at", "prior")


class Detector:
    """Judges images by one generation of one index.

    ``Detector.load("default").query("photo.jpg")`` returns a ``Verdict``. Nothing heavy is loaded before
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
        self._weights = weights and Path(weights).absolute()
        self._offline = offline
        self._encoder = encoder
        self._agreed = False
        self._beside: Beside | None = None
        self.methods = Methods(snapshot, device=device)

    def __repr__(self) -> str:
        return f"Detector({self.snapshot!r})"

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

        ``path`` : the index's folder; text without a slash that is no such folder is its name, below
        ``./index`` if that is there, else below the user's data folder. ``encoder`` replaces the one that
        would be built from the index's own record; ``weights`` is a local file or folder for it.

        Raises ``IndexNotFound``, which lists the names there are, ``IndexCorrupt``, ``EmptyBank``, or
        ``UsageError`` for text that is neither.
        """
        snapshot = Snapshot.open(located(path))
        for label in LABELS:
            if not snapshot.manifest.live_rows(label, "bank"):
                raise EmptyBank(
                    f"the {label} bank of index {snapshot.folder.name!r} is empty: there is nothing to vote",
                    hint=f"Add references: rd bank add DIR --label {label}",
                )
        return cls(snapshot, encoder=encoder, weights=weights, device=device, offline=offline)

    # ------------------------------------------------------------ parts, opened when needed

    @property
    def encoder(self) -> Encoder:
        """The index's encoder; raises ``WeightsUnavailable`` or ``EncoderMismatch``."""
        if not self._agreed:
            from retrieval_detect.encoders.agreement import require_agreement, require_same_encoder

            if self._encoder is None:
                from retrieval_detect.encoders.registry import load_encoder

                name = self.snapshot.manifest.encoder.name
                self._encoder = load_encoder(
                    name, weights=self._weights, device=self._device, offline=self._offline
                )
            require_same_encoder(self._encoder.spec, self.snapshot)
            require_agreement(self._encoder, self.snapshot)
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

    @keywords_of(Question)
    def query(self, image: Given, **asked: Unpack[QuestionFields]) -> Verdict:
        """The verdict for one image.

        ``image`` : its path, the bytes of its file, that file opened in binary mode, a Pillow image, or
        pixels, uint8 (height, width, 3) in RGB or (height, width). ``asked`` : see ``Question``. Raises
        ``ImageError`` if the image cannot be used.
        """
        if isinstance(image, list | tuple):
            raise UsageError("query takes one image", hint="query_many takes a list of them.")
        (result,) = self.stream([item_of(image)], **asked)
        if isinstance(result, Failure):
            raise ImageError(f"{result.uri}: {result.message}", reason=result.reason, uri=result.uri)
        return result

    @keywords_of(Question)
    def query_many(
        self,
        images: GivenMany,
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        **asked: Unpack[QuestionFields],
    ) -> Verdicts:
        """Verdicts in the order of ``images``; what cannot be used is a ``Failure`` among them.

        ``images`` : an iterable of what ``query`` takes, or the path of a folder, archive, table or pattern,
        all that it holds (``scan``). ``batch_size`` and ``workers`` : images given to the network at once
        and threads that decode, what suits the machine if not given. ``asked`` : see ``Question``.
        """
        return Verdicts(self.stream(images, batch_size=batch_size, workers=workers, **asked))

    @keywords_of(Question)
    def stream(
        self,
        images: GivenMany,
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        **asked: Unpack[QuestionFields],
    ) -> Iterator[Verdict | Failure]:
        """``query_many`` for more images than fit in memory: each answer as it comes.

        With ``fdr`` the batch is judged as a whole: nothing comes before all images are scored.
        """
        from retrieval_detect.encoders.pipeline import embed_views
        from retrieval_detect.images.provenance import read_provenance

        question = self.checked(Question(**asked))
        items = (replace(item, facts=item.facts or read_provenance) for item in items_of(images))
        embedded = embed_views(
            items,
            self.encoder,
            layers=self.snapshot.manifest.layers,
            views=self.views(question),
            batch_size=batch_size,
            workers=workers,
        )
        judged = self._judged_all(embedded, question)
        yield from judged if question.fdr is None else at_fdr(list(judged), question.fdr)

    @keywords_of(Question)
    def with_beside(
        self,
        pictures: GivenMany,
        *,
        supplier: str | None = None,
        date: str | None = None,
        noted: Callable[[dict[str, Any]], None] = quiet,
        batch_size: int | None = None,
        workers: int | None = None,
        **asked: Unpack[QuestionFields],
    ) -> Detector:
        """The same detector, with photographs that are known to be authentic laid beside every image.

        ``supplier`` and ``date`` : who gave them and when. ``noted`` : told of the pictures and their vectors
        (``beside.facts_of``) before anything is judged. ``asked`` : what will be asked. Vectors are kept in
        the user's cache alone (``encoders.remembered``). Raises ``UsageError`` where none can be used,
        without a calibration, and for what pictures cannot answer.
        """
        from retrieval_detect.encoders.pipeline import embed
        from retrieval_detect.encoders.remembered import RememberedEncoder
        from retrieval_detect.images.provenance import read_provenance

        question = self.checked(Question(**asked))
        beside.require(question)
        items = (replace(item, facts=read_provenance) for item in items_of(pictures))
        sizes = {"batch_size": batch_size, "workers": workers}
        layers = self.snapshot.manifest.layers
        found = list(embed(items, RememberedEncoder(self.encoder), layers=layers, **sizes))
        noted(beside.facts_of(found, supplier, date))
        return self.with_embedded_beside(found, question, supplier=supplier, date=date)

    def with_embedded_beside(
        self,
        pictures: Iterable[Embedded | Failure],
        question: Question,
        *,
        supplier: str | None = None,
        date: str | None = None,
    ) -> Detector:
        """``with_beside`` of photographs that are embedded already; nothing of them is kept.

        ``question`` : ``checked``, what will be asked.
        """
        other = copy(self)
        other._beside = Beside(self.methods, question, pictures, supplier=supplier, date=date)
        return other

    def _judged_all(
        self, embedded: Iterable[Sequence[Embedded | Failure]], question: Question
    ) -> Iterator[Verdict | Failure]:
        started = time.perf_counter()
        for views in embedded:
            (result,) = self.judge_all([views], question, started=[started])
            yield result
            started = time.perf_counter()

    def views(self, question: Question) -> Chooser:
        """Which views of an image must be embedded to answer a checked question, the original first."""
        drawn = drawn_views(question.stability or 0)
        size = self.encoder.spec.preprocessing.size
        crops = stored_views([CROPS] if question.regions else [], crop_size=size)
        return lambda *image: list(dict.fromkeys([*drawn(*image), *crops(*image)]))

    def judge_all(
        self, images: Sequence[Sequence[Embedded | Failure]], question: Question, *, started: Sequence[float]
    ) -> list[Verdict | Failure]:
        """The verdicts for images whose views are embedded already, from one search for all of them.

        ``images`` : of each, what became of each of ``views(question)``, in order. ``question`` :
        ``checked``. ``started`` : of each, ``time.perf_counter()``. What cannot be judged comes as a
        ``Failure``.
        """
        usable = {i: first for i, (first, *_) in enumerate(images) if isinstance(first, Embedded)}
        results = {i: first for i, (first, *_) in enumerate(images) if isinstance(first, Failure)}
        judged: dict[int, Verdict | Failure] = {}
        if usable:
            asked = asked_about(list(usable.values()), self.methods.layers(question))
            at = list(usable)
            for positions, answers in self.methods.ask_all(asked, question):
                for place, i in enumerate(at[position] for position in positions.tolist()):
                    verdict = self._verdict_or_failure(images[i], answers, place, question)
                    if isinstance(verdict, Verdict):
                        verdict = replace(verdict, elapsed_s=time.perf_counter() - started[i])
                    judged[i] = verdict
        return [results.get(i) or judged[i] for i in range(len(images))]

    def _verdict_or_failure(
        self,
        views: Sequence[Embedded | Failure],
        answers: Answers | VectorError,
        place: int,
        question: Question,
    ) -> Verdict | Failure:
        usable = [view for view in views if isinstance(view, Embedded)]
        uri = usable[0].item.uri
        if isinstance(answers, VectorError):
            return Failure(uri, "bad-vector", answers.in_full)
        try:
            return self._judge(usable, answers.one(place), question)
        except EmptyBank as error:  # every reference left is a copy of this very image
            return Failure(uri, "no-voters", error.in_full)

    @keywords_of(Question)
    def judge(self, embedded: Embedded, **asked: Unpack[QuestionFields]) -> Verdict:
        """The verdict for an image that is embedded already; no encoder is needed.

        Raises ``EmptyBank`` if all references of a bank are copies of it.
        """
        started = time.perf_counter()
        question = self.checked(Question(**asked))
        if question.stability or question.regions:
            raise UsageError("stability and regions need the image itself", hint="Use query().")
        answers = self.methods.answer(asked_about([embedded], self.methods.layers(question)), question)
        verdict = self._judge([embedded], answers.one(0), question)
        return replace(verdict, elapsed_s=time.perf_counter() - started)

    def _judge(self, views: Sequence[Embedded], answers: Answers, question: Question) -> Verdict:
        """The verdict for one image. ``views`` : the image itself and what else became of it."""
        embedded, *others = views
        verdict = self._verdict(embedded, answers, question)
        if told := self.methods.attribution(question, answers.vectors):
            shares = by_head(verdict.attribution, told[0], told[1][0])
            verdict = replace(verdict, attribution=shares, attributed_by=question.method)
        verdict = self._calibrated(verdict, answers, question, embedded)
        if question.influence:
            stored = {group for _, group in answers.stored.get(0, ())}
            found = influence.influences(self.methods, embedded, question, answers, own_groups=stored)
            verdict = replace(verdict, influence=found)
        if question.stability or question.regions:
            verdict = self._with_views(verdict, others, question, answers.groups.get(0, set()))
        if self._beside:
            verdict = replace(verdict, beside=self._beside.answer(verdict, embedded, answers))
        return verdict

    def _with_views(
        self, verdict: Verdict, views: Sequence[Embedded], question: Question, own_groups: set[int]
    ) -> Verdict:
        """What views of the image add; what did not vote on the image does not vote on them."""
        crops = [view for view in views if kind_of(view.view) == CROPS]
        if question.regions and crops:
            found = self._crop_methods.regions(crops, question, own_groups=own_groups)
            verdict = replace(verdict, regions=found)
        if question.stability:
            judged = []
            if others := [view for view in views if kind_of(view.view) != CROPS]:
                asked = asked_about(others, self.methods.layers(question), own_groups=own_groups)
                answers = self.methods.answer(asked, question)
                if answers.missing:
                    raise nobody_left(answers.missing[0])
                for i, view in enumerate(others):
                    name = self._fields(answers.one(i), question, view)["verdict"]
                    judged.append(JudgedView(view.view, name, float(answers.scores[i])))
            return stability.with_stability(verdict, judged)
        return verdict

    @cached_property
    def _crop_methods(self) -> regions.CropMethods:
        return regions.CropMethods(self.snapshot, device=self._device)

    def checked(self, question: Question) -> Question:
        """The question with its k and projection, or a ``UsageError`` before an image is looked at."""
        checked = self.methods.checked(question)
        stability.require(checked)
        regions.require(self.snapshot, checked)
        influence.require(checked)
        if all(getattr(question, name) == getattr(Question(), name) for name in _CALIBRATED):
            return checked  # what is too small to calibrate such an answer must not refuse it
        calibration = self.methods.fitted(checked)
        if calibration is None:
            raise UsageError(
                "a rate, confidence, source or prior means nothing without a calibration of this method",
                hint=f"Fit one: rd fit calibration --method {question.method}",
            )
        calibration.require(checked)
        return checked

    def calibration(self, question: Question) -> Calibration | None:
        """The calibration that holds for a question and has images enough to answer it, if there is one."""
        return self.methods.calibration(self.methods.checked(question))

    def _calibrated(
        self, verdict: Verdict, answers: Answers, question: Question, embedded: Embedded
    ) -> Verdict:
        fields = self._fields(answers, question, embedded)
        calibration = self.methods.calibration(question)
        if calibration is not None and self.is_stale(calibration):
            fields["warnings"] = (*verdict.warnings, self.stale_note(calibration))
        if calibration is not None:  # how well each of the nearest fakes' generators fits
            names = self.methods.banks(question.projection).references("fake").names
            (near,) = self.methods.generator_densities(answers, question).tolist()
            fits = calibration.fits_generators(dict(zip(names, near, strict=True)))
            told = (replace(a, p=fits.get(a.generator)) for a in verdict.attribution)
            fields["attribution"] = tuple(told)
            if new := fields["calibration"]["new"]:
                new["nearest"] = self._nearest_source(answers, question, calibration)
        return replace(verdict, **fields)

    def _nearest_source(
        self, answers: Answers, question: Question, calibration: Calibration
    ) -> dict[str, Any] | None:
        """Of the source whose photographs are nearest: how many score as high with it left out."""
        names = self.methods.banks(question.projection).references("real").names
        source = names[int(answers.voters["real"].names[0, 0])]
        left_out = calibration.new.sources.get(source)
        if left_out is None:
            return None
        return {"source": source, "share": float(left_out.share_at_least(answers.scores[0]))}

    def _fields(self, answers: Answers, question: Question, embedded: Embedded) -> dict[str, Any]:
        """The verdict's name of one image; with a calibration, all that it says."""
        calibration = self.methods.calibration(question)
        if calibration is None:
            return {"verdict": UNCALIBRATED.verdict, "reason": UNCALIBRATED.reason}
        traits = traits_of([embedded.format], [(embedded.width, embedded.height)])
        near = covered(self.methods, answers)
        judged = calibration.judge(answers.scores, answers.typical, question, traits=traits, covered=near)
        return calibration.fields(judged, 0, question)

    def stale_parts(self, question: Question) -> Iterator[str]:
        """What the answer rests on that is less than it could be: approximate search, or fitted long ago."""
        yield from self.methods.caveats(question)
        used = {("head", question.method), ("projection", question.projection), ("coverage", self.layer)}
        if question.regions:
            used.add(("regions", calibration_name(question.method, question.projection or PLAIN)))
        for record in self._stale:
            if (record.kind, record.name) in used:
                what, again = f"{record.kind} {record.name}", anew.command(self.snapshot, record)
                yield f"{what} was fitted on other references than there are now: {again}"

    @cached_property
    def _stale(self) -> list[FittedRecord]:
        return self.snapshot.stale()

    def is_stale(self, calibration: Calibration) -> bool:
        """Whether references were added or removed since it was fitted."""
        return calibration.rows_digest != self._rows_digest

    def stale_note(self, calibration: Calibration) -> str:
        """That it is, in words, and what to do."""
        again = anew.calibration_command(self.snapshot, calibration)
        return f"the calibration is of other references than the banks hold now: {again}"

    @cached_property
    def _rows_digest(self) -> str:
        return self.snapshot.rows_digest()

    # ------------------------------------------------------------ answering

    def _verdict(self, embedded: Embedded, answers: Answers, question: Question) -> Verdict:
        voters, score = answers.voters, float(answers.scores[0])
        banks = self.methods.banks(question.projection)
        evidence, by_bank = shown_with(self.snapshot, voters)
        own = own_rows(self.snapshot, answers)
        fakes = sum(e.label == "fake" for e in evidence)
        index, encoder = self.reference, self.snapshot.manifest.encoder
        return Verdict(
            input=embedded.item.uri,
            sha256=embedded.content_id.hex(),
            verdict=UNCALIBRATED.verdict,
            reason=UNCALIBRATED.reason,
            reach=UNCALIBRATED.reach,
            photographs=question.photographs,
            coverage=coverage_of(self.methods, answers),
            score=score,
            method=question.method,
            k=int(answers.k[0]),
            votes=Votes(fakes, len(evidence) - fakes, len(evidence), index.share_fake),
            nearest={label: float(voters[label].similarities[0, 0]) for label in ("fake", "real")},
            attribution=attribute(
                self.methods.nearest_fakes(answers),
                names=banks.references("fake").names,
                of=N_EVIDENCE,
                temperature=banks.projection.temperature,
            ),
            evidence=evidence,
            by_bank=by_bank,
            same_image=own,
            warnings=(
                *doubts(embedded, own, encoder),
                *few(voters, 0, method=vote_of(question.method), k=question.k or 0),
                *self.stale_parts(question),
            ),
            index=index,
            encoder=encoder.name,
            engine=self._encoder.spec.engine if self._encoder else encoder.engine,
            elapsed_s=0.0,
            provenance=embedded.provenance,
        )


def at_fdr(results: Sequence[Verdict | Failure], fdr: float) -> Iterator[Verdict | Failure]:
    """Judge a batch again, at the rate that keeps false discoveries at ``fdr`` among those called fake-like.

    An image that could not be called so, whatever the rate, because it fits no fakes or neither bank,
    counts as p = 1: still a p-value, and that procedure's rejections are then just those that are called.
    Were it counted by its own p, it would raise the cutoff for photographs and be missing among the calls.
    """
    p_values = [r.p_values for r in results if isinstance(r, Verdict) and r.p_values]
    callable_fake = [_at(replace(_p(p), real=0.0), 0.0).verdict == "fake-like" for p in p_values]
    counted = [_p(p).real if able else 1.0 for p, able in zip(p_values, callable_fake, strict=True)]
    cutoff = benjamini_hochberg(counted, fdr)
    for result in results:
        if isinstance(result, Failure) or result.p_values is None:
            yield result
        else:
            said, alpha = _at(_p(result.p_values), cutoff), {"real": cutoff, "fake": BETA}
            yield replace(
                result, verdict=said.verdict, reason=said.reason, reach=said.reach, alpha=alpha, fdr=fdr
            )


def _p(p: Mapping[str, float | None]) -> PValues:
    return PValues(p["real"] or 0.0, None, p["fake"] or 0.0, p["typical"] or 0.0)


def _at(p: PValues, alpha: float) -> Answer:
    return answer(p, alpha=alpha, known=True)
