"""What a page shows of one image: words and numbers ready to render. Nothing here computes or reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval_detect.types import Label
    from retrieval_detect.verdicts import Evidence, Verdict


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what is known under it; ``folded`` : long, and opened only by who wants it."""

    name: str
    value: str
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture, or why there is none.

    ``data`` : a ``data:`` URI, empty for a neutral tile; ``alt`` : what it is, for those who do not see
    it; ``note`` : why there is none, or what was done to it; ``key`` : the same for the same picture
    wherever it is shown, letters and digits; ``width``, ``height`` : in pixels.
    """

    data: str
    alt: str
    note: str = ""
    key: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class ReferenceView:
    """One reference beside the image.

    ``subject``, ``caption``, ``url`` : empty where it is not recorded; ``file`` : its path, shortened.
    """

    evidence: Evidence
    subject: str
    picture: Picture
    file: str
    caption: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A share as a bar, 0…1, with its words; ``mark`` : another share to compare with, drawn as a tick."""

    name: str
    share: float
    text: str
    mark: float | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Scores of one label's calibration images.

    ``heights`` : of the bins, left to right, 0…1, the highest 1; ``n`` : how many images.
    """

    label: Label
    n: int
    heights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Where a score lies among those of known images. ``at`` : its place from ``low`` to ``high``, 0…1."""

    low: float
    high: float
    score: float
    at: float
    histograms: tuple[Histogram, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Dot:
    """An image on the map of the banks; ``x`` and ``y`` 0…1 from the upper left, ``title`` on hover."""

    x: float
    y: float
    kind: int
    label: Label
    title: str


@dataclass(frozen=True, slots=True)
class Kind:
    """What the dots of one colour are; ``label`` gives their shape, ``colour`` is a class of the style."""

    name: str
    label: Label
    n: int
    colour: str


@dataclass(frozen=True, slots=True)
class MapView:
    """The banks in two dimensions.

    ``kinds`` : what is told apart, in the order of ``Dot.kind``; ``notes`` : how it was made and what it
    does not say. ``place`` : the query's, as those of a ``Dot``, if one was asked about.
    """

    title: str
    kinds: tuple[Kind, ...]
    dots: tuple[Dot, ...]
    notes: tuple[str, ...]
    place: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class GlanceView:
    """What a page shows of a verdict alone, without its index; see ``EvidenceView``."""

    name: str
    judged: Verdict
    picture: Picture
    facts: tuple[Fact, ...]
    headline: str
    strength: str
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    real: tuple[ReferenceView, ...]
    fake: tuple[ReferenceView, ...]


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """Everything a page shows of one verdict. All text is plain, none is markup.

    ``name`` : the image's, as it was given, and ``short`` in headings and lists; ``judged`` : for what
    templates take from it as it is. ``copies`` : its own references, each in words and with its whole path.
    ``headline`` : what people read; ``warnings`` : what may mislead. ``real``, ``fake`` : the nearest
    references of each bank.
    ``alarm_rate`` : the share of photographs that may be called fake-like, 0…1, where the image was judged
    by one. ``place`` : on the map of the banks.
    """

    name: str
    short: str
    judged: Verdict
    picture: Picture
    facts: tuple[Fact, ...]
    provenance: tuple[Fact, ...]
    provenance_note: str
    headline: str
    strength: str
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    real: tuple[ReferenceView, ...]
    fake: tuple[ReferenceView, ...]
    subjects: str
    copies: tuple[tuple[str, str], ...]
    votes: tuple[Bar, ...]
    attribution: tuple[Bar, ...]
    distribution: Distribution | None
    heat: Picture | None
    reproduce: tuple[Fact, ...]
    command: str
    alarm_rate: float | None = None
    place: tuple[float, float] | None = None
