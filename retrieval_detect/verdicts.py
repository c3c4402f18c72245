"""What is asked about an image, and what is answered: frozen records, also as JSON. Nothing here reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, TypedDict

from retrieval_detect.types import SCHEMA, UNNAMED, Label, Provenance

VerdictName: TypeAlias = Literal["fake-like", "real-like", "uncertain", "unknown"]
Reason: TypeAlias = Literal[
    "rare-among-photographs",
    "fits-photographs",
    "fits-both",
    "fake-like-if-known-source",
    "untypical",
    "nothing-comparable",
    "fits-neither",
    "uncalibrated",
    "rare-beside",
    "fits-beside",
    "clears-known-fakes",
]
"""Why a verdict is what it is. fake-like: rare-among-photographs. real-like: fits-photographs. uncertain:
fits-both, fake-like-if-known-source. unknown: untypical, nothing-comparable, fits-neither,
uncalibrated. With photographs laid beside the image, besides: fake-like: rare-beside; uncertain: fits-beside,
clears-known-fakes."""
Reach: TypeAlias = Literal["known sources", "new sources"]
"""Photographs among which a score is rare: of the sources in the index, or of others as well."""
Photographs: TypeAlias = Literal["new", "known"]
PHOTOGRAPHS: tuple[Photographs, ...] = ("new", "known")
Pool: TypeAlias = Literal["max", "mean", "top"]
POOLS: tuple[Pool, ...] = ("max", "mean", "top")
_DIGITS: Mapping[str, int] = {
    **dict.fromkeys(
        ("score", "similarity", "nearest", "p_values", "p", "p_max", "probability", "change", "smallest"), 6
    ),
    **dict.fromkeys(("share", "bank_share_fake", "log10_lr", "log10_lr_interval", "elapsed_s"), 4),
}
"""After the point, by the name of the field or of what it stands in; what is in neither is kept as it is."""


@dataclass(frozen=True, slots=True, repr=False)
class Evidence:
    """One reference shown with a verdict. ``similarity`` is the cosine, -1…1."""

    rank: int
    row_id: int
    label: Label
    similarity: float
    generator: str
    source: str
    uri: str
    content_id: str
    added_at: str

    def __repr__(self) -> str:
        name = self.generator if self.label == "fake" else self.source
        of = f" of {name}" if name != UNNAMED else ""
        return f"<{self.label} reference{of}, similarity {self.similarity:.3f}: {self.uri}>"


@dataclass(frozen=True, slots=True)
class Attribution:
    """One generator among the nearest fakes. ``share`` of their density, 0…1, sums to 1 over all.

    By a head that tells generators apart, ``share`` is that head's, and there are those it knows besides.

    ``p`` : share of its own calibration images that lie as far from its references, 0…1; ``None`` where
    too few were set aside.
    """

    generator: str
    of_nearest_fakes: int
    share: float
    p: float | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """How an image is to be judged.

    ``method`` : a vote, or the name of a head; ``k`` : how many neighbours a vote counts, ``None`` is its
    own; ``projection`` : what banks are searched through, ``None`` is the index's default.

    With a calibration: ``photographs``, whether the image, were it a photograph, may be of a source that is
    not in the index (``"new"``) or is of one that is (``"known"``; always so with ``source``);
    ``fpr``, the share of photographs that may be called fake-like, 0…1;
    ``confidence`` that it is no higher, over the draw of the calibration photographs; ``source`` whose
    photographs alone are compared with; ``within`` (``"source"``, ``"format"``, ``"size"``), so that the
    rate holds in each such set of photographs by itself; ``fdr``, instead of ``fpr``, the expected share
    of photographs among those of a batch that are called fake-like; ``at``, instead of ``fpr``, the lowest
    score that counts as rare, which then stays where it is whatever is added; ``prior``, the share of fakes
    among such images, for which alone a probability is stated.

    Of views of the image: ``stability``, how many re-encodings are judged beside it; ``regions``, how the
    scores of its crops are pooled (``"max"``, ``"mean"``, ``"top"``: the mean of the three highest), ``None``
    for none.

    ``influence`` : ask again without each generator, source and reference near the image.
    """

    method: str = "density"
    k: int | None = None
    projection: str | None = None
    photographs: Photographs = "new"
    fpr: float = 0.05
    confidence: float | None = None
    source: str | None = None
    within: str | None = None
    fdr: float | None = None
    at: float | None = None
    prior: float | None = None
    stability: int | None = None
    regions: Pool | None = None
    influence: bool = False


class QuestionFields(TypedDict, total=False):
    """The fields of ``Question`` as keyword arguments."""

    method: str
    k: int | None
    projection: str | None
    photographs: Photographs
    fpr: float
    confidence: float | None
    source: str | None
    within: str | None
    fdr: float | None
    at: float | None
    prior: float | None
    stability: int | None
    regions: Pool | None
    influence: bool


@dataclass(frozen=True, slots=True)
class Votes:
    """The nearest references of both banks together, ``of`` = how many voted."""

    fake: int
    real: int
    of: int
    bank_share_fake: float


@dataclass(frozen=True, slots=True)
class JudgedView:
    """What was judged of one re-encoding of an image; ``view`` names it: ``jpeg-72``."""

    view: str
    verdict: VerdictName
    score: float


@dataclass(frozen=True, slots=True)
class Stability:
    """How far a verdict outlives re-encoding.

    ``agree`` of ``of`` views got the verdict of the image as it is, ``verdict``. Shown, and decides nothing.
    """

    agree: int
    of: int
    verdict: VerdictName
    views: tuple[JudgedView, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """One crop of an image. ``score`` : positive = closer to the crops of fakes.

    ``box`` : x and y of its upper left corner, width, height; in pixels of the upright original.
    """

    box: tuple[int, int, int, int]
    score: float


@dataclass(frozen=True, slots=True)
class Regions:
    """The crops of an image, each judged by itself.

    ``score`` : theirs, pooled by ``pool``. ``p_max`` : of the ``photographs`` set aside that have as many
    crops or more, the share whose highest crop scores as high (conformal); ``None`` where that was not
    fitted (``photographs`` is ``None``), or there are none.
    """

    pool: Pool
    score: float
    p_max: float | None
    photographs: int | None
    heat_map: tuple[Region, ...]

    @property
    def highest(self) -> Region:
        """The crop that is closest to the crops of fakes."""
        return max(self.heat_map, key=lambda region: region.score)


@dataclass(frozen=True, slots=True)
class Influence:
    """What the score would be without some references: a change of the score, and no cause.

    ``name`` : a generator (``label`` fake) or source, all of whose ``n_images`` are left out; with
    ``row_id``, that one reference alone, of that name. ``score`` is ``None`` where nobody would be left
    to vote.
    """

    label: Label
    name: str
    row_id: int | None
    n_images: int
    score: float | None
    change: float | None


@dataclass(frozen=True, slots=True)
class LaidPicture:
    """A photograph laid beside an image, judged by the banks without any of them.

    ``scene`` : 1, 2, …; pictures of one scene count once. ``score`` : positive = fake. ``fake_like`` :
    whether it would be called so, were it of a known source.
    """

    input: str
    sha256: str
    scene: int
    score: float
    fake_like: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A picture that was to be laid beside an image, and why it was not."""

    input: str
    why: str


@dataclass(frozen=True, slots=True)
class Contrast:
    """What the same pictures do for known fakes: a ``generator``'s references nearest to the image.

    ``flagged`` of them, each judged without its own group, are fake-like without the pictures; ``turned``, of
    those, are not any more with them.
    """

    generator: str
    flagged: int
    turned: int

    @property
    def clears(self) -> bool:
        """Whether the pictures would clear known fakes as well: most of those that could be turned."""
        return 2 * self.turned > self.flagged


@dataclass(frozen=True, slots=True)
class WithBeside:
    """The answer for an image with photographs laid beside it, into the real bank for this question alone.

    They are one source of their own, of ``scenes`` scenes. ``verdict``, ``reason``, ``score`` (positive =
    fake): see ``Verdict``. ``p_values`` : ``real``, ``fake`` and ``typical`` by calibration rows that were
    asked anew with the pictures in the bank; ``scenes``, how many of the scenes score as high, each asked as
    the image is, without itself: ``None`` where they are fewer than ``needed`` for the rate asked for. Then
    the pictures may withdraw an accusation, and nothing else. ``supplier`` and ``date`` : who gave them and
    when, as was said. ``digest`` : sha256 of their vectors. ``pictures`` and ``refused`` : what was laid, and
    what not.
    """

    verdict: VerdictName
    reason: Reason
    score: float
    p_values: Mapping[str, float | None]
    scenes: int
    needed: int
    contrast: Contrast | None
    supplier: str | None
    date: str | None
    digest: str
    pictures: tuple[LaidPicture, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class IndexRef:
    """Which state of which index judged: enough to ask the same again."""

    name: str
    generation: int
    fingerprint: str
    n_real: int
    n_fake: int
    n_generators: int

    @property
    def share_fake(self) -> float:
        """The fake bank's part of all references that can vote, 0…1."""
        return self.n_fake / (self.n_real + self.n_fake)


@dataclass(frozen=True, slots=True, repr=False)
class Verdict:
    """The answer for one image, with its evidence. ``score`` : positive = fake.

    ``reason`` : why it is this verdict; ``reach`` : the photographs among which such a score is rare, if
    any. Without a calibration the verdict is unknown, and the sign of the score alone says which bank is
    nearer. Fields that need a calibration (``p_values``, ``log10_lr``, ``probability``, …) are
    ``None`` where there is none. ``coverage`` : how near the real bank's nearest photographs are to the image
    (``similarity``), how near they must be to be comparable (``threshold``), and of which sources they are
    (``nearest``: ``source``, and how many ``photographs``); ``None`` where the index has not learnt that.
    ``evidence`` : the nearest of both banks together; ``by_bank`` : the nearest of each, for pages that show
    them side by side.
    ``attributed_by`` : the head whose shares ``attribution`` gives, if not those of the nearest fakes.
    ``beside`` : what comes of it once photographs are laid beside the image; all else is the answer without.
    """

    page: ClassVar[Callable[[Verdict], str] | None] = None
    """How a notebook shows a verdict, as HTML: told by ``report.notebook``, which stands above."""

    input: str
    sha256: str
    verdict: VerdictName
    reason: Reason
    reach: Reach | None
    score: float
    method: str
    k: int
    votes: Votes
    nearest: Mapping[str, float]
    attribution: tuple[Attribution, ...]
    evidence: tuple[Evidence, ...]
    same_image: tuple[Evidence, ...]
    warnings: tuple[str, ...]
    index: IndexRef
    encoder: str
    engine: str
    elapsed_s: float
    photographs: Photographs = "new"
    p_values: Mapping[str, float | None] | None = None
    alpha: Mapping[str, float] | None = None
    calibration: Mapping[str, Any] | None = None
    coverage: Mapping[str, Any] | None = None
    log10_lr: float | None = None
    log10_lr_interval: tuple[float, float] | None = None
    prior: float | None = None
    probability: float | None = None
    fdr: float | None = None
    at: float | None = None
    stability: Stability | None = None
    regions: Regions | None = None
    influence: tuple[Influence, ...] | None = None
    by_bank: Mapping[Label, tuple[Evidence, ...]] = field(default_factory=dict)
    provenance: Provenance | None = None
    attributed_by: str | None = None
    beside: WithBeside | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as ``rd query --json`` prints them (``report.json.verdict_schema``).

        All but ``by_bank``. Scores: positive = fake; similarities are cosines; times in seconds.
        """
        data = _plain(asdict(self))
        del data["by_bank"]
        return {"schema": SCHEMA, **data, "provenance": data["provenance"] or {}}

    def to_json(self, *, indent: int | None = None) -> str:
        """``to_dict`` as JSON text, in ASCII."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def __repr__(self) -> str:
        among = f", among photographs of {self.reach}" * bool(self.reach)
        nearest = "".join(f", nearest {label} {self.nearest[label]:.3f}" for label in sorted(self.nearest))
        return f"<{self.input}: {self.verdict} ({self.reason}{among}), score {self.score:+.2f}{nearest}>"

    def _repr_html_(self) -> str | None:
        return None if Verdict.page is None else Verdict.page(self)


def _plain(value: Any, digits: int | None = None) -> Any:
    """Mappings, lists, texts and numbers alone, each number with its digits."""
    if isinstance(value, Mapping):
        return {name: _plain(inner, _DIGITS.get(name, digits)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, digits) for inner in value]
    return round(value, digits) if digits is not None and isinstance(value, float) else value
