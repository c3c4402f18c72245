"""The map of the banks as a page shows it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, TypeAlias

from retrieval_detect.report.html import strings as t
from retrieval_detect.report.html.records import Dot, Kind, MapView
from retrieval_detect.report.words import name_of
from retrieval_detect.types import LABELS

if TYPE_CHECKING:
    from retrieval_detect.review.map import Atlas
    from retrieval_detect.types import Label

Colouring: TypeAlias = Literal["label", "generator", "source"]
_MOST_KINDS = 7
"""Of a label, as many colours as can be told apart; what is left over shares the last."""
_REST = ""
"""In the place of a name: that of nobody, for references without one are called unnamed."""


def map_view(
    atlas: Atlas,
    *,
    index: str,
    colour: Colouring = "label",
    place: tuple[float, float] | None = None,
    with_queries: bool = False,
) -> MapView:
    """The map with its legend and what it does not say.

    ``place`` : of an image, by ``Atlas.place``; ``with_queries`` : whether images are going to be shown
    where ``Atlas.place_among`` puts them.
    """
    labels: list[Label] = ["fake" if fake else "real" for fake in atlas.fake]
    made_by = zip(atlas.fake, atlas.generators, atlas.sources, strict=True)
    names = [name_of(str(generator if fake else source)) for fake, generator, source in made_by]
    # Coloured by its name if names of its label are told apart, else by its label.
    named = {"fake": colour == "generator", "real": colour == "source"}
    groups = [
        (label, name if named[label] else t.MAP_LABELS[label])
        for label, name in zip(labels, names, strict=True)
    ]
    kinds = _kinds(groups)
    number = {group: i for i, group in enumerate(kinds)}
    dots = tuple(
        Dot(
            *flipped((float(x), float(y))),
            number[group if group in number else (group[0], _REST)],
            group[0],
            t.DOT.format(label=group[0], name=name, row_id=row_id),
        )
        for (x, y), group, name, row_id in zip(atlas.places, groups, names, atlas.row_ids, strict=True)
    )
    shown = (t.MAP_ALL if len(dots) == atlas.total else t.MAP_DRAWN).format(n=len(dots))
    notes = [t.MAP_NOTE.format(method=t.MAP_METHODS[atlas.method], shown=shown, of=f"{atlas.total:,}")]
    if place is not None or with_queries:
        notes.append(t.MAP_BY_FIT if place is not None and atlas.placer else t.MAP_BY_NEIGHBOURS)
    return MapView(
        t.MAP_TITLE.format(index=index),
        tuple(kinds.values()),
        dots,
        tuple(notes),
        None if place is None else flipped(place),
    )


def flipped(place: tuple[float, float]) -> tuple[float, float]:
    """A place of an ``Atlas`` as one of a ``MapView``, which counts from above."""
    return round(place[0], 4), round(1 - place[1], 4)


def _kinds(groups: list[tuple[Label, str]]) -> dict[tuple[Label, str], Kind]:
    """The groups with colours of their own, those of a label by size; the rest of a label share one.

    How many there are of which never decides a colour: photographs are blue wherever they are shown.
    """
    kinds: dict[tuple[Label, str], Kind] = {}
    for label in LABELS:
        counts = Counter(name for of, name in groups if of == label).most_common()
        own = counts if len(counts) <= _MOST_KINDS else counts[: _MOST_KINDS - 1]
        for i, (name, n) in enumerate(own):
            kinds[label, name] = Kind(name, label, n, f"{label}{i}")
        if rest := sum(n for _, n in counts[len(own) :]):
            kinds[label, _REST] = Kind(t.MAP_REST, label, rest, f"{label}-rest")
    return kinds
