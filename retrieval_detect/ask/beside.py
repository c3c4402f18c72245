"""Photographs known to be authentic, laid into the real bank for one question alone, as one source.

What forensic practice does by hand: pictures of the same camera, site, photographer or event beside the
questioned one. Nothing is written to the index; its projection stays as it is. The answer without them stands
beside the one with them, for a handful of pictures must not be a way to buy a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.ask.banks import Asked
from retrieval_detect.ask.instead import Instead
from retrieval_detect.ask.methods import asked_about
from retrieval_detect.ask.rows import Chosen, rows_to_ask, score_rows
from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.files import sha256_bytes
from retrieval_detect.images.provenance import names_generator
from retrieval_detect.scoring.answers import Answer, PValues
from retrieval_detect.scoring.beside import answer_beside, scene_p
from retrieval_detect.scoring.conformal import photographs_needed, traits_of
from retrieval_detect.scoring.neighbours import same_image
from retrieval_detect.store.groups import group_rows
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.types import METHODS, Embedded, Failure
from retrieval_detect.vectors import Rows, normalise
from retrieval_detect.verdicts import Contrast, LaidPicture, Refused, WithBeside

if TYPE_CHECKING:
    from retrieval_detect.ask.methods import Answers, Methods
    from retrieval_detect.scoring.calibration import Calibration, Judged
    from retrieval_detect.types import Bool, Int64
    from retrieval_detect.verdicts import Question, Verdict

SCENE_COSINE = 0.9
"""Pictures at least as similar are of one scene. With CLIP ViT-B/16, crops of a picture to 80 % keep .83 to
.95, and of 350 photographs of shoes the nearest other lies at .89 in the middle."""
CONTRAST = 20
"""Known fakes that are asked with the same pictures beside."""


def require(question: Question) -> None:
    """Raise ``UsageError`` for a question that pictures beside cannot answer."""
    if question.method not in METHODS:
        raise UsageError(
            f"{question.method!r} is a head: with more references it would have to be trained again",
            hint=f"Pictures are laid beside for votes: {', '.join(METHODS)}.",
        )
    if any(value is not None for value in (question.fdr, question.confidence, question.at)):
        raise UsageError(
            "with pictures beside, images are judged at a plain rate of false alarms",
            hint="Leave out fdr, confidence and at of --fpr.",
        )


class Beside:
    """Pictures at hand to be laid beside images.

    ``methods`` and ``question`` (checked): who judges, and how. ``pictures`` : embedded, with what the file
    says of itself, or why they cannot be used. ``supplier`` and ``date`` : who gave them and when, as said.

    They are judged first, without any of them in the bank. Refused are those that cannot be read, that say a
    generator made them, and near-duplicates of known fakes. Raises ``UsageError`` where none is left, and
    without a calibration: no verdict is given that pictures could change.
    """

    def __init__(
        self,
        methods: Methods,
        question: Question,
        pictures: Iterable[Embedded | Failure],
        *,
        supplier: str | None = None,
        date: str | None = None,
    ) -> None:
        require(question)
        calibration = methods.calibration(question)
        if calibration is None:
            raise UsageError(
                "without a calibration no verdict is given, and photographs beside could change none",
                hint=f"Fit one: rd fit calibration --method {question.method}",
            )
        self.supplier, self.date = supplier, date
        self._methods, self._question, self._calibration = methods, question, calibration
        self.refused: list[Refused] = []
        self.pictures: list[Embedded] = []
        self._lots: dict[tuple[int, ...], Lot] = {}
        usable = self._usable(pictures)
        self._judge(usable)
        if not self.pictures:
            told = "; ".join(f"{one.input}: {one.why}" for one in self.refused[:3])
            raise UsageError(
                "of the pictures to lay beside none can be used",
                hint=told or "Give a file or a folder with photographs that are known to be authentic.",
            )
        self._scenes = scenes_of(self.pictures, grouping_layer(methods.snapshot.manifest.layers))

    def _usable(self, pictures: Iterable[Embedded | Failure]) -> list[Embedded]:
        found: dict[bytes, Embedded] = {}
        for picture in pictures:
            if isinstance(picture, Failure):
                self.refused.append(Refused(picture.uri, picture.message))
            elif picture.provenance and names_generator(picture.provenance):
                self._refuse(picture, "the file says that a generator made it, or parts of it")
            elif picture.content_id in found:
                self._refuse(picture, f"it is the same file as {found[picture.content_id].item.uri}")
            else:
                found[picture.content_id] = picture
        return list(found.values())

    def _refuse(self, picture: Embedded, why: str) -> None:
        self.refused.append(Refused(picture.item.uri, why))

    def _judge(self, pictures: Sequence[Embedded]) -> None:
        """Keep those that are no known fakes, each with its score and whether it is fake-like itself."""
        methods, question = self._methods, self._question
        self._scores: list[float] = []
        self._fake_like: list[bool] = []
        if not pictures:
            return
        asked = asked_about(pictures, methods.layers(question))
        for at, answers in methods.ask_all(asked, question):
            for place, i in enumerate(at.tolist()):
                if isinstance(answers, VectorError):
                    self._refuse(pictures[i], answers.message)
                elif not answers.voted[place] or self._is_known_fake(answers, place):
                    self._refuse(pictures[i], "it, or a near-duplicate of it, is in the index as a fake")
                else:
                    one = answers.one(place)
                    self.pictures.append(pictures[i])
                    self._scores.append(float(one.scores[0]))
                    self._fake_like += flagged(self._calibration, one, question, [pictures[i]]).tolist()

    def _is_known_fake(self, answers: Answers, place: int) -> bool:
        own = [row_id for row_id, _ in answers.stored.get(place, ())] + [*answers.own.get(place, {})]
        rows = self._methods.snapshot.take(own, ["label"]) if own else []
        return any(row["label"] == "fake" for row in rows)

    # ------------------------------------------------------------ answering

    def answer(self, verdict: Verdict, image: Embedded, answers: Answers) -> WithBeside:
        """What is said of one image with them.

        ``verdict`` and ``answers`` : what was said without. Near-duplicates of the image, and what is of one
        scene with these, have no part in it.
        """
        near = self._near(image)
        gone = np.isin(self._scenes, self._scenes[near])
        refused = [
            Refused(self.pictures[i].item.uri, "it is a near-duplicate of the image, or of its scene")
            for i in np.flatnonzero(gone).tolist()
        ]
        kept = tuple(np.flatnonzero(~gone).tolist())
        without = Answer(verdict.verdict, verdict.reason, verdict.reach)
        if not kept:
            nothing = dict.fromkeys(("real", "fake", "typical", "scenes"))
            return self._said(without, verdict.score, nothing, kept, None, refused)
        if kept not in self._lots:
            pictures = [self.pictures[i] for i in kept]
            scenes = np.unique(self._scenes[list(kept)], return_inverse=True)[1]
            self._lots[kept] = Lot(self._methods, self._question, self._calibration, pictures, scenes)
        lot = self._lots[kept]
        asked = asked_about(
            [image], self._methods.layers(self._question), own_groups=answers.groups.get(0, set())
        )
        contrast = lot.contrast(answers, self._calibration)
        clears = contrast is not None and contrast.clears
        said = lot.ask(asked, [image.format], [(image.width, image.height)])
        answer = lot.answer(said, 0, without, asked, clears_fakes=clears)
        p = said.p(0) | {"scenes": lot.scene_p(asked)}
        return self._said(answer, float(said.answers.scores[0]), p, kept, contrast, refused)

    def _said(
        self,
        answer: Answer,
        score: float,
        p: Mapping[str, float | None],
        kept: Sequence[int],
        contrast: Contrast | None,
        refused: Sequence[Refused],
    ) -> WithBeside:
        number = {old: new for new, old in enumerate(dict.fromkeys(self._scenes[list(kept)].tolist()), 1)}
        pictures = tuple(
            LaidPicture(
                self.pictures[i].item.uri,
                self.pictures[i].content_id.hex(),
                number[int(self._scenes[i])],
                self._scores[i],
                self._fake_like[i],
            )
            for i in kept
        )
        return WithBeside(
            verdict=answer.verdict,
            reason=answer.reason,
            score=score,
            p_values=p,
            scenes=len(number),
            needed=photographs_needed(self._question.fpr),
            contrast=contrast,
            supplier=self.supplier,
            date=self.date,
            digest=digest_of([self.pictures[i] for i in kept]),
            pictures=pictures,
            refused=(*self.refused, *refused),
        )

    def _near(self, image: Embedded) -> Bool:
        """Which pictures are the image itself, or near-duplicates of it, bool (n,)."""
        layer = grouping_layer(self._methods.snapshot.manifest.layers)
        units = normalise(np.stack([image.vectors[layer], *(p.vectors[layer] for p in self.pictures)]))[0]
        wide = units.astype(np.float32)
        hashes = np.array([picture.phash for picture in self.pictures], np.uint64)
        hamming = np.bitwise_count(hashes ^ np.uint64(image.phash))
        same = np.array([picture.content_id == image.content_id for picture in self.pictures])
        return same_image(wide[1:] @ wide[0], hamming, same_content=same)


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What is said of q images with the pictures in the bank, and what calibration rows make of it."""

    answers: Answers
    judged: Judged

    def p(self, i: int) -> dict[str, float | None]:
        """The p-values of image ``i`` by name."""
        found = self.judged
        return {
            name: float(values[i])
            for name, values in (("real", found.p_real), ("fake", found.p_fake), ("typical", found.p_typical))
        }


class Lot:
    """Pictures in the bank, and the calibration rows asked anew with them there."""

    def __init__(
        self,
        methods: Methods,
        question: Question,
        calibration: Calibration,
        pictures: Sequence[Embedded],
        scenes: Int64,
    ) -> None:
        self._methods, self._question, self._without = methods, question, calibration
        self._pictures = asked_about(pictures, methods.layers(question))
        self._scenes = scenes
        self._banks = methods.banks(question.projection)
        self._with = Instead(methods, self._banks.with_photographs(self._pictures, scenes))
        self._p_scenes: dict[bytes, float | None] = {}

    @cached_property
    def _calibration(self) -> Calibration:
        rows = score_rows(self._methods.snapshot, self._question, judge=self._with)
        return replace(self._without, conformal=rows.conformal)

    def ask(self, asked: Asked, formats: Sequence[str], sizes: Iterable[tuple[int, int]]) -> Said:
        """Ask about images with the pictures in the bank."""
        answers = self._with.ask(asked, self._question)
        return Said(answers, _judged(self._calibration, answers, self._question, formats, sizes))

    def answer(self, said: Said, i: int, without: Answer, asked: Asked, *, clears_fakes: bool) -> Answer:
        """What is said of image ``i`` of those asked about, ``asked`` being it alone."""
        p, judged = said.p(i), said.judged
        values = PValues(p["real"] or 0.0, None, p["fake"] or 0.0, p["typical"] or 0.0)
        return answer_beside(
            without,
            values,
            self.scene_p(asked),
            alpha=float(judged.alpha[i]),
            clears_fakes=clears_fakes,
        )

    def scene_p(self, asked: Asked) -> float | None:
        """How many scenes score as high as one image, each treated as it is; ``None`` where they are too few.

        The image lies in the bank as one scene more, and each is asked without its own.
        """
        n_scenes = int(self._scenes.max()) + 1
        if n_scenes < photographs_needed(self._question.fpr):
            return None
        key = asked.content_ids[0]
        if key not in self._p_scenes:
            together = self._pictures.followed_by(asked)
            banks = self._banks.with_photographs(together, np.append(self._scenes, n_scenes))
            scores = Instead(self._methods, banks).ask(together, self._question).scores
            self._p_scenes[key] = scene_p(float(scores[-1]), scores[:-1], self._scenes)
        return self._p_scenes[key]

    def contrast(self, answers: Answers, calibration: Calibration) -> Contrast | None:
        """What the pictures do for the references of the nearest generator that lie nearest to an image."""
        rows, generator = self._fakes(answers)
        if rows is None:
            return None
        asked = Asked.of(rows)
        formats, sizes = rows.formats.tolist(), rows.sizes.tolist()
        without = self._methods.ask(asked, self._question)
        known = _judged(calibration, without, self._question, formats, sizes).answers
        said = self.ask(asked, formats, sizes)
        flagged_at = [i for i, one in enumerate(known) if one.verdict == "fake-like"]
        turned = sum(
            self.answer(said, i, known[i], asked.take(np.array([i])), clears_fakes=False).verdict
            != "fake-like"
            for i in flagged_at
        )
        return Contrast(generator, len(flagged_at), turned)

    def _fakes(self, answers: Answers) -> tuple[Rows | None, str]:
        """The nearest references of the generator that an image is attributed to, each an image once."""
        generator = str(self._methods.top_generators(answers, self._question)[0])
        near, names = answers.voters["fake"], self._banks.references("fake").names
        mine = [names[code] == generator for code in near.names[0, : int(near.n[0])].tolist()]
        row_ids = near.row_ids[0, : len(mine)][mine][:CONTRAST]
        chosen = Chosen(("bank",), only=frozenset(row_ids.tolist()))
        blocks = list(rows_to_ask(self._methods.snapshot, chosen, self._methods.layers(self._question)))
        return (blocks[0].followed_by(*blocks[1:]) if blocks else None), generator


def _judged(
    calibration: Calibration,
    answers: Answers,
    question: Question,
    formats: Sequence[str],
    sizes: Iterable[tuple[int, int]],
) -> Judged:
    """As photographs of known sources are: what pictures beside can change is that alone."""
    known = replace(question, photographs="known", prior=None)
    covered = np.ones(len(answers.scores), bool)  # not asked of a source that is said to be known
    return calibration.judge(
        answers.scores, answers.typical, known, traits=traits_of(formats, sizes), covered=covered
    )


def flagged(
    calibration: Calibration, answers: Answers, question: Question, images: Sequence[Embedded]
) -> Bool:
    """Which images would be fake-like, were they of known sources, bool (q,)."""
    sizes = [(image.width, image.height) for image in images]
    found = _judged(calibration, answers, question, [image.format for image in images], sizes)
    return np.array([one.verdict == "fake-like" for one in found.answers], bool)


def scenes_of(pictures: Sequence[Embedded], layer: str) -> Int64:
    """The scene of each picture, int64 (n,), 0…m - 1 in the order of their first.

    Near-duplicates are of one scene, and pictures that are similar: a cosine of ``SCENE_COSINE``
    in ``layer``; chains of them are one scene.
    """
    from scipy.sparse.csgraph import connected_components

    units = normalise(np.stack([picture.vectors[layer] for picture in pictures]))[0]
    wide = units.astype(np.float32)
    linked = wide @ wide.T >= SCENE_COSINE
    hashes = np.array([picture.phash for picture in pictures], np.uint64)
    cluster = group_rows(hashes, units, [], layer).cluster
    linked |= cluster[:, None] == cluster
    component = connected_components(linked, directed=False)[1]
    _, first, scene = np.unique(component, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    scenes: Int64 = order[scene].astype(np.int64)
    return scenes


def facts_of(
    pictures: Sequence[Embedded | Failure], supplier: str | None, date: str | None
) -> dict[str, Any]:
    """What a case keeps of pictures before anything is judged with them: the files, and their vectors."""
    usable = [picture for picture in pictures if isinstance(picture, Embedded)]
    failed = [picture for picture in pictures if isinstance(picture, Failure)]
    return {
        "supplier": supplier,
        "date": date,
        "vectors_sha256": digest_of(usable),
        "pictures": [{"path": str(Path(p.item.uri).resolve()), "sha256": p.content_id.hex()} for p in usable],
        "unusable": [{"path": one.uri, "why": one.message} for one in failed],
    }


def digest_of(pictures: Sequence[Embedded]) -> str:
    """sha256 of the pictures' vectors, by content id and by layer, hex; of none, that of nothing."""
    ordered = sorted(pictures, key=lambda picture: picture.content_id)
    parts = [
        np.ascontiguousarray(p.vectors[layer], np.float32).tobytes()
        for p in ordered
        for layer in sorted(p.vectors)
    ]
    return sha256_bytes(b"".join(parts))
